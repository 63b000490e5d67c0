/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What L1 and L2 tables name. Source: docs/interop/qcow2.txt, "Cluster
 * mapping", "Extended L2 Entries".
 *
 * A table that is not aligned, or behind the end of the file, is not followed:
 * what it seems to hold is not what it held.
 */
#include <inttypes.h>

#include "drivers/qcow2/check_priv.h"

#include "base/bytes.h"

#define L1_RESERVED       UINT64_C(0x7f000000000001ff)
#define STANDARD_RESERVED UINT64_C(0x3f000000000001fe)

struct l1 {
    bool is_active;
};

static int check_l1_entry(struct qcow2_check *check,
                          uint64_t index,
                          uint64_t number,
                          void *opaque)
{
    const struct l1 *l1 = opaque;
    uint64_t offset = number & QCOW2_L1_OFFSET_MASK;
    bool within;
    int ret;

    if ((number & L1_RESERVED) != 0) {
        check_corruption(check, 1,
                         "entry %" PRIu64
                         " of an L1 table has reserved bits set: 0x%" PRIx64,
                         index, number);
    }
    if (offset == 0) {
        return 0;
    }
    ret = check_use(check, offset, check->cluster_bytes, 1, "an L2 table",
                    &within);
    if (offset % check->cluster_bytes != 0) {
        check_corruption(check, 1,
                         "entry %" PRIu64
                         " of an L1 table is not aligned: 0x%" PRIx64,
                         index, number);
        within = false;
    }
    if (!within) {
        check->is_incomplete = true;
        return ret;
    }
    offset /= check->cluster_bytes;
    if (ret == 0) {
        ret = check_counts_add(check->l2_tables, offset, 1);
    }
    if (ret == 0 && l1->is_active) {
        ret = check_counts_add(check->l2_active, offset, 1);
    }
    return ret;
}

static int co_check_l1(struct qcow2_check *check,
                       uint64_t offset,
                       uint64_t count,
                       struct l1 *l1)
{
    bool within = true;
    int ret = 0;

    if (count > 0) {
        ret = check_use_table(check, offset, 8 * count, "an L1 table", &within);
    }
    if (ret < 0 || !within) {
        check->is_incomplete = true;
        return ret;
    }
    return co_check_each(check, offset, count, check_l1_entry, l1);
}

int co_check_active_l1(struct qcow2_check *check)
{
    struct l1 l1 = { .is_active = true };

    return co_check_l1(check, check->header->l1_offset, check->header->l1_count,
                       &l1);
}

int co_check_snapshot_l1(struct qcow2_check *check,
                         uint64_t offset,
                         uint64_t count)
{
    struct l1 l1 = { .is_active = false };

    return co_check_l1(check, offset, count, &l1);
}

/* One table: how often it is named, and what its clusters would come after. */
struct l2 {
    uint64_t offset;
    uint64_t times;
    uint64_t times_active;
    uint64_t next_host_offset;
};

static int check_compressed(struct qcow2_check *check,
                            const struct l2 *l2,
                            uint64_t entry)
{
    unsigned int shift = 62 - (check->header->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & (QCOW2_L2_COMPRESSED - 1)) >> shift) + 1;

    offset = round_down(offset, QCOW2_SECTOR_BYTES);
    if ((entry & QCOW2_ENTRY_COPIED) != 0) {
        check_corruption(check, l2->times,
                         "an entry of the L2 table at 0x%" PRIx64
                         " for a compressed cluster has the copied flag: "
                         "0x%" PRIx64,
                         l2->offset, entry);
        check->needs_entries = true;
    }
    if (check->external_data) {
        check_corruption(check, l2->times,
                         "an entry of the L2 table at 0x%" PRIx64
                         " is for a compressed cluster, which an external data "
                         "file cannot have: 0x%" PRIx64,
                         l2->offset, entry);
        return 0;
    }
    check->result.allocated_clusters += l2->times_active;
    check->result.compressed_clusters += l2->times_active;
    check->result.fragmented_clusters += l2->times_active;
    return check_use(check, offset, sectors * QCOW2_SECTOR_BYTES, l2->times,
                     "a compressed cluster", NULL);
}

/* An unaligned preallocated cluster holds nothing that is read. */
static void report_unaligned(struct qcow2_check *check,
                             const struct l2 *l2,
                             uint64_t entry,
                             bool is_preallocated)
{
    check_corruption(check, l2->times,
                     "an entry of the L2 table at 0x%" PRIx64
                     " names %s that is not aligned: 0x%" PRIx64,
                     l2->offset,
                     is_preallocated ? "a preallocated cluster" : "a cluster",
                     entry);
    if (is_preallocated) {
        check->needs_entries = true;
    }
}

static int check_standard(struct qcow2_check *check,
                          struct l2 *l2,
                          uint64_t entry,
                          uint64_t subclusters)
{
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    bool extended = check->l2_entry_bytes == 16;
    bool is_zero =
        !extended && check->header->version > 2 && (entry & QCOW2_L2_ZERO) != 0;
    bool has_cluster = offset != 0 || (check->external_data &&
                                       (entry & QCOW2_ENTRY_COPIED) != 0);

    if ((entry & STANDARD_RESERVED) != 0 ||
        ((entry & QCOW2_L2_ZERO) != 0 && !is_zero)) {
        check_corruption(check, l2->times,
                         "an entry of the L2 table at 0x%" PRIx64
                         " has reserved bits set: 0x%" PRIx64,
                         l2->offset, entry);
    }
    if ((subclusters & subclusters >> QCOW2_SUBCLUSTERS & UINT32_MAX) != 0 ||
        (!has_cluster && (uint32_t)subclusters != 0)) {
        check_corruption(check, l2->times,
                         "an entry of the L2 table at 0x%" PRIx64
                         " has subclusters that cannot be: 0x%" PRIx64,
                         l2->offset, subclusters);
    }
    if (!has_cluster) {
        return 0;
    }
    check->result.allocated_clusters += l2->times_active;
    if (l2->next_host_offset != 0 && offset != l2->next_host_offset) {
        check->result.fragmented_clusters += l2->times_active;
    }
    l2->next_host_offset = offset + check->cluster_bytes;
    if (offset % check->cluster_bytes != 0) {
        report_unaligned(check, l2, entry,
                         is_zero || (extended && (uint32_t)subclusters == 0));
    }
    if (check->external_data) {
        return 0;
    }
    return check_use(check, offset, check->cluster_bytes, l2->times,
                     "a data cluster", NULL);
}

static int co_check_l2(struct qcow2_check *check, struct l2 *l2)
{
    bool extended = check->l2_entry_bytes == 16;
    int ret = 0;

    if (co_check_is_hole(check, l2->offset, check->cluster_bytes)) {
        return 0;
    }
    if (co_check_read(check, l2->offset, check->cluster_bytes, check->cluster) <
        0) {
        check->is_incomplete = true;
        return 0; /* reported; there is more to see */
    }
    for (uint64_t at = 0; ret == 0 && at < check->cluster_bytes;
         at += check->l2_entry_bytes) {
        uint64_t entry = load_be64(check->cluster + at);
        uint64_t more = extended ? load_be64(check->cluster + at + 8) : 0;

        if ((entry & QCOW2_L2_COMPRESSED) != 0) {
            ret = check_compressed(check, l2, entry);
        } else if (entry != 0 || more != 0) {
            ret = check_standard(check, l2, entry, more);
        }
    }
    return ret;
}

int co_check_l2_tables(struct qcow2_check *check)
{
    uint64_t cluster = check_counts_next(check->l2_tables, 0);
    int ret = 0;

    while (ret == 0 && cluster != CHECK_COUNTS_NONE) {
        struct l2 l2 = {
            .offset = cluster * check->cluster_bytes,
            .times = check_counts_get(check->l2_tables, cluster),
            .times_active = check_counts_get(check->l2_active, cluster),
        };

        ret = check_counts_add(check->tables, cluster, 1);
        if (ret == 0) {
            ret = co_check_l2(check, &l2);
        }
        cluster = check_counts_next(check->l2_tables, cluster + 1);
    }
    return ret;
}
