/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One cluster after the other: gather it into one buffer (zeroes behind the end
 * of the disk), compress it on another thread, pack it behind what was
 * compressed before, change the entry. The old place is freed later.
 *
 * A cluster that does not become smaller by a sector is written as it is.
 */
#include "drivers/qcow2/compressed_write.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "drivers/qcow2/codec.h"
#include "drivers/qcow2/decompressed.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/l2_table.h"
#include "drivers/qcow2/refcount.h"
#include "drivers/qcow2/vectors.h"

struct compression {
    enum qcow2_compression type;
    uint64_t cluster_bytes;
    uint8_t *in;  /* a cluster; owned */
    uint8_t *out; /* ... */
    size_t out_bytes;
};

static int run_compression(void *opaque)
{
    struct compression *job = opaque;

    return qcow2_compress(job->type, job->in, job->cluster_bytes, job->out,
                          job->cluster_bytes - QCOW2_SECTOR_BYTES,
                          &job->out_bytes);
}

static void gather(struct vector_cursor *cursor,
                   uint64_t bytes,
                   struct compression *job)
{
    uint8_t *to = job->in;

    vector_cursor_take(cursor, bytes);
    for (int i = 0; i < cursor->piece_count; i++) {
        memcpy(to, cursor->piece[i].iov_base, cursor->piece[i].iov_len);
        to += cursor->piece[i].iov_len;
    }
    memset(to, 0, job->cluster_bytes - bytes);
}

/* The range of the cluster is held. */
static int co_store_stream(struct qcow2_image *image,
                           uint64_t cluster,
                           const struct compression *job)
{
    struct iovec iov = { job->out, job->out_bytes };
    struct qcow2_entry entry = {
        .compressed = true,
        .compressed_bytes = job->out_bytes,
    };
    struct qcow2_slice slice;
    struct qcow2_entry old;
    int ret = co_qcow2_slice_for_change(image, cluster, &slice);

    if (ret < 0) {
        return ret;
    }
    ret = co_qcow2_slice_load(image, &slice, cluster, &old);
    if (ret == 0) {
        ret =
            co_qcow2_allocate_packed(image, job->out_bytes, &entry.host_offset);
    }
    if (ret < 0) {
        qcow2_slice_put(image, &slice);
        return ret;
    }
    decompressed_forget(image->decompressed, entry.host_offset, job->out_bytes);
    ret = co_qcow2_write_data(image, entry.host_offset, job->out_bytes, &iov, 1,
                              0);
    if (ret == 0) {
        qcow2_entry_free_place(image, &old, false);
        qcow2_slice_store(image, &slice, cluster, &entry);
    } else {
        (void)co_qcow2_give_back(
            image, round_down(entry.host_offset, image->cluster_bytes), 1);
    }
    qcow2_slice_put(image, &slice);
    return ret;
}

static int co_write_cluster(struct qcow2_image *image,
                            uint64_t cluster,
                            uint64_t bytes,
                            struct compression *job)
{
    struct range_hold hold;
    int ret = co_offload(run_compression, job);

    if (ret == -ENOSPC) {
        struct iovec iov = { job->in, bytes };

        return co_qcow2_pwritev(image->node, cluster, bytes, &iov, 1, 0);
    }
    if (ret < 0) {
        return ret;
    }
    co_range_lock(&image->ranges, &hold, cluster, image->cluster_bytes);
    ret = co_store_stream(image, cluster, job);
    range_unlock(&image->ranges, &hold);
    return ret;
}

int co_qcow2_write_compressed(struct qcow2_image *image,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int iov_count)
{
    uint64_t end = offset + bytes;
    struct vector_cursor cursor;
    struct compression job = {
        .type = image->header->compression,
        .cluster_bytes = image->cluster_bytes,
    };
    int ret = 0;

    if (image->external_data) {
        return -ENOTSUP;
    }
    if ((offset & image->cluster_mask) != 0 ||
        ((end & image->cluster_mask) != 0 && end != block_size(image->node))) {
        return -EINVAL;
    }
    job.in = g_try_malloc(image->cluster_bytes);
    job.out = g_try_malloc(image->cluster_bytes);
    if (job.in == NULL || job.out == NULL) {
        ret = -ENOMEM;
    }
    vector_cursor_init(&cursor, iov, iov_count);
    while (ret == 0 && offset < end) {
        uint64_t part = min_u64(image->cluster_bytes, end - offset);

        gather(&cursor, part, &job);
        ret = co_write_cluster(image, offset, part, &job);
        offset += part;
    }
    vector_cursor_release(&cursor);
    g_free(job.in);
    g_free(job.out);
    return ret;
}
