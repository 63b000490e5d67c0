/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The space of a file: zeroes, holes, extents, size.
 *
 * Zeroes are made by fallocate(), as a hole where the request allows one; what
 * a file system refuses once is not asked of it again, and the block layer
 * writes zeroes instead. Where data and holes are, lseek() tells; the last
 * answer is kept until something is written, so going through a large hole in
 * small steps costs one call.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/file_priv.h"
#include "loop/io.h"

static int co_allocate(struct file_state *state,
                       int mode,
                       uint64_t offset,
                       uint64_t bytes,
                       bool *refused)
{
    int ret = -EOPNOTSUPP;

    if (*refused) {
        return -ENOTSUP;
    }
    file_note_change(state);
    ret = co_file_reserve(state, mode | FALLOC_FL_KEEP_SIZE, offset, bytes);
    file_note_change(state);
    if (ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENODEV) {
        *refused = true;
        return -ENOTSUP;
    }
    return ret;
}

int co_file_write_zeroes(struct block_node *node,
                         uint64_t offset,
                         uint64_t bytes,
                         unsigned int flags)
{
    struct file_state *state = block_state(node);
    int ret;

    if ((flags & BLOCK_MAY_UNMAP) != 0) {
        ret = co_allocate(state, FALLOC_FL_PUNCH_HOLE, offset, bytes,
                          &state->no_punch_hole);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    /* A block device may have to write them out, which is not fast. */
    if (state->is_device && (flags & BLOCK_FAST_ZERO) != 0) {
        return -ENOTSUP;
    }
    return co_allocate(state, FALLOC_FL_ZERO_RANGE, offset, bytes,
                       &state->no_zero_range);
}

int co_file_discard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    struct file_state *state = block_state(node);
    int ret = co_allocate(state, FALLOC_FL_PUNCH_HOLE, offset, bytes,
                          &state->no_punch_hole);

    return ret == -ENOTSUP ? 0 : ret; /* it was a hint */
}

/* A question for the offload pool. */
struct extent_query {
    int fd;
    uint64_t offset;
    uint64_t size_bytes;
    struct file_extent ret;
};

static int run_extent_query(void *opaque)
{
    struct extent_query *query = opaque;
    off_t data = lseek(query->fd, (off_t)query->offset, SEEK_DATA);
    off_t hole;

    query->ret = (struct file_extent){ query->offset, query->size_bytes,
                                       BLOCK_STATUS_ALLOCATED };
    if (data < 0) {
        if (errno == ENXIO) { /* no data any more: a hole to the end */
            query->ret.status = BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE;
        }
        return 0; /* cannot tell: all of it is data */
    }
    if ((uint64_t)data > query->offset) {
        query->ret.end = min_u64((uint64_t)data, query->size_bytes);
        query->ret.status = BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE;
        return 0;
    }
    hole = lseek(query->fd, (off_t)query->offset, SEEK_HOLE);
    /* Smaller if the file has changed between the two calls. */
    if (hole > (off_t)query->offset) {
        query->ret.end = min_u64((uint64_t)hole, query->size_bytes);
    }
    return 0;
}

int co_file_status(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   struct block_extent *ret)
{
    struct file_state *state = block_state(node);
    struct file_extent extent = state->extent;

    if (state->is_device) {
        *ret = (struct block_extent){ bytes, BLOCK_STATUS_ALLOCATED };
        return 0;
    }
    if (offset < extent.offset || offset >= extent.end) {
        struct extent_query query = {
            .fd = state->fd,
            .offset = offset,
            .size_bytes = block_size(node),
        };
        uint64_t writes = state->writes;

        (void)co_file_call(state, run_extent_query, &query); /* always 0 */
        extent = query.ret;
        if (state->writes == writes) {
            state->extent = extent;
        }
    }
    ret->bytes = min_u64(bytes, extent.end - offset);
    /* With O_DIRECT an answer is in whole blocks; a part of one is data. */
    if (ret->bytes > state->offset_alignment_bytes) {
        ret->bytes = round_down(ret->bytes, state->offset_alignment_bytes);
    } else if (ret->bytes < state->offset_alignment_bytes) {
        extent.status = BLOCK_STATUS_ALLOCATED;
        ret->bytes = state->offset_alignment_bytes;
    }
    ret->status = extent.status | BLOCK_STATUS_ALLOCATED;
    return 0;
}

struct truncation {
    const struct file_state *state;
    uint64_t size_bytes;
    GError *err;
};

static int run_truncation(void *opaque)
{
    struct truncation *truncation = opaque;
    const struct file_state *state = truncation->state;
    int ret = 0;

    if (state->locks && state->claims[BLOCK_CLAIM_SIZE] == 0) {
        ret = file_lock_begin_resize(state->fd, state->filename,
                                     &truncation->err);
        if (ret < 0) {
            return ret;
        }
    }
    if (ftruncate(state->fd, (off_t)truncation->size_bytes) < 0) {
        ret = error_set_errno(&truncation->err, -errno, "cannot resize '%s'",
                              state->filename);
    }
    if (state->locks && state->claims[BLOCK_CLAIM_SIZE] == 0) {
        file_lock_end_resize(state->fd);
    }
    return ret;
}

int co_file_truncate(struct block_node *node,
                     uint64_t size_bytes,
                     bool shrink,
                     GError **err)
{
    struct file_state *state = block_state(node);
    struct truncation truncation = { state, size_bytes, NULL };
    int ret;

    (void)shrink; /* the block layer has checked */
    file_note_change(state);
    ret = co_file_call(state, run_truncation, &truncation);
    file_note_change(state);
    if (ret < 0) {
        g_propagate_error(err, truncation.err);
        return ret;
    }
    state->size_bytes = size_bytes;
    return 0;
}

struct space_query {
    int fd;
    uint64_t ret_bytes;
};

static int run_space_query(void *opaque)
{
    struct space_query *query = opaque;
    struct stat found;

    if (fstat(query->fd, &found) < 0) {
        return -errno;
    }
    query->ret_bytes = (uint64_t)found.st_blocks * 512;
    return 0;
}

void co_file_info(struct block_node *node, struct json_value *image)
{
    struct file_state *state = block_state(node);
    struct space_query query = { .fd = state->fd };

    json_dict_set_string(image, "filename", state->filename);
    if (co_file_call(state, run_space_query, &query) == 0) {
        json_dict_set_uint(image, "actual-size", query.ret_bytes);
    }
}
