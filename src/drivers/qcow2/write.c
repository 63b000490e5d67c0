/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing. A request goes piece by piece: what has a place of its own is written
 * there (and holds just its bytes), everything else allocates (and holds whole
 * clusters). So writes to different clusters never wait for each other, and the
 * second write to a new cluster waits for the first and then goes in place. In a
 * data file that stands for itself everything has its place; where the image
 * does not know of it yet, it is told first (raw_data.h).
 *
 * The way without a coroutine takes requests that are one piece in place, with
 * their table in memory and nobody in the way, which is nearly all of them on a
 * disk that is in use for a while.
 */
#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/allocating_write.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/compressed_write.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/raw_data.h"
#include "drivers/qcow2/vectors.h"

static bool is_in_place(const struct qcow2_mapping *mapping)
{
    return mapping->kind == QCOW2_MAPPING_DATA && mapping->owned;
}

int qcow2_try_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count)
{
    struct qcow2_image *image = block_state(node);
    struct qcow2_mapping mapping;

    if (image->corrupt || image->untouched ||
        qcow2_try_mapping(image, offset, bytes, &mapping) < 0 ||
        mapping.bytes < bytes || !is_in_place(&mapping) ||
        !qcow2_raw_is_settled(image) ||
        !range_lock_is_free(&image->ranges, offset, bytes) ||
        !qcow2_data_may_go(image, mapping.host_offset, bytes)) {
        return -EAGAIN;
    }
    return block_child_try_pwritev(image->data, mapping.host_offset, bytes, iov,
                                   iov_count);
}

/* The bytes are held, so what was looked up stays. */
static int co_write_in_place(struct qcow2_image *image,
                             uint64_t offset,
                             uint64_t bytes,
                             struct vector_cursor *cursor,
                             unsigned int flags,
                             uint64_t *ret_bytes)
{
    struct qcow2_mapping mapping;
    int ret = co_qcow2_mapping(image, offset, bytes, &mapping);

    *ret_bytes = 0;
    if (ret < 0 || !is_in_place(&mapping) || !qcow2_raw_is_settled(image)) {
        return ret;
    }
    vector_cursor_take(cursor, mapping.bytes);
    ret = co_qcow2_write_data(image, mapping.host_offset, mapping.bytes,
                              cursor->piece, cursor->piece_count, flags);
    *ret_bytes = mapping.bytes;
    return ret;
}

/* One piece. `*ret_bytes` may be 0: things have changed, look again. */
static int co_write_piece(struct qcow2_image *image,
                          uint64_t offset,
                          uint64_t bytes,
                          struct vector_cursor *cursor,
                          unsigned int flags,
                          uint64_t *ret_bytes)
{
    uint64_t slice_bytes = image->cluster_bytes << image->slice_bits;
    uint64_t limit =
        min_u64(offset + bytes, round_down(offset, slice_bytes) + slice_bytes);
    uint64_t start = round_down(offset, image->cluster_bytes);
    uint64_t end = round_up(limit, image->cluster_bytes);
    struct qcow2_mapping mapping;
    struct range_hold hold;
    int ret = co_qcow2_settle_raw(image);

    if (ret == 0) {
        ret = co_qcow2_mapping(image, offset, bytes, &mapping);
    }
    if (ret < 0) {
        return ret;
    }
    if (!is_in_place(&mapping) && image->data_is_raw) {
        return co_qcow2_map_raw(image, offset, limit, block_size(image->node));
    }
    if (is_in_place(&mapping)) {
        co_range_lock(&image->ranges, &hold, offset, mapping.bytes);
        ret = co_write_in_place(image, offset, mapping.bytes, cursor, flags,
                                ret_bytes);
    } else {
        co_range_lock(&image->ranges, &hold, start, end - start);
        ret = co_qcow2_write_allocating(image, offset, limit - offset, cursor,
                                        flags, ret_bytes);
    }
    range_unlock(&image->ranges, &hold);
    return ret;
}

int co_qcow2_pwritev(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count,
                     unsigned int flags)
{
    struct qcow2_image *image = block_state(node);
    struct vector_cursor cursor;
    int ret = 0;

    if (image->corrupt || (image->untouched && co_qcow2_touch(image) < 0)) {
        return -EIO;
    }
    if ((flags & BLOCK_COMPRESS) != 0) {
        return co_qcow2_write_compressed(image, offset, bytes, iov, iov_count);
    }
    vector_cursor_init(&cursor, iov, iov_count);
    while (ret == 0 && bytes > 0) {
        uint64_t done = 0;

        ret = co_write_piece(image, offset, bytes, &cursor, flags, &done);
        offset += done;
        bytes -= done;
    }
    vector_cursor_release(&cursor);
    return ret;
}

int co_qcow2_flush(struct block_node *node)
{
    struct qcow2_image *image = block_state(node);

    return image->commit == NULL ? co_block_child_flush(image->file)
                                 : co_qcow2_commit(image);
}
