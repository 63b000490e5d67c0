/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * New refcounts, when the old cannot be set right where they are:
 *
 *     old end of file
 *     | block | block | ... | table, which may have many clusters |
 *
 * There is a block for each part of the file that has something in use, the new
 * structures themselves included. All is written and synced behind the end of
 * the file before the header names it, in one write within its first sector; so
 * a crash leaves either the old refcounts or the new. The old ones are simply
 * not counted any more.
 *
 * An entry may name what is behind the end of the file. Growing the file over
 * that would make it name the new refcounts; then they are not made, and the
 * image stays as it is, to be read.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "drivers/qcow2/check_priv.h"
#include "drivers/qcow2/refcount_entry.h"

struct rebuild {
    struct qcow2_check *check;
    uint64_t start;    /* cluster of the first block */
    uint64_t blocks;   /* clusters of refcount blocks */
    uint64_t clusters; /* ... and of the table */
    uint64_t *table;   /* owned; big-endian */
};

/* The refcount that a cluster gets. If not all tables could be followed, what
 * is counted now may well be in use, and stays counted. */
static uint64_t co_target(struct qcow2_check *check, uint64_t cluster)
{
    uint64_t used = check_counts_get(check->used, cluster);
    uint64_t counted = 0;

    if (check->is_incomplete &&
        co_check_refcount(check, cluster, &counted) < 0) {
        counted = 0; /* not known */
    }
    return min_u64(max_u64(used, counted), check->refcount_max);
}

/* The first block index from `index` on that needs a block. */
static uint64_t next_index(struct qcow2_check *check, uint64_t index)
{
    uint64_t cluster =
        check_counts_next(check->used, index * check->block_entries);
    uint64_t found = cluster == CHECK_COUNTS_NONE
                         ? CHECK_COUNTS_NONE
                         : cluster / check->block_entries;

    for (uint64_t i = index;
         check->is_incomplete && i < check->refcount_table_count && i < found;
         i++) {
        if (check->refcount_table[i] != 0) {
            return i;
        }
    }
    return found;
}

/* Adds the new structures to what is used, until they cover themselves. */
static int lay_out(struct rebuild *rebuild)
{
    struct qcow2_check *check = rebuild->check;

    for (;;) {
        uint64_t blocks = 0;
        uint64_t end = 0; /* of the table, in entries */
        uint64_t clusters;

        for (uint64_t i = next_index(check, 0); i != CHECK_COUNTS_NONE;
             i = next_index(check, i + 1)) {
            blocks++;
            end = i + 1;
        }
        if (8 * end > QCOW2_REFCOUNT_TABLE_BYTES_MAX) {
            return -EFBIG;
        }
        clusters = blocks + divide_round_up(8 * end, check->cluster_bytes);
        rebuild->blocks = blocks;
        if (clusters <= rebuild->clusters) {
            return 0;
        }
        for (; rebuild->clusters < clusters; rebuild->clusters++) {
            int ret = check_counts_add(check->used,
                                       rebuild->start + rebuild->clusters, 1);
            if (ret < 0) {
                return ret;
            }
        }
    }
}

/* Would an entry that names what is not there name the new structures? */
static bool meets_dangling(const struct rebuild *rebuild)
{
    uint64_t first =
        check_counts_next(rebuild->check->dangling, rebuild->start);

    return first < rebuild->start + rebuild->clusters;
}

static int co_write_blocks(struct rebuild *rebuild, GError **err)
{
    struct qcow2_check *check = rebuild->check;
    uint64_t at = rebuild->start * check->cluster_bytes;
    int ret = 0;

    for (uint64_t i = next_index(check, 0); ret == 0 && i != CHECK_COUNTS_NONE;
         i = next_index(check, i + 1)) {
        uint64_t first = i * check->block_entries;

        memset(check->cluster, 0, check->cluster_bytes);
        for (uint64_t j = 0; j < check->block_entries; j++) {
            qcow2_refcount_store(check->cluster, check->header->refcount_order,
                                 j, co_target(check, first + j));
        }
        ret = co_repair_write(check, at, check->cluster_bytes, check->cluster,
                              err);
        rebuild->table[i] = htobe64(at);
        at += check->cluster_bytes;
    }
    return ret;
}

static int co_switch_header(struct rebuild *rebuild,
                            uint64_t table_offset,
                            uint32_t table_clusters,
                            GError **err)
{
    struct qcow2_check *check = rebuild->check;
    uint8_t fields[12];
    int ret;

    store_be64(fields, table_offset);
    store_be32(fields + 8, table_clusters);
    ret = co_repair_write(check, QCOW2_REFCOUNT_TABLE_OFFSET, sizeof(fields),
                          fields, err);
    if (ret == 0) {
        ret = co_repair_sync(check, err);
    }
    if (ret == 0) {
        check->header->refcount_table_offset = table_offset;
        check->header->refcount_table_clusters = table_clusters;
    }
    return ret;
}

static int co_write_all(struct rebuild *rebuild, GError **err)
{
    struct qcow2_check *check = rebuild->check;
    uint64_t cluster_bytes = check->cluster_bytes;
    uint64_t table_clusters = rebuild->clusters - rebuild->blocks;
    uint64_t table_offset = (rebuild->start + rebuild->blocks) * cluster_bytes;
    int ret = co_block_child_truncate(
        check->file, (rebuild->start + rebuild->clusters) * cluster_bytes,
        false, err);

    if (ret < 0) {
        return ret;
    }
    rebuild->table = g_malloc0(table_clusters * cluster_bytes);
    ret = co_write_blocks(rebuild, err);
    if (ret == 0) {
        ret =
            co_repair_write(check, table_offset, table_clusters * cluster_bytes,
                            rebuild->table, err);
    }
    if (ret == 0) {
        ret = co_repair_sync(check, err);
    }
    if (ret == 0) {
        ret = co_switch_header(rebuild, table_offset, (uint32_t)table_clusters,
                               err);
    }
    g_free(rebuild->table);
    return ret;
}

/* What is used without the old refcount structures. Their table is kept: it
 * tells the old refcounts. */
static int co_count_anew(struct qcow2_check *check)
{
    g_autofree uint64_t *table = g_steal_pointer(&check->refcount_table);
    uint64_t count = check->refcount_table_count;
    int ret;

    check->ignore_refcounts = true;
    ret = co_check_pass(check);
    check->ignore_refcounts = false;
    check->refcount_table = g_steal_pointer(&table);
    check->refcount_table_count = count;
    check->block_offset = 0;
    return ret;
}

int co_repair_rebuild(struct qcow2_check *check, GError **err)
{
    struct rebuild rebuild = { .check = check, .start = check->file_clusters };
    int ret = co_count_anew(check);

    if (ret == 0) {
        ret = lay_out(&rebuild);
    }
    if (ret < 0) {
        return error_set_errno(
            err, ret, "image '%s': cannot make new refcounts", check->name);
    }
    if (meets_dangling(&rebuild)) {
        check_say(check, "no new refcounts are made: entries name clusters "
                         "behind the end of the file, where they would go");
        return 0;
    }
    return co_write_all(&rebuild, err);
}
