/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading. Each request goes piece by piece as the mapping tells: data from
 * its place in the file, zeroes from nowhere, compressed clusters through the
 * cache of those decompressed last, what this layer does not hold from the
 * backing file. What lies behind the end of a file reads as zeroes.
 *
 * The way without a coroutine takes requests that are one piece and whose
 * tables are in memory, which is nearly all of them.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "drivers/qcow2/decompressed.h"
#include "drivers/qcow2/image.h"
#include "drivers/qcow2/vectors.h"

static int zero_vectors(const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count; i++) {
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    }
    return 0;
}

static int try_read_compressed(struct qcow2_image *image,
                               const struct qcow2_mapping *mapping,
                               uint64_t in_cluster,
                               const struct iovec *iov,
                               int iov_count)
{
    const uint8_t *from =
        decompressed_find(image->decompressed, mapping->host_offset);

    if (from == NULL) {
        return -EAGAIN;
    }
    from += in_cluster;
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        from += iov[i].iov_len;
    }
    return 0;
}

static int try_read_backing(struct qcow2_image *image,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    if (image->backing == NULL || offset >= block_size(image->backing)) {
        return zero_vectors(iov, iov_count);
    }
    return block_child_try_preadv(image->backing, offset, bytes, iov,
                                  iov_count);
}

int qcow2_try_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    struct qcow2_image *image = block_state(node);
    struct qcow2_mapping mapping;
    int ret = qcow2_try_mapping(image, offset, bytes, &mapping);

    if (ret < 0 || mapping.bytes < bytes) {
        return -EAGAIN;
    }
    switch (mapping.kind) {
    case QCOW2_MAPPING_DATA:
        return block_child_try_preadv(image->data, mapping.host_offset, bytes,
                                      iov, iov_count);
    case QCOW2_MAPPING_ZERO:
    case QCOW2_MAPPING_ZERO_ALLOCATED: return zero_vectors(iov, iov_count);
    case QCOW2_MAPPING_COMPRESSED:
        return try_read_compressed(
            image, &mapping, offset & image->cluster_mask, iov, iov_count);
    case QCOW2_MAPPING_UNALLOCATED:
    case QCOW2_MAPPING_UNALLOCATED_HOST:
        return try_read_backing(image, offset, bytes, iov, iov_count);
    }
    g_assert_not_reached();
}

/* From another node, behind whose end are zeroes. */
static int co_read_node(struct block_node *node,
                        uint64_t offset,
                        uint64_t bytes,
                        struct vector_cursor *cursor)
{
    uint64_t size_bytes = block_size(node);
    uint64_t there =
        offset < size_bytes ? min_u64(bytes, size_bytes - offset) : 0;
    int ret = 0;

    if (there > 0) {
        vector_cursor_take(cursor, there);
        ret = block_child_try_preadv(node, offset, there, cursor->piece,
                                     cursor->piece_count);
        if (ret == -EAGAIN) {
            ret = co_block_child_preadv(node, offset, there, cursor->piece,
                                        cursor->piece_count);
        }
    }
    vector_cursor_zero(cursor, bytes - there);
    return ret;
}

static int co_read_compressed(struct qcow2_image *image,
                              const struct qcow2_mapping *mapping,
                              uint64_t in_cluster,
                              struct vector_cursor *cursor)
{
    const uint8_t *cluster;
    int ret = co_decompressed_get(image->decompressed, mapping, &cluster);

    if (ret == 0) {
        vector_cursor_fill(cursor, cluster + in_cluster, mapping->bytes);
    }
    return ret;
}

static int co_read_mapped(struct qcow2_image *image,
                          uint64_t offset,
                          const struct qcow2_mapping *mapping,
                          struct vector_cursor *cursor)
{
    switch (mapping->kind) {
    case QCOW2_MAPPING_DATA:
        return co_read_node(image->data, mapping->host_offset, mapping->bytes,
                            cursor);
    case QCOW2_MAPPING_COMPRESSED:
        return co_read_compressed(image, mapping, offset & image->cluster_mask,
                                  cursor);
    case QCOW2_MAPPING_UNALLOCATED:
    case QCOW2_MAPPING_UNALLOCATED_HOST:
        if (image->backing != NULL) {
            return co_read_node(image->backing, offset, mapping->bytes, cursor);
        }
        break;
    case QCOW2_MAPPING_ZERO:
    case QCOW2_MAPPING_ZERO_ALLOCATED: break;
    }
    vector_cursor_zero(cursor, mapping->bytes);
    return 0;
}

int co_qcow2_preadv(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count)
{
    struct qcow2_image *image = block_state(node);
    struct qcow2_mapping mapping;
    struct vector_cursor cursor;
    struct qcow2_io io;
    int ret = 0;

    vector_cursor_init(&cursor, iov, iov_count);
    while (ret == 0 && bytes > 0) {
        qcow2_io_begin(image, &io);
        ret = co_qcow2_mapping(image, offset, bytes, &mapping);
        if (ret == 0) {
            ret = co_read_mapped(image, offset, &mapping, &cursor);
            offset += mapping.bytes;
            bytes -= mapping.bytes;
        }
        qcow2_io_end(image, &io);
    }
    vector_cursor_release(&cursor);
    return ret;
}
