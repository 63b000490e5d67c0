/* SPDX-License-Identifier: BSD-3-Clause */
/* Writing what a host file holds, without its passing through our memory. */
#include <errno.h>

#include "base/bytes.h"
#include "block/node_priv.h"

int co_block_child_pwrite_from_file(struct block_node *node,
                                    uint64_t offset,
                                    uint64_t bytes,
                                    int fd,
                                    uint64_t file_offset)
{
    uint32_t alignment = node->limits.request_alignment_bytes;
    struct range_hold hold;
    int ret;

    if (node->read_only) {
        return -EROFS;
    }
    if (!bytes_range_within(offset, bytes, node->size_bytes)) {
        return -ENOSPC;
    }
    if (node->driver->co_pwrite_from_file == NULL ||
        ((offset | bytes) & (alignment - 1)) != 0) {
        return -ENOTSUP;
    }
    ret = co_block_hooks_run(node, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    if (alignment == 1) {
        return node->driver->co_pwrite_from_file(node, offset, bytes, fd,
                                                 file_offset);
    }
    co_range_lock(&node->ranges, &hold, offset, bytes);
    ret =
        node->driver->co_pwrite_from_file(node, offset, bytes, fd, file_offset);
    range_unlock(&node->ranges, &hold);
    return ret;
}

int co_block_pwrite_from_file(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              int fd,
                              uint64_t file_offset)
{
    int ret;

    g_assert(loop_current() == node->home);
    node = co_block_gate_enter(node, BLOCK_LANE_WRITE);
    ret = co_block_child_pwrite_from_file(node, offset, bytes, fd, file_offset);
    block_gate_leave(node, BLOCK_LANE_WRITE);
    return ret;
}
