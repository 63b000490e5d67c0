/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The refcount table and blocks: are they where they may be, and do they say
 * what was counted? Source: docs/interop/qcow2.txt, "Host cluster management".
 *
 * A block that is not aligned, behind the end of the file, or also something
 * else, is not believed: all it would cover counts 0, and new refcounts have to
 * be made.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "drivers/qcow2/check_priv.h"
#include "drivers/qcow2/refcount_entry.h"

/* What is wrong with a table entry, or NULL. Counts the block, and puts what can
 * be believed of the entry in its place. */
static const char *check_table_entry(struct qcow2_check *check,
                                     uint64_t *entry,
                                     int *ret_error)
{
    uint64_t offset = *entry & QCOW2_REFCOUNT_TABLE_OFFSET_MASK;
    uint64_t cluster = offset / check->cluster_bytes;
    bool has_reserved = offset != *entry;

    *entry = 0;
    if (offset % check->cluster_bytes != 0) {
        return "is not aligned";
    }
    if (cluster >= check->file_clusters) {
        return "is behind the end of the file";
    }
    if (has_reserved) {
        *entry = offset;
        return "has reserved bits set";
    }
    *ret_error = check_counts_add(check->used, cluster, 1);
    if (check_counts_get(check->used, cluster) > 1) {
        return "names a cluster that is also used otherwise";
    }
    *entry = offset;
    return NULL;
}

static int check_table(struct qcow2_check *check)
{
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < check->refcount_table_count; i++) {
        uint64_t entry = be64toh(check->refcount_table[i]);
        uint64_t original = entry;
        const char *wrong =
            entry == 0 ? NULL : check_table_entry(check, &entry, &ret);

        check->refcount_table[i] = entry;
        if (wrong != NULL) {
            check_corruption(check, 1,
                             "entry %" PRIu64 " of the refcount table %s: "
                             "0x%" PRIx64,
                             i, wrong, original);
            check->needs_rebuild = true;
        }
    }
    return ret;
}

int co_check_refcount_structures(struct qcow2_check *check)
{
    uint64_t offset = check->header->refcount_table_offset;
    uint64_t bytes =
        check->header->refcount_table_clusters * check->cluster_bytes;
    bool within;
    int ret;

    if (check->ignore_refcounts) {
        return 0;
    }
    ret = check_use(check, offset, bytes, 1, "the refcount table", &within);
    if (ret < 0) {
        return ret;
    }
    check->refcount_table_count = bytes / 8;
    check->refcount_table = g_malloc0(bytes);
    if (!within || co_check_read(check, offset, bytes, check->refcount_table)) {
        check->needs_rebuild = !within;
        check->refcount_table_count = 0;
        return 0;
    }
    return check_table(check);
}

/* The block that covers a cluster, in check->block; false: there is none. */
static int co_load_block(struct qcow2_check *check,
                         uint64_t cluster,
                         bool *ret_there)
{
    uint64_t index = cluster / check->block_entries;
    uint64_t offset =
        index < check->refcount_table_count ? check->refcount_table[index] : 0;
    int ret = 0;

    *ret_there = offset != 0;
    if (offset != 0 && offset != check->block_offset) {
        ret = co_check_read(check, offset, check->cluster_bytes, check->block);
        check->block_offset = ret == 0 ? offset : 0;
    }
    return ret;
}

int co_check_refcount(struct qcow2_check *check,
                      uint64_t cluster,
                      uint64_t *ret_count)
{
    bool there;
    int ret = co_load_block(check, cluster, &there);

    if (ret == 0) {
        *ret_count = there ? qcow2_refcount_load(check->block,
                                                 check->header->refcount_order,
                                                 cluster % check->block_entries)
                           : 0;
    }
    return ret;
}

static void compare_cluster(struct qcow2_check *check,
                            uint64_t cluster,
                            uint64_t counted)
{
    uint64_t used = check_counts_get(check->used, cluster);

    if (counted > 0 || used > 0) {
        check->result.image_end_offset = (cluster + 1) * check->cluster_bytes;
    }
    if (counted > used) {
        check->result.leaks++;
        check_say(check,
                  "leak: cluster %" PRIu64 " has refcount %" PRIu64
                  " and is used %" PRIu64 " times",
                  cluster, counted, used);
    } else if (counted < used) {
        check_corruption(check, 1,
                         "cluster %" PRIu64 " has refcount %" PRIu64
                         " and is used %" PRIu64 " times",
                         cluster, counted, used);
    }
}

/* Clusters from `start` on that no (readable) block covers. */
static void compare_uncovered(struct qcow2_check *check,
                              uint64_t start,
                              uint64_t end)
{
    uint64_t cluster = check_counts_next(check->used, start);

    for (; cluster < end;
         cluster = check_counts_next(check->used, cluster + 1)) {
        compare_cluster(check, cluster, 0);
        check->needs_rebuild = true;
    }
}

static void compare_block(struct qcow2_check *check,
                          uint64_t start,
                          uint64_t end)
{
    uint64_t next_used = check_counts_next(check->used, start);

    for (uint64_t cluster = start; cluster < end; cluster++) {
        uint64_t counted = qcow2_refcount_load(
            check->block, check->header->refcount_order, cluster - start);

        if (counted != 0 || cluster == next_used) {
            compare_cluster(check, cluster, counted);
        }
        if (cluster == next_used) {
            next_used = check_counts_next(check->used, cluster + 1);
        }
    }
}

int co_check_compare(struct qcow2_check *check)
{
    uint64_t start = check->ignore_refcounts ? check->file_clusters : 0;

    for (uint64_t i = 0; start < check->file_clusters; i++) {
        uint64_t end =
            min_u64(start + check->block_entries, check->file_clusters);
        bool there = false;

        if (i >= check->refcount_table_count) {
            end = check->file_clusters;
        } else if (check->refcount_table[i] != 0 &&
                   !co_check_is_hole(check, check->refcount_table[i],
                                     check->cluster_bytes) &&
                   co_load_block(check, start, &there) < 0) {
            start = end;
            continue; /* not known, and reported */
        }
        if (there) {
            compare_block(check, start, end);
        } else {
            compare_uncovered(check, start, end);
        }
        start = end;
    }
    return 0;
}
