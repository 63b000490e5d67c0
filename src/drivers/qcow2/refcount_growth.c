/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * More refcounts: new blocks, and a larger table when it is full.
 *
 * A new block lies in the cluster that it was wanted for, or elsewhere when that
 * shall stay free. It is all zeroes in the file before the table names it (metadata_commit.h writes blocks, syncs, then
 * the table).
 *
 * A new table goes behind everything, together with the blocks that count it:
 *
 *     ... old end | block(s) | new table |
 *
 * All of that is written and durable before the header names it, in one sector;
 * no commit runs meanwhile. The old table is then freed as anything else. A
 * failure before the header changes nothing; after one at the header the old
 * header is written again, and if that fails, too, it is as final as a failed
 * sync, since nobody knows which table counts.
 */
#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/free_later.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/refcount_entry.h"
#include "drivers/qcow2/refcount_priv.h"

/* The new end of the file. */
struct growth {
    uint64_t first; /* cluster: where the blocks begin */
    uint64_t blocks;
    uint64_t table_clusters;
};

static uint64_t entries_per_cluster(const struct qcow2_image *image)
{
    return image->cluster_bytes / 8;
}

/* As many blocks and as large a table as count `first` and themselves, and leave
 * the table half as large again as it was. */
static int plan_growth(const struct qcow2_image *image,
                       uint64_t first,
                       struct growth *ret_growth)
{
    const struct qcow2_refcounts *refcounts = image->refcounts;
    struct growth growth = { first, 1, 1 };

    for (;;) {
        uint64_t end = first + growth.blocks + growth.table_clusters;
        uint64_t last_block = (end - 1) >> refcounts->block_bits;
        uint64_t blocks = last_block - (first >> refcounts->block_bits) + 1;
        uint64_t entries =
            max_u64(last_block + 1, refcounts->table_count * 3 / 2);
        uint64_t table_clusters =
            divide_round_up(entries, entries_per_cluster(image));

        if (table_clusters * image->cluster_bytes >
            QCOW2_REFCOUNT_TABLE_BYTES_MAX) {
            return -EFBIG;
        }
        if (blocks <= growth.blocks &&
            table_clusters <= growth.table_clusters) {
            *ret_growth = growth;
            return 0;
        }
        growth.blocks = max_u64(growth.blocks, blocks);
        growth.table_clusters = max_u64(growth.table_clusters, table_clusters);
    }
}

/* The content of blocks and table, to be freed; and the table as it will be in
 * memory. */
static uint8_t *format_growth(const struct qcow2_image *image,
                              const struct growth *growth,
                              uint64_t *table)
{
    const struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t clusters = growth->blocks + growth->table_clusters;
    uint64_t first_block = growth->first >> refcounts->block_bits;
    uint64_t block_mask = (UINT64_C(1) << refcounts->block_bits) - 1;
    uint8_t *bytes = g_try_malloc0(clusters * image->cluster_bytes);
    uint8_t *table_bytes;

    if (bytes == NULL) {
        return NULL;
    }
    for (uint64_t i = 0; i < clusters; i++) {
        uint64_t cluster = growth->first + i;
        uint64_t block = (cluster >> refcounts->block_bits) - first_block;

        qcow2_refcount_store(bytes + block * image->cluster_bytes,
                             refcounts->order, cluster & block_mask, 1);
    }
    memcpy(table, refcounts->table, refcounts->table_count * 8);
    for (uint64_t i = 0; i < growth->blocks; i++) {
        table[first_block + i] = (growth->first + i) * image->cluster_bytes;
    }
    table_bytes = bytes + growth->blocks * image->cluster_bytes;
    for (uint64_t i = 0;
         i < growth->table_clusters * entries_per_cluster(image); i++) {
        store_be64(table_bytes + i * 8, table[i]);
    }
    return bytes;
}

static int co_sync_file(struct qcow2_image *image)
{
    int ret = co_block_child_flush(image->file);

    if (ret < 0) {
        qcow2_commit_fail(image, ret);
    }
    return ret;
}

/* Makes the header name the new table. Commits do not run. */
static int co_switch_table(struct qcow2_image *image,
                           const struct growth *growth)
{
    struct qcow2_header *header = image->header;
    uint64_t old_offset = header->refcount_table_offset;
    uint64_t old_bytes = header->refcount_table_clusters * image->cluster_bytes;
    uint64_t new_bytes = growth->table_clusters * image->cluster_bytes;
    uint64_t blocks_offset = growth->first * image->cluster_bytes;
    uint64_t blocks_bytes = growth->blocks * image->cluster_bytes;
    int ret;

    header->refcount_table_offset = blocks_offset + blocks_bytes;
    header->refcount_table_clusters = (uint32_t)growth->table_clusters;
    ret = co_qcow2_write_header(image, NULL);
    if (ret < 0) {
        header->refcount_table_offset = old_offset;
        header->refcount_table_clusters =
            (uint32_t)(old_bytes / image->cluster_bytes);
        return co_qcow2_header_undo(image, ret);
    }
    cluster_set_remove(image->metadata, old_offset, old_bytes);
    cluster_set_add(image->metadata, blocks_offset, blocks_bytes + new_bytes);
    qcow2_free_later(image, old_offset, old_bytes, QCOW2_FREE_REPLACED);
    return 0;
}

/* `first`: no table entry is there for it. */
static int co_grow_table(struct qcow2_image *image, uint64_t first)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    g_autofree uint64_t *table = NULL;
    g_autofree uint8_t *bytes = NULL;
    struct growth growth;
    uint64_t offset = first * image->cluster_bytes;
    uint64_t total;
    int ret = plan_growth(image, first, &growth);

    if (ret < 0) {
        return ret;
    }
    total = (growth.blocks + growth.table_clusters) * image->cluster_bytes;
    table = g_try_malloc0(growth.table_clusters * image->cluster_bytes);
    if (table == NULL) {
        return -ENOMEM;
    }
    ret = co_qcow2_commit_and_hold(image);
    if (ret < 0) {
        return ret;
    }
    bytes = format_growth(image, &growth, table);
    struct iovec iov = { bytes, total };

    ret = bytes == NULL
              ? -ENOMEM
              : co_qcow2_write_new_metadata(image, offset, total, &iov, 1);
    if (ret == 0) {
        ret = co_sync_file(image);
    }
    if (ret == 0) {
        ret = co_switch_table(image, &growth);
    }
    if (ret == 0) {
        g_free(refcounts->table);
        refcounts->table = g_steal_pointer(&table);
        refcounts->table_count =
            growth.table_clusters * entries_per_cluster(image);
        refcounts->high_offset =
            max_u64(refcounts->high_offset, offset + total);
    }
    qcow2_commit_release(image);
    return ret;
}

/* Makes the block's cluster zeroes in the file, if there may be anything. */
static int co_zero_block(struct qcow2_image *image, uint64_t offset)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    int ret = co_qcow2_grow_file(image, offset + image->cluster_bytes);

    if (ret < 0 || offset >= refcounts->high_offset) {
        return ret;
    }
    return co_block_child_write_zeroes(image->file, offset,
                                       image->cluster_bytes, 0);
}

/* The table names the block from now on. */
static void enter_block(struct qcow2_image *image,
                        uint64_t block,
                        uint64_t offset)
{
    struct qcow2_refcounts *refcounts = image->refcounts;

    refcounts->table[block] = offset;
    refcounts->high_offset =
        max_u64(refcounts->high_offset, offset + image->cluster_bytes);
    qcow2_commit_refcount_table_dirty(image, block);
    cluster_set_add(image->metadata, offset, image->cluster_bytes);
}

int co_qcow2_refcount_block_place(struct qcow2_image *image,
                                  uint64_t cluster,
                                  const struct qcow2_run *place)
{
    uint64_t block = cluster >> image->refcounts->block_bits;
    int ret = 0;

    if (!place->reads_zero) {
        ret = co_block_child_write_zeroes(image->file, place->host_offset,
                                          image->cluster_bytes, 0);
    }
    if (ret == 0) {
        enter_block(image, block, place->host_offset);
    }
    return ret;
}

int co_qcow2_refcount_block_add(struct qcow2_image *image, uint64_t cluster)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t block = cluster >> refcounts->block_bits;
    uint64_t offset = cluster * image->cluster_bytes;
    uint64_t in_block = cluster & ((UINT64_C(1) << refcounts->block_bits) - 1);
    uint64_t slice_mask = (UINT64_C(1) << refcounts->slice_bits) - 1;
    uint64_t slice_offset = (in_block >> refcounts->slice_bits) *
                            table_cache_block_bytes(refcounts->slices);
    struct table_block *slice;
    int ret;

    if (cluster >> (QCOW2_OFFSET_BITS_MAX - image->header->cluster_bits) != 0) {
        return -EFBIG;
    }
    if (cluster_set_meets(image->metadata, offset, image->cluster_bytes)) {
        return co_qcow2_mark_corrupt(image,
                                     "the table at offset 0x%" G_GINT64_MODIFIER
                                     "x"
                                     " is counted as free",
                                     offset);
    }
    if (block >= refcounts->table_count) {
        return co_grow_table(image, cluster);
    }
    ret = co_zero_block(image, offset);
    if (ret == 0) {
        ret = co_table_cache_get_new(refcounts->slices, offset + slice_offset,
                                     &slice);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_refcount_store(slice->bytes, refcounts->order, cluster & slice_mask,
                         1);
    table_cache_mark_dirty(refcounts->slices, slice);
    table_cache_put(refcounts->slices, slice);
    enter_block(image, block, offset);
    return 0;
}
