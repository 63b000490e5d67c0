/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Another size for the disk.
 *
 * Growing: if the L1 table is too short a longer one is written behind
 * everything and made durable before the header names it; the old one is freed
 * as anything else. What a backing file would show in the new part, and what an
 * earlier, larger disk left in the last cluster, is zeroed. The header's size
 * comes last. In a data file that stands for itself the new part has its place
 * at once.
 *
 * Shrinking: the header's size first; then the clusters behind the new end are
 * dropped. The L1 table stays as long as it is. Once the header says so the disk
 * is smaller, whatever fails afterwards: clusters behind the end are space lost,
 * and dropped when the disk grows again.
 *
 * Any failure leaves a valid image of the old or the new size.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/free_later.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/raw_data.h"
#include "drivers/qcow2/refcount.h"
#include "drivers/qcow2/zero.h"

static int check_resize(const struct qcow2_image *image,
                        uint64_t size_bytes,
                        GError **err)
{
    const char *name = block_name(image->node);

    if (image->corrupt) {
        return error_set(err, -EIO,
                         "cannot resize node '%s': its image is corrupt", name);
    }
    if (size_bytes % QCOW2_SECTOR_BYTES != 0) {
        return error_set(err, -EINVAL,
                         "cannot resize node '%s' to %" G_GUINT64_FORMAT
                         " bytes: a qcow2 image is a multiple of 512 bytes",
                         name, size_bytes);
    }
    if (image->header->snapshot_count > 0 && image->header->version < 3) {
        return error_set(err, -ENOTSUP,
                         "cannot resize node '%s': its snapshots do not keep "
                         "the size of the disk (version 2)",
                         name);
    }
    if (qcow2_l1_count_for(image->header, size_bytes) > QCOW2_L1_COUNT_MAX) {
        return error_set(err, -EFBIG,
                         "cannot resize node '%s' to %" G_GUINT64_FORMAT
                         " bytes: too large for clusters of %" G_GUINT64_FORMAT
                         " bytes",
                         name, size_bytes, image->cluster_bytes);
    }
    return qcow2_bitmaps_check_resize(image, err);
}

/* The table as the file has it. No L1 entry is dirty. */
static int co_write_l1(struct qcow2_image *image,
                       const uint64_t *l1,
                       const struct qcow2_run *run)
{
    uint64_t bytes = run->clusters * image->cluster_bytes;
    g_autofree uint64_t *stored = g_try_malloc(bytes);
    struct iovec iov = { stored, bytes };
    int ret;

    if (stored == NULL) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < bytes / 8; i++) {
        stored[i] = htobe64(l1[i]);
    }
    ret = co_qcow2_write_new_metadata(image, run->host_offset, bytes, &iov, 1);
    if (ret == 0) {
        ret = co_block_child_flush(image->file);
    }
    return ret;
}

/* The header names the new table; `*l1` is consumed. */
static int co_switch_l1(struct qcow2_image *image,
                        uint64_t **l1,
                        uint32_t count,
                        const struct qcow2_run *run)
{
    struct qcow2_header *header = image->header;
    uint64_t old_offset = header->l1_offset;
    uint64_t old_bytes = header->l1_count * sizeof(uint64_t);
    int ret;

    header->l1_offset = run->host_offset;
    header->l1_count = count;
    ret = co_qcow2_write_header(image, NULL);
    if (ret < 0) {
        header->l1_offset = old_offset;
        header->l1_count = (uint32_t)(old_bytes / sizeof(uint64_t));
        return co_qcow2_header_undo(image, ret);
    }
    g_free(image->l1);
    image->l1 = g_steal_pointer(l1);
    cluster_set_add(image->metadata, run->host_offset,
                    run->clusters * image->cluster_bytes);
    if (old_offset != 0 && old_bytes > 0) {
        cluster_set_remove(image->metadata, old_offset, old_bytes);
        qcow2_free_later(image, old_offset, old_bytes, QCOW2_FREE_REPLACED);
    }
    return 0;
}

/* `l2_tables` is held, so no L1 entry changes. */
static int co_move_l1(struct qcow2_image *image, uint32_t count)
{
    uint64_t clusters =
        divide_round_up(count * sizeof(uint64_t), image->cluster_bytes);
    g_autofree uint64_t *l1 = g_try_malloc0(clusters * image->cluster_bytes);
    struct qcow2_run run;
    int ret;

    if (l1 == NULL) {
        return -ENOMEM;
    }
    ret = co_qcow2_allocate_contiguous(image, clusters, &run);
    if (ret < 0) {
        return ret;
    }
    ret = co_qcow2_commit_and_hold(image);
    if (ret == 0) {
        memcpy(l1, image->l1, image->header->l1_count * sizeof(uint64_t));
        ret = co_write_l1(image, l1, &run);
        if (ret == 0) {
            ret = co_switch_l1(image, &l1, count, &run);
        }
        qcow2_commit_release(image);
    }
    if (ret < 0 && qcow2_commit_failure(image) == 0) {
        (void)co_qcow2_give_back(image, run.host_offset, run.clusters);
    }
    return ret;
}

static int co_grow_l1(struct qcow2_image *image, uint64_t size_bytes)
{
    uint32_t count = (uint32_t)qcow2_l1_count_for(image->header, size_bytes);
    int ret = 0;

    co_mutex_lock(&image->l2_tables);
    if (count > image->header->l1_count) {
        ret = co_move_l1(image, count);
    }
    co_mutex_unlock(&image->l2_tables);
    return ret;
}

static int co_store_size(struct qcow2_image *image, uint64_t size_bytes)
{
    uint64_t old_bytes = image->header->size_bytes;
    int ret;

    image->header->size_bytes = size_bytes;
    ret = co_qcow2_write_header(image, NULL);
    if (ret < 0) {
        image->header->size_bytes = old_bytes;
        return co_qcow2_header_undo(image, ret);
    }
    return ret;
}

/* The data file of an image that keeps its data there has the disk's size; if it
 * is longer, a crash kept it from being cut. */
static int co_resize_data(struct qcow2_image *image, uint64_t size_bytes)
{
    uint64_t old_bytes = block_size(image->data);

    if (!image->external_data || old_bytes == size_bytes) {
        return 0;
    }
    return co_block_child_truncate(image->data, size_bytes,
                                   old_bytes > size_bytes, NULL);
}

/* What would show through in [old end, new end): of a backing file, of the last
 * cluster of the old disk, and of clusters behind it (a write may have come
 * while the disk was made smaller). */
static int co_zero_new_part(struct qcow2_image *image,
                            uint64_t old_bytes,
                            uint64_t size_bytes)
{
    uint64_t whole = round_up(old_bytes, image->cluster_bytes);
    uint64_t end = min_u64(size_bytes, whole);
    int ret = 0;

    if (size_bytes > whole) {
        ret = co_qcow2_drop(image, whole,
                            round_up(size_bytes, image->cluster_bytes));
    }
    if (image->backing != NULL && block_size(image->backing) > old_bytes) {
        end = max_u64(end, min_u64(size_bytes, block_size(image->backing)));
    }
    if (ret == 0 && end > old_bytes) {
        ret = co_qcow2_zero_behind_end(image, old_bytes, end);
    }
    return ret;
}

static int co_grow(struct qcow2_image *image,
                   uint64_t old_bytes,
                   uint64_t size_bytes)
{
    uint64_t data_bytes = block_size(image->data);
    int ret = co_grow_l1(image, size_bytes);

    if (ret == 0) {
        ret = co_resize_data(image, size_bytes);
    }
    if (ret == 0) {
        ret = co_zero_new_part(image, old_bytes, size_bytes);
    }
    if (ret == 0 && image->data_is_raw) {
        /* What the data file has just got reads as zeroes. */
        ret = co_qcow2_map_raw(image, old_bytes, size_bytes, data_bytes);
    }
    if (ret == 0) {
        ret = co_qcow2_commit(image);
    }
    return ret == 0 ? co_store_size(image, size_bytes) : ret;
}

static int co_shrink(struct qcow2_image *image, uint64_t size_bytes)
{
    uint64_t old_bytes = block_size(image->node);
    int ret = co_store_size(image, size_bytes);

    if (ret < 0) {
        return ret;
    }
    ret = co_qcow2_drop(image, round_up(size_bytes, image->cluster_bytes),
                        round_up(old_bytes, image->cluster_bytes));
    if (ret == 0) {
        ret = co_qcow2_commit(image);
    }
    if (ret == 0) {
        (void)co_resize_data(image, size_bytes); /* it may be too long */
    }
    return 0;
}

int co_qcow2_truncate(struct block_node *node,
                      uint64_t size_bytes,
                      bool shrink,
                      GError **err)
{
    struct qcow2_image *image = block_state(node);
    uint64_t old_bytes = block_size(node);
    struct range_hold hold;
    int ret = check_resize(image, size_bytes, err);

    (void)shrink; /* the block layer has checked */
    if (ret == 0 && image->untouched && co_qcow2_touch(image) < 0) {
        ret = error_set(err, -EIO,
                        "cannot resize node '%s': the bitmaps of its image "
                        "cannot be marked as being in use",
                        block_name(node));
    }
    if (ret < 0) {
        return ret;
    }
    if (size_bytes > old_bytes) {
        ret = co_grow(image, old_bytes, size_bytes);
    } else {
        /* What is under way behind the new end comes to its end first. */
        co_range_lock(&image->ranges, &hold, size_bytes,
                      old_bytes - size_bytes);
        range_unlock(&image->ranges, &hold);
        ret = co_shrink(image, size_bytes);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot resize node '%s'",
                               block_name(node));
    }
    return 0;
}
