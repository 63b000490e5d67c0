/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two compressions of qcow2 clusters. Source: docs/interop/qcow2.txt,
 * "Compressed Clusters Descriptor" and "compression_type".
 *
 * zlib is a raw deflate stream; we write it with a window of 4 KiB, since that
 * is all that QEMU reads. zstd is one or more whole frames. A stream may be
 * followed by anything up to the end of its last sector.
 *
 * Both need processor time, no loop: any thread, best one that may be busy
 * (co_offload).
 */
#ifndef DRIVERS_QCOW2_CODEC_H
#define DRIVERS_QCOW2_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "drivers/qcow2/format.h"

/* Makes exactly `out_bytes` from the beginning of `in`; what would follow is
 * not looked at. -EIO: the stream is broken or too short; -ENOMEM. Memory does
 * not depend on what the stream says of itself. */
int qcow2_decompress(enum qcow2_compression type,
                     const uint8_t *in,
                     size_t in_bytes,
                     uint8_t *out,
                     size_t out_bytes);

/* Writes a stream of at most `out_max` bytes and gives its length. -ENOSPC: it
 * would be longer; -ENOMEM, -EIO. */
int qcow2_compress(enum qcow2_compression type,
                   const uint8_t *in,
                   size_t in_bytes,
                   uint8_t *out,
                   size_t out_max,
                   size_t *ret_bytes);

#endif
