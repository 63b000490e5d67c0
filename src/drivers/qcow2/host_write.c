/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/host_write.h"

#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/refcount.h"

bool qcow2_data_may_go(const struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t bytes)
{
    return image->external_data ||
           !cluster_set_meets(image->metadata, host_offset, bytes);
}

static int co_refuse(struct qcow2_image *image, uint64_t host_offset)
{
    return co_qcow2_mark_corrupt(
        image,
        "guest data is said to be at offset 0x%" G_GINT64_MODIFIER "x"
        ", where a table is",
        host_offset);
}

/* A data file reaches as far as the disk, unless it was cut short. */
static int co_reach(struct qcow2_image *image, uint64_t host_end)
{
    if (!image->external_data) {
        return co_qcow2_grow_file(image, host_end);
    }
    while (host_end > block_size(image->data)) {
        uint64_t size_bytes = block_size(image->data);
        int ret = co_block_child_truncate(image->data, host_end, false, NULL);

        /* Somebody else may have made it larger meanwhile. */
        if (ret < 0 && block_size(image->data) == size_bytes) {
            return ret == -ENOTSUP ? -ENOSPC : ret;
        }
    }
    return 0;
}

int co_qcow2_write_data(struct qcow2_image *image,
                        uint64_t host_offset,
                        uint64_t bytes,
                        const struct iovec *iov,
                        int iov_count,
                        unsigned int flags)
{
    int ret;

    if (!qcow2_data_may_go(image, host_offset, bytes)) {
        return co_refuse(image, host_offset);
    }
    ret = co_reach(image, host_offset + bytes);
    if (ret < 0) {
        return ret;
    }
    return co_block_child_pwritev(image->data, host_offset, bytes, iov,
                                  iov_count, flags);
}

int co_qcow2_zero_data(struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t bytes,
                       unsigned int flags)
{
    int ret;

    if (!qcow2_data_may_go(image, host_offset, bytes)) {
        return co_refuse(image, host_offset);
    }
    ret = co_reach(image, host_offset + bytes);
    if (ret < 0) {
        return ret;
    }
    return co_block_child_write_zeroes(image->data, host_offset, bytes, flags);
}

int co_qcow2_write_metadata(struct qcow2_image *image,
                            uint64_t host_offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    g_assert(cluster_set_meets(image->metadata, host_offset, 1));
    return co_qcow2_write_new_metadata(image, host_offset, bytes, iov,
                                       iov_count);
}

int co_qcow2_write_new_metadata(struct qcow2_image *image,
                                uint64_t host_offset,
                                uint64_t bytes,
                                const struct iovec *iov,
                                int iov_count)
{
    int ret = co_qcow2_grow_file(image, host_offset + bytes);

    if (ret < 0) {
        return ret;
    }
    return co_block_child_pwritev(image->file, host_offset, bytes, iov,
                                  iov_count, 0);
}
