/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/refcount_entry.h"

#include "base/bytes.h"

uint64_t qcow2_refcount_load(const uint8_t *block,
                             unsigned int order,
                             uint64_t index)
{
    unsigned int bits = 1U << order;

    switch (order) {
    case 3: return block[index];
    case 4: return load_be16(block + index * 2);
    case 5: return load_be32(block + index * 4);
    case 6: return load_be64(block + index * 8);
    default: break;
    }
    return ((unsigned int)block[index * bits / 8] >> (index * bits % 8)) &
           ((1U << bits) - 1);
}

void qcow2_refcount_store(uint8_t *block,
                          unsigned int order,
                          uint64_t index,
                          uint64_t count)
{
    unsigned int bits = 1U << order;
    unsigned int shift = (unsigned int)(index * bits % 8);
    unsigned int mask;
    uint8_t *byte;

    switch (order) {
    case 3: block[index] = (uint8_t)count; return;
    case 4: store_be16(block + index * 2, (uint16_t)count); return;
    case 5: store_be32(block + index * 4, (uint32_t)count); return;
    case 6: store_be64(block + index * 8, count); return;
    default: break;
    }
    mask = ((1U << bits) - 1) << shift;
    byte = &block[index * bits / 8];
    *byte = (uint8_t)((*byte & ~mask) | ((unsigned int)count << shift));
}
