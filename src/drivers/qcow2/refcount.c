/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and changing refcounts. A change is made to a slice in memory with
 * nothing between the load and the store that yields, so whoever changes counts
 * needs no lock; only making blocks and searching for free clusters does.
 *
 * A refcount block in an impossible place, and a count that would go below
 * zero, mark the image corrupt.
 */
#include "drivers/qcow2/refcount_priv.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/refcount_entry.h"

#define SLICE_BYTES_MAX 4096

static int co_table_load(struct qcow2_image *image,
                         struct qcow2_refcounts *refcounts,
                         GError **err)
{
    const struct qcow2_header *header = image->header;
    uint64_t bytes = header->refcount_table_clusters * image->cluster_bytes;
    uint64_t file_bytes = block_size(image->file);
    uint64_t stored;
    int ret;

    if (header->refcount_table_offset >= file_bytes) {
        return error_set(err, -EINVAL,
                         "image '%s' cannot be written: its refcount table is "
                         "behind the end of the file",
                         block_name(image->node));
    }
    stored = min_u64(bytes, file_bytes - header->refcount_table_offset);
    refcounts->table_count = bytes / 8;
    refcounts->table = g_try_malloc0(bytes);
    if (refcounts->table == NULL) {
        return error_set_errno(err, -ENOMEM,
                               "cannot hold the refcount table of image '%s'",
                               block_name(image->node));
    }
    struct iovec iov = { refcounts->table, stored };

    ret = co_block_child_preadv(image->file, header->refcount_table_offset,
                                stored, &iov, 1);
    if (ret < 0) {
        return error_set_errno(err, ret,
                               "cannot read the refcount table of image '%s'",
                               block_name(image->node));
    }
    for (uint64_t i = 0; i < refcounts->table_count; i++) {
        refcounts->table[i] =
            load_be64(&refcounts->table[i]) & QCOW2_REFCOUNT_TABLE_OFFSET_MASK;
    }
    return 0;
}

int co_qcow2_refcounts_open(struct qcow2_image *image, GError **err)
{
    struct qcow2_refcounts *refcounts = g_new0(struct qcow2_refcounts, 1);
    uint32_t slice_bytes =
        (uint32_t)min_u64(image->cluster_bytes, SLICE_BYTES_MAX);
    unsigned int slice_order = (unsigned int)__builtin_ctz(slice_bytes);
    int ret;

    refcounts->cluster_bits = image->header->cluster_bits;
    refcounts->order = image->header->refcount_order;
    refcounts->count_max = refcounts->order == 6
                               ? UINT64_MAX
                               : (UINT64_C(1) << (1U << refcounts->order)) - 1;
    refcounts->slice_bits = slice_order + 3 - refcounts->order;
    refcounts->block_bits = image->header->cluster_bits + 3 - refcounts->order;
    /* A file may end within its last cluster, which is used to its end. */
    refcounts->high_offset =
        round_up(block_size(image->file), image->cluster_bytes);
    refcounts->freed = g_array_new(FALSE, FALSE, sizeof(struct qcow2_free_run));
    co_mutex_init(&refcounts->allocating);
    co_mutex_init(&refcounts->growing_file);
    ret = co_table_load(image, refcounts, err);
    if (ret < 0) {
        qcow2_refcounts_free(refcounts);
        return ret;
    }
    refcounts->slices =
        table_cache_new(image, slice_bytes, image->refcount_cache_bytes);
    image->refcounts = refcounts;
    return 0;
}

void qcow2_refcounts_free(struct qcow2_refcounts *refcounts)
{
    if (refcounts != NULL) {
        table_cache_free(refcounts->slices);
        g_array_unref(refcounts->freed);
        g_free(refcounts->table);
        g_free(refcounts);
    }
}

int co_qcow2_refcount_slice(struct qcow2_image *image,
                            uint64_t cluster,
                            bool may_commit,
                            struct table_block **ret_slice,
                            uint64_t *ret_index)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t block = cluster >> refcounts->block_bits;
    uint64_t slice =
        (cluster >> refcounts->slice_bits) &
        ((UINT64_C(1) << (refcounts->block_bits - refcounts->slice_bits)) - 1);
    uint64_t offset;

    *ret_index = cluster & ((UINT64_C(1) << refcounts->slice_bits) - 1);
    if (block >= refcounts->table_count || refcounts->table[block] == 0) {
        return 1;
    }
    offset = refcounts->table[block];
    if ((offset & image->cluster_mask) != 0 ||
        offset >= block_size(image->file)) {
        return co_qcow2_mark_corrupt(
            image,
            "refcount block %" G_GUINT64_FORMAT
            " is said to be at offset 0x%" G_GINT64_MODIFIER "x",
            block, offset);
    }
    offset += slice * table_cache_block_bytes(refcounts->slices);
    return may_commit ? co_table_cache_get(refcounts->slices, offset, ret_slice)
                      : co_table_cache_get_within_commit(refcounts->slices,
                                                         offset, ret_slice);
}

int co_qcow2_refcount_get(struct qcow2_image *image,
                          uint64_t host_offset,
                          uint64_t *ret_count)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t cluster = host_offset / image->cluster_bytes;
    struct table_block *slice;
    uint64_t index;
    int ret = co_qcow2_refcount_slice(image, cluster, false, &slice, &index);

    if (ret != 0) {
        *ret_count = 0;
        return ret < 0 ? ret : 0;
    }
    *ret_count = qcow2_refcount_load(slice->bytes, refcounts->order, index);
    table_cache_put(refcounts->slices, slice);
    return 0;
}

/* Changes counts within one slice, from `cluster` on, until one cannot be
 * changed. Returns how many were, or why none. */
static int64_t co_change_in_slice(struct qcow2_image *image,
                                  uint64_t cluster,
                                  uint64_t clusters,
                                  bool up)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    struct table_block *slice;
    uint64_t changed = 0;
    uint64_t index;
    int ret = co_qcow2_refcount_slice(image, cluster, false, &slice, &index);

    if (ret != 0) {
        return MIN(ret, 0);
    }
    while (changed < clusters && index >> refcounts->slice_bits == 0) {
        uint64_t count =
            qcow2_refcount_load(slice->bytes, refcounts->order, index);

        if (count == 0 || (up && count == refcounts->count_max)) {
            break;
        }
        count = up ? count + 1 : count - 1;
        qcow2_refcount_store(slice->bytes, refcounts->order, index, count);
        if (count == 0) {
            qcow2_refcounts_note_free(refcounts, cluster + changed, 1);
        }
        changed++;
        index++;
    }
    if (changed > 0) {
        table_cache_mark_dirty(refcounts->slices, slice);
    }
    table_cache_put(refcounts->slices, slice);
    return (int64_t)changed;
}

int co_qcow2_refcount_decrease(struct qcow2_image *image,
                               uint64_t host_offset,
                               uint64_t clusters)
{
    uint64_t cluster = host_offset / image->cluster_bytes;

    while (clusters > 0) {
        int64_t count = co_change_in_slice(image, cluster, clusters, false);

        if (count < 0) {
            return (int)count;
        }
        if (count == 0) {
            return co_qcow2_mark_corrupt(
                image,
                "the cluster at offset 0x%" G_GINT64_MODIFIER "x"
                " is in use, and counted as "
                "free",
                cluster * image->cluster_bytes);
        }
        cluster += (uint64_t)count;
        clusters -= (uint64_t)count;
    }
    return 0;
}

int co_qcow2_refcount_increase(struct qcow2_image *image,
                               uint64_t host_offset,
                               uint64_t clusters)
{
    uint64_t cluster = host_offset / image->cluster_bytes;
    uint64_t done = 0;

    while (done < clusters) {
        int64_t count =
            co_change_in_slice(image, cluster + done, clusters - done, true);

        if (count <= 0) {
            (void)co_qcow2_refcount_decrease(image, host_offset, done);
            return count < 0 ? (int)count : -ERANGE;
        }
        done += (uint64_t)count;
    }
    return 0;
}

int co_qcow2_give_back(struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t clusters)
{
    return co_qcow2_refcount_decrease(image, host_offset, clusters);
}

bool co_qcow2_refcount_last_use(struct qcow2_image *image,
                                uint64_t host_offset,
                                uint64_t clusters)
{
    struct qcow2_refcounts *refcounts = image->refcounts;

    if (refcounts->packed_offset - host_offset <
        clusters * image->cluster_bytes) {
        refcounts->packed_offset = 0;
    }
    for (uint64_t i = 0; i < clusters; i++) {
        uint64_t count;

        if (co_qcow2_refcount_get(image, host_offset + i * image->cluster_bytes,
                                  &count) < 0 ||
            count != 1) {
            return false;
        }
    }
    return true;
}
