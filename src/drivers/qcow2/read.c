/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading. Each request goes piece by piece as the mapping tells: data from
 * its place in the file, zeroes from nowhere, compressed clusters through the
 * cache of those decompressed last, what this layer does not hold from the
 * backing file. What lies behind the end of a file reads as zeroes. Pieces are
 * read side by side, some at a time for the whole image.
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

/* Pieces in coroutines of their own, per image. */
#define READS_BESIDE_MAX 16

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

/* A request, and those of its pieces that are read in coroutines of their
 * own. */
struct request {
    struct qcow2_image *image;
    unsigned int under_way;
    int error; /* the first one */
    struct co_queue ended;
};

struct piece {
    struct request *request;
    struct qcow2_io io;
    uint64_t offset;
    struct qcow2_mapping mapping;
    struct vector_cursor cursor;
    struct iovec iov[]; /* where it goes */
};

static void co_run_piece(void *opaque)
{
    struct piece *piece = opaque;
    struct request *request = piece->request;
    int ret = co_read_mapped(request->image, piece->offset, &piece->mapping,
                             &piece->cursor);

    qcow2_io_end(request->image, &piece->io);
    vector_cursor_release(&piece->cursor);
    g_free(piece);
    if (request->error == 0) {
        request->error = ret;
    }
    request->image->reads_beside--;
    request->under_way--;
    co_queue_wake_all(&request->ended);
}

static void read_beside(struct request *request,
                        uint64_t offset,
                        const struct qcow2_mapping *mapping,
                        struct vector_cursor *cursor)
{
    struct piece *piece;
    size_t iov_bytes;

    vector_cursor_take(cursor, mapping->bytes);
    iov_bytes = (size_t)cursor->piece_count * sizeof(*piece->iov);
    piece = g_malloc(sizeof(*piece) + iov_bytes);
    piece->request = request;
    piece->offset = offset;
    piece->mapping = *mapping;
    memcpy(piece->iov, cursor->piece, iov_bytes);
    vector_cursor_init(&piece->cursor, piece->iov, cursor->piece_count);
    qcow2_io_begin(request->image, &piece->io);
    request->image->reads_beside++;
    request->under_way++;
    co_enter(co_run_piece, piece);
}

/* Zeroes cost nothing, and the last piece may as well be read here. */
static bool is_read_beside(const struct qcow2_image *image,
                           const struct qcow2_mapping *mapping,
                           uint64_t bytes)
{
    return mapping->bytes < bytes && image->reads_beside < READS_BESIDE_MAX &&
           mapping->kind != QCOW2_MAPPING_ZERO &&
           mapping->kind != QCOW2_MAPPING_ZERO_ALLOCATED;
}

int co_qcow2_preadv(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count)
{
    struct qcow2_image *image = block_state(node);
    struct request request = { .image = image };
    struct qcow2_mapping mapping;
    struct vector_cursor cursor;
    struct qcow2_io io;
    int ret = 0;

    co_queue_init(&request.ended);
    vector_cursor_init(&cursor, iov, iov_count);
    while (ret == 0 && request.error == 0 && bytes > 0) {
        qcow2_io_begin(image, &io);
        ret = co_qcow2_mapping(image, offset, bytes, &mapping);
        if (ret == 0) {
            if (is_read_beside(image, &mapping, bytes)) {
                read_beside(&request, offset, &mapping, &cursor);
            } else {
                ret = co_read_mapped(image, offset, &mapping, &cursor);
            }
            offset += mapping.bytes;
            bytes -= mapping.bytes;
        }
        qcow2_io_end(image, &io);
    }
    while (request.under_way > 0) {
        co_queue_wait(&request.ended);
    }
    vector_cursor_release(&cursor);
    return ret < 0 ? ret : request.error;
}
