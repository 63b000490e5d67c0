/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Questions about a node's extents, and changing its size.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "block/node_priv.h"
#include "block/request.h"

int co_block_child_status(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          struct block_extent *ret)
{
    struct block_extent extent = { .bytes = bytes,
                                   .status = BLOCK_STATUS_ALLOCATED };
    uint32_t alignment = node->limits.request_alignment_bytes;
    uint64_t start;
    uint64_t skip;
    unsigned int *reader;
    int error = node->read_error;

    if (error < 0) {
        return error;
    }
    if (bytes == 0 || !bytes_range_within(offset, bytes, block_size(node))) {
        return -EINVAL;
    }
    if (node->driver->co_status == NULL) {
        *ret = extent;
        return 0;
    }
    start = round_down(offset, alignment);
    skip = offset - start;
    reader = block_reader_begin(node); /* whether it is zero is content, too */
    error = node->driver->co_status(node, start,
                                    round_up(skip + bytes, alignment), &extent);
    if (error == 0) {
        error = node->read_error;
    }
    block_reader_end(node, reader);
    if (error < 0) {
        return error;
    }
    g_assert(extent.bytes > skip);
    extent.bytes = min_u64(extent.bytes - skip, bytes);
    *ret = extent;
    return 0;
}

int co_block_status(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    struct block_extent *ret)
{
    int error;

    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_OTHER);
    error = co_block_child_status(node, offset, bytes, ret);
    block_gate_leave(node, BLOCK_LANE_OTHER);
    return error;
}

static int check_truncate(const struct block_node *node,
                          uint64_t size_bytes,
                          bool shrink,
                          GError **err)
{
    uint32_t alignment = node->limits.request_alignment_bytes;

    if (node->read_only) {
        return error_set(err, -EROFS,
                         "cannot resize node '%s': it is read-only",
                         node->name);
    }
    if (size_bytes > LIMIT_DISK_BYTES || size_bytes % alignment != 0) {
        return error_set(err, -EINVAL,
                         "cannot resize node '%s' to %" G_GUINT64_FORMAT
                         " bytes: sizes are multiples of %u up to 4 EiB",
                         node->name, size_bytes, alignment);
    }
    if (size_bytes < block_size(node) && !shrink) {
        return error_set(err, -EINVAL,
                         "cannot resize node '%s' to %" G_GUINT64_FORMAT
                         " bytes: it has %" G_GUINT64_FORMAT
                         ", and dropping its end was not asked for",
                         node->name, size_bytes, block_size(node));
    }
    if (node->driver->co_truncate == NULL) {
        return error_set(err, -ENOTSUP,
                         "cannot resize node '%s': driver '%s' has a fixed "
                         "size",
                         node->name, node->driver->name);
    }
    return 0;
}

static int co_truncate(struct block_node *node,
                       uint64_t size_bytes,
                       bool shrink,
                       GError **err)
{
    uint64_t old_bytes = block_size(node);
    int ret = node->driver->co_truncate(node, size_bytes, shrink, err);

    if (ret == 0) {
        block_set_size(node, size_bytes);
        block_hooks_resized(node, old_bytes, size_bytes);
    }
    return ret;
}

/* The hook that wants to know before; NULL: none does. */
static struct block_hook *resize_hook(struct block_node *node)
{
    struct block_hook *hook = block_hook_find(node, BLOCK_HOOK_INTENT);

    return hook != NULL && hook->co_resize_begin != NULL ? hook : NULL;
}

int co_block_child_truncate(struct block_node *node,
                            uint64_t size_bytes,
                            bool shrink,
                            GError **err)
{
    struct block_hook *hook = resize_hook(node);
    int ret = check_truncate(node, size_bytes, shrink, err);

    if (ret < 0 || size_bytes == block_size(node)) {
        return ret;
    }
    if (hook == NULL) {
        return co_truncate(node, size_bytes, shrink, err);
    }
    ret = hook->co_resize_begin(hook, size_bytes, err);
    if (ret == 0) {
        ret = co_truncate(node, size_bytes, shrink, err);
        hook->co_resize_end(hook);
    }
    return ret;
}

int co_block_child_claim(struct block_node *node,
                         enum block_claim claim,
                         bool begin,
                         GError **err)
{
    return node->driver->co_claim == NULL
               ? 0
               : node->driver->co_claim(node, claim, begin, err);
}

/* No write is under way while the size changes: one that has been checked
 * against the old size must not reach behind the new one. */
static int co_truncate_alone(struct block_node *node,
                             uint64_t size_bytes,
                             bool shrink,
                             GError **err)
{
    struct block_node *entered = co_block_gate_enter(node, BLOCK_LANE_WRITE);
    int ret;

    co_block_gate_be_alone(entered);
    ret = entered == node
              ? co_truncate(node, size_bytes, shrink, err)
              : error_set(err, -EAGAIN,
                          "cannot resize node '%s': another has just taken its "
                          "place",
                          node->name);
    block_gate_go_on(entered);
    block_gate_leave(entered, BLOCK_LANE_WRITE);
    return ret;
}

/* What waits for a disk beside it is done while writes go on. */
int co_block_truncate(struct block_node *node,
                      uint64_t size_bytes,
                      bool shrink,
                      GError **err)
{
    struct block_hook *hook = resize_hook(node);
    int ret = check_truncate(node, size_bytes, shrink, err);

    g_assert(loop_current() == node->home);
    if (ret < 0 || size_bytes == block_size(node)) {
        return ret;
    }
    if (hook == NULL) {
        return co_truncate_alone(node, size_bytes, shrink, err);
    }
    ret = hook->co_resize_begin(hook, size_bytes, err);
    if (ret == 0) {
        ret = co_truncate_alone(node, size_bytes, shrink, err);
        hook->co_resize_end(hook);
    }
    return ret;
}
