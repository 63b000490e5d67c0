/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The size of the file. It grows in steps that become larger with it, since each
 * costs some system calls; what is left over at the end is cut off when the
 * image is closed. After a crash it stays, as a hole.
 */
#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/refcount_priv.h"

static uint64_t step_bytes(uint64_t file_bytes)
{
    if (file_bytes < 16 * MIB) {
        return MIB;
    }
    return file_bytes < GIB ? 16 * MIB : 64 * MIB;
}

static int co_grow(struct block_node *file, uint64_t host_end)
{
    uint64_t alignment = block_limits(file)->request_alignment_bytes;
    uint64_t target = round_up(host_end, step_bytes(host_end));
    int ret = co_block_child_truncate(file, target, false, NULL);

    if (ret < 0 && ret != -ENOTSUP) {
        /* A limit on file sizes may lie between the two. */
        target = round_up(host_end, alignment);
        ret = co_block_child_truncate(file, target, false, NULL);
    }
    return ret == -ENOTSUP ? -ENOSPC : ret;
}

int co_qcow2_grow_file(struct qcow2_image *image, uint64_t host_end)
{
    struct co_mutex *mutex = &image->refcounts->growing_file;
    int ret = 0;

    if (host_end <= block_size(image->file)) {
        return 0;
    }
    co_mutex_lock(mutex);
    if (host_end > block_size(image->file)) {
        ret = co_grow(image->file, host_end);
    }
    co_mutex_unlock(mutex);
    return ret;
}

int co_qcow2_trim_file(struct qcow2_image *image)
{
    uint64_t alignment = block_limits(image->file)->request_alignment_bytes;
    uint64_t end = round_up(image->refcounts->high_offset, alignment);

    if (end >= block_size(image->file)) {
        return 0;
    }
    return co_block_child_truncate(image->file, end, true, NULL);
}
