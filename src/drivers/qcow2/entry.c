/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/entry.h"

#include "base/bytes.h"
#include "drivers/qcow2/format.h"

/* "Cluster mapping": bits that must be clear in a standard descriptor. With
 * subclusters the zero flag is one of them. */
#define STANDARD_RESERVED UINT64_C(0x3f000000000001fe)

/* Where the sector count of a compressed descriptor begins: "x". */
static unsigned int sectors_shift(unsigned int cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

static bool load_compressed(uint64_t descriptor,
                            unsigned int cluster_bits,
                            struct qcow2_entry *entry)
{
    unsigned int shift = sectors_shift(cluster_bits);
    uint64_t offset = descriptor & ((UINT64_C(1) << shift) - 1);
    uint64_t more_sectors = (descriptor & (QCOW2_L2_COMPRESSED - 1)) >> shift;

    /* The field may be wider than any host offset. */
    if (offset >> QCOW2_OFFSET_BITS_MAX != 0) {
        return false;
    }
    entry->compressed = true;
    entry->host_offset = offset;
    entry->compressed_bytes =
        (more_sectors + 1) * QCOW2_SECTOR_BYTES - offset % QCOW2_SECTOR_BYTES;
    return true;
}

bool qcow2_entry_load(const uint8_t *bytes,
                      unsigned int cluster_bits,
                      bool has_subclusters,
                      struct qcow2_entry *ret_entry)
{
    uint64_t descriptor = load_be64(bytes);
    uint64_t subclusters = has_subclusters ? load_be64(bytes + 8) : 0;
    struct qcow2_entry entry = {
        .copied = (descriptor & QCOW2_ENTRY_COPIED) != 0,
    };

    if ((descriptor & QCOW2_L2_COMPRESSED) != 0) {
        if (subclusters != 0 ||
            !load_compressed(descriptor, cluster_bits, &entry)) {
            return false;
        }
        *ret_entry = entry;
        return true;
    }
    entry.host_offset = descriptor & QCOW2_L2_OFFSET_MASK;
    entry.zero = (descriptor & QCOW2_L2_ZERO) != 0;
    entry.subclusters_allocated = (uint32_t)subclusters;
    entry.subclusters_zero = (uint32_t)(subclusters >> QCOW2_SUBCLUSTERS);
    if ((descriptor & STANDARD_RESERVED) != 0 ||
        (has_subclusters && entry.zero) ||
        (entry.subclusters_allocated & entry.subclusters_zero) != 0) {
        return false;
    }
    *ret_entry = entry;
    return true;
}

static uint64_t compressed_descriptor(const struct qcow2_entry *entry,
                                      unsigned int cluster_bits)
{
    uint64_t last_byte = entry->host_offset + entry->compressed_bytes - 1;
    uint64_t more_sectors = last_byte / QCOW2_SECTOR_BYTES -
                            entry->host_offset / QCOW2_SECTOR_BYTES;

    return QCOW2_L2_COMPRESSED | more_sectors << sectors_shift(cluster_bits) |
           entry->host_offset;
}

void qcow2_entry_store(uint8_t *bytes,
                       unsigned int cluster_bits,
                       bool has_subclusters,
                       const struct qcow2_entry *entry)
{
    uint64_t descriptor;

    if (entry->compressed) {
        descriptor = compressed_descriptor(entry, cluster_bits);
    } else {
        descriptor = entry->host_offset | (entry->zero ? QCOW2_L2_ZERO : 0) |
                     (entry->copied ? QCOW2_ENTRY_COPIED : 0);
    }
    store_be64(bytes, descriptor);
    if (has_subclusters) {
        store_be64(bytes + 8,
                   (uint64_t)entry->subclusters_zero << QCOW2_SUBCLUSTERS |
                       entry->subclusters_allocated);
    }
}
