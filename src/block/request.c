/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The way of a request through a node.
 *
 * Entry (co_block_*): check the range, pass the gates, count as under way.
 * Then, as every request that a driver makes of its child (co_block_child_*):
 * hooks, alignment, driver. Fails without effect for a bad range or a read-only
 * node; a hook's failure fails the request before anything is written.
 *
 * The fast way (block_try_*) is the same without waiting: any gate closed, any
 * hook or driver that would have to wait, and it is -EAGAIN. A hook may have
 * done its part by then, which is harmless: hooks are idempotent.
 */
#include "block/request.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/node_priv.h"

/* The home thread alone changes the size: read here without ceremony. */
static int check_read(const struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes)
{
    if (node->read_error < 0) {
        return node->read_error;
    }
    return bytes_range_within(offset, bytes, node->size_bytes) ? 0 : -EINVAL;
}

static int check_write(const struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes)
{
    if (node->read_only) {
        return -EROFS;
    }
    return bytes_range_within(offset, bytes, node->size_bytes) ? 0 : -ENOSPC;
}

/* Is the range such that the driver takes it as it is, with nobody in the way
 * who is rewriting a part of it? */
static bool fits_driver(const struct block_node *node,
                        uint64_t offset,
                        uint64_t bytes)
{
    uint32_t alignment = node->limits.request_alignment_bytes;

    return alignment == 1 || (((offset | bytes) & (alignment - 1)) == 0 &&
                              range_lock_is_free(&node->ranges, offset, bytes));
}

/* The rest of the way for a range that has been checked. */
static int try_read(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count)
{
    if (node->driver->try_preadv == NULL || !fits_driver(node, offset, bytes)) {
        return -EAGAIN;
    }
    return node->driver->try_preadv(node, offset, bytes, iov, iov_count);
}

static int try_write(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    if (node->driver->try_pwritev == NULL ||
        !fits_driver(node, offset, bytes) ||
        (node->common.detect_zeroes != BLOCK_DETECT_ZEROES_OFF &&
         block_iov_is_zero(iov, iov_count)) ||
        !(list_is_empty(&node->hooks) ||
          block_hooks_try(node, offset, bytes))) {
        return -EAGAIN;
    }
    return node->driver->try_pwritev(node, offset, bytes, iov, iov_count);
}

int block_child_try_preadv(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    if (check_read(node, offset, bytes) < 0) {
        return -EAGAIN;
    }
    return try_read(node, offset, bytes, iov, iov_count);
}

int block_child_try_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    if (check_write(node, offset, bytes) < 0) {
        return -EAGAIN;
    }
    return try_write(node, offset, bytes, iov, iov_count);
}

int block_try_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    int ret = check_read(node, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (!block_gate_is_open(node, BLOCK_LANE_OTHER)) {
        return -EAGAIN;
    }
    return try_read(node, offset, bytes, iov, iov_count);
}

int block_try_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count)
{
    int ret = check_write(node, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (!block_gate_is_open(node, BLOCK_LANE_WRITE)) {
        return -EAGAIN;
    }
    return try_write(node, offset, bytes, iov, iov_count);
}

int co_block_child_preadv(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count)
{
    unsigned int *reader;
    int ret = check_read(node, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    reader = block_reader_begin(node);
    ret = co_block_aligned_preadv(node, offset, bytes, iov, iov_count);
    if (ret == 0) {
        ret = node->read_error; /* it may have come too late */
    }
    block_reader_end(node, reader);
    return ret;
}

int co_block_preadv(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count)
{
    int ret = check_read(node, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_OTHER);
    ret = co_block_child_preadv(node, offset, bytes, iov, iov_count);
    block_gate_leave(node, BLOCK_LANE_OTHER);
    return ret;
}

/* cache.no-flush: durability is not wanted, whatever the request says. */
static unsigned int wanted_flags(const struct block_node *node,
                                 unsigned int flags)
{
    return node->common.no_flush ? flags & ~(unsigned int)BLOCK_FUA : flags;
}

/* Makes a write durable if that was asked for and the driver did not do it. */
static int co_finish_fua(struct block_node *node, unsigned int flags)
{
    if ((flags & BLOCK_FUA) == 0) {
        return 0;
    }
    return co_block_child_flush(node);
}

int co_block_child_pwritev(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count,
                           unsigned int flags)
{
    enum block_detect_zeroes detect = node->common.detect_zeroes;
    int ret = check_write(node, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    flags = wanted_flags(node, flags);
    if (bytes == 0) {
        return co_finish_fua(node, flags);
    }
    if ((flags & BLOCK_COMPRESS & ~node->driver->write_flags) != 0) {
        return -ENOTSUP;
    }
    if (detect != BLOCK_DETECT_ZEROES_OFF &&
        block_iov_is_zero(iov, iov_count)) {
        if (detect == BLOCK_DETECT_ZEROES_UNMAP) {
            flags |= BLOCK_MAY_UNMAP;
        }
        return co_block_child_write_zeroes(node, offset, bytes, flags);
    }
    ret = co_block_hooks_run(node, offset, bytes);
    if (ret == 0) {
        ret = co_block_aligned_pwritev(node, offset, bytes, iov, iov_count,
                                       flags & node->driver->write_flags);
    }
    if (ret == 0) {
        ret = co_finish_fua(node, flags & ~node->driver->write_flags);
    }
    return ret;
}

int co_block_pwritev(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count,
                     unsigned int flags)
{
    int ret = check_write(node, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_WRITE);
    ret = co_block_child_pwritev(node, offset, bytes, iov, iov_count, flags);
    block_gate_leave(node, BLOCK_LANE_WRITE);
    return ret;
}

int co_block_child_write_zeroes(struct block_node *node,
                                uint64_t offset,
                                uint64_t bytes,
                                unsigned int flags)
{
    int ret = check_write(node, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (bytes == 0) {
        return co_finish_fua(node, flags);
    }
    if (!node->common.discard_unmap) {
        flags &= ~(unsigned int)BLOCK_MAY_UNMAP;
    }
    if ((flags & BLOCK_FAST_ZERO) != 0 &&
        node->driver->co_write_zeroes == NULL) {
        return -ENOTSUP;
    }
    ret = co_block_hooks_run(node, offset, bytes);
    if (ret == 0) {
        ret = co_block_zero_range(node, offset, bytes,
                                  flags & ~(unsigned int)BLOCK_FUA);
    }
    if (ret == 0) {
        ret = co_finish_fua(node, flags);
    }
    return ret;
}

int co_block_write_zeroes(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          unsigned int flags)
{
    int ret = check_write(node, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_WRITE);
    ret = co_block_child_write_zeroes(node, offset, bytes, flags);
    block_gate_leave(node, BLOCK_LANE_WRITE);
    return ret;
}

int co_block_child_discard(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes)
{
    uint32_t alignment = node->limits.request_alignment_bytes;
    uint64_t start;
    uint64_t end;
    struct range_hold hold;
    int ret = check_write(node, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    /* Only whole blocks can go; the rest of a hint may be ignored. */
    end = round_down(offset + bytes, alignment);
    start = offset > end ? end : round_up(offset, alignment);
    if (start >= end || !node->common.discard_unmap ||
        node->driver->co_discard == NULL) {
        return 0;
    }
    ret = co_block_hooks_run(node, start, end - start);
    if (ret < 0) {
        return ret;
    }
    if (alignment == 1) {
        return node->driver->co_discard(node, start, end - start);
    }
    co_range_lock(&node->ranges, &hold, start, end - start);
    ret = node->driver->co_discard(node, start, end - start);
    range_unlock(&node->ranges, &hold);
    return ret;
}

int co_block_discard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    int ret = check_write(node, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_WRITE);
    ret = co_block_child_discard(node, offset, bytes);
    block_gate_leave(node, BLOCK_LANE_WRITE);
    return ret;
}

int co_block_forget_cache(struct block_node *node)
{
    return node->driver->co_forget_cache == NULL
               ? 0
               : node->driver->co_forget_cache(node);
}

int co_block_child_flush(struct block_node *node)
{
    if (node->common.no_flush || node->read_only) {
        return 0;
    }
    if (node->backing_unflushed) {
        int ret = co_block_child_flush(block_child(node, "backing"));

        if (ret < 0) {
            return ret;
        }
        node->backing_unflushed = false;
    }
    return node->driver->co_flush == NULL ? 0 : node->driver->co_flush(node);
}

int co_block_flush(struct block_node *node)
{
    int ret;

    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_OTHER);
    ret = co_block_child_flush(node);
    block_gate_leave(node, BLOCK_LANE_OTHER);
    return ret;
}

int co_block_pread(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   void *buffer)
{
    struct iovec iov = { .iov_base = buffer, .iov_len = bytes };

    return co_block_preadv(node, offset, bytes, &iov, 1);
}

int co_block_pwrite(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const void *buffer,
                    unsigned int flags)
{
    /* The cast is iovec's: nobody writes to the buffer of a write. */
    union {
        const void *from;
        void *base;
    } cast = { .from = buffer };
    struct iovec iov = { .iov_base = cast.base, .iov_len = bytes };

    return co_block_pwritev(node, offset, bytes, &iov, 1, flags);
}

int block_try_map(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  int *ret_fd,
                  uint64_t *ret_file_offset)
{
    if (node->driver->try_map == NULL || check_read(node, offset, bytes) < 0) {
        return -ENOTSUP;
    }
    return node->driver->try_map(node, offset, bytes, ret_fd, ret_file_offset);
}
