/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * With the processor's instruction where there is one (x86-64: SSE 4.2), else
 * half a byte at a time.
 */
#include "base/crc32c.h"

#include "base/bytes.h"

#define POLYNOMIAL UINT32_C(0x82F63B78)

#define STEP(x)       (((x) >> 1) ^ (((x)&1) != 0 ? POLYNOMIAL : 0))
#define NIBBLE_CRC(x) STEP(STEP(STEP(STEP(UINT32_C(x)))))

/* The CRC of one nibble; a byte takes two looks. */
static const uint32_t nibble_table[16] = {
    NIBBLE_CRC(0),  NIBBLE_CRC(1),  NIBBLE_CRC(2),  NIBBLE_CRC(3),
    NIBBLE_CRC(4),  NIBBLE_CRC(5),  NIBBLE_CRC(6),  NIBBLE_CRC(7),
    NIBBLE_CRC(8),  NIBBLE_CRC(9),  NIBBLE_CRC(10), NIBBLE_CRC(11),
    NIBBLE_CRC(12), NIBBLE_CRC(13), NIBBLE_CRC(14), NIBBLE_CRC(15),
};

static uint32_t crc_portable(uint32_t crc, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        crc ^= data[i];
        crc = nibble_table[crc & 15] ^ (crc >> 4);
        crc = nibble_table[crc & 15] ^ (crc >> 4);
    }
    return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t
crc_hardware(uint32_t crc, const uint8_t *data, size_t bytes)
{
    uint64_t wide = crc;

    for (; bytes >= 8; data += 8, bytes -= 8) {
        wide = __builtin_ia32_crc32di(wide, load_le64(data));
    }
    crc = (uint32_t)wide;
    for (; bytes > 0; data++, bytes--) {
        crc = __builtin_ia32_crc32qi(crc, *data);
    }
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc_hardware(~crc, data, bytes);
    }
#endif
    return ~crc_portable(~crc, data, bytes);
}
