/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CRC-32C (Castagnoli): the checksum of every record on disk.
 *
 * Polynomial 0x1EDC6F41, reflected, initial value and final XOR 0xFFFFFFFF
 * (RFC 3720, appendix B.4). The CRC of "123456789" is 0xE3069283.
 * Pure; any thread.
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of what `crc` covers (0: nothing), followed by `bytes` bytes. */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

#endif
