/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Byte-granular requests on drivers that want whole blocks.
 *
 * A read that starts or ends inside a block is widened: the surplus goes to
 * scratch. A write is widened with what the image holds there (read, modify,
 * write). Between that read and that write nobody else may write to those
 * blocks, so on a node with an alignment every write locks its blocks.
 * Nodes whose driver takes single bytes pass straight through.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "block/node_priv.h"

/* A request widened to whole blocks. */
struct widened {
    uint64_t offset;
    uint64_t bytes;
    size_t head_bytes; /* surplus before */
    size_t tail_bytes; /* surplus behind */
    uint8_t *scratch;  /* owned; two blocks, or two blocks and the request */
    uint8_t *flat;     /* in scratch: the request, when its vectors are too
                          many to add two; else NULL */
    struct iovec *iov; /* owned; scratch and request */
    int iov_count;
};

static void widened_release(struct widened *wide)
{
    free(wide->scratch);
    g_free(wide->iov);
}

static int widened_init(struct widened *wide,
                        uint32_t alignment,
                        uint64_t offset,
                        uint64_t bytes,
                        const struct iovec *iov,
                        int iov_count)
{
    bool flatten = iov_count + 2 > IOV_MAX;
    size_t scratch_bytes = 2 * (size_t)alignment + (flatten ? bytes : 0);
    void *scratch = NULL;
    int count = 0;

    *wide = (struct widened){ .offset = round_down(offset, alignment) };
    wide->bytes = round_up(offset + bytes, alignment) - wide->offset;
    wide->head_bytes = offset - wide->offset;
    wide->tail_bytes = wide->bytes - wide->head_bytes - bytes;
    if (posix_memalign(&scratch, MAX(alignment, 4096),
                       round_up(scratch_bytes, alignment)) != 0) {
        return -ENOMEM;
    }
    wide->scratch = scratch;
    wide->iov = g_try_new(struct iovec, flatten ? 3 : (size_t)iov_count + 2);
    if (wide->iov == NULL) {
        widened_release(wide);
        return -ENOMEM;
    }
    wide->iov[count++] = (struct iovec){ scratch, wide->head_bytes };
    if (flatten) {
        wide->flat = wide->scratch + 2 * (size_t)alignment;
        wide->iov[count++] = (struct iovec){ wide->flat, bytes };
    } else {
        memcpy(wide->iov + count, iov, (size_t)iov_count * sizeof(*iov));
        count += iov_count;
    }
    /* The tail's surplus ends the second block, or the first one if the
     * request lies within a single block. */
    wide->iov[count++] = (struct iovec){
        wide->scratch + (wide->bytes == alignment ? 1 : 2) * (size_t)alignment -
            wide->tail_bytes,
        wide->tail_bytes,
    };
    wide->iov_count = count;
    return 0;
}

static void flat_fill(uint8_t *flat, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count; i++) {
        memcpy(flat, iov[i].iov_base, iov[i].iov_len);
        flat += iov[i].iov_len;
    }
}

static void flat_spread(const uint8_t *flat,
                        const struct iovec *iov,
                        int iov_count)
{
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, flat, iov[i].iov_len);
        flat += iov[i].iov_len;
    }
}

static bool is_aligned(const struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes)
{
    uint32_t alignment = node->limits.request_alignment_bytes;

    return ((offset | bytes) & (alignment - 1)) == 0;
}

int co_block_aligned_preadv(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    struct widened wide;
    int ret;

    if (is_aligned(node, offset, bytes)) {
        return node->driver->co_preadv(node, offset, bytes, iov, iov_count);
    }
    ret = widened_init(&wide, node->limits.request_alignment_bytes, offset,
                       bytes, iov, iov_count);
    if (ret < 0) {
        return ret;
    }
    ret = node->driver->co_preadv(node, wide.offset, wide.bytes, wide.iov,
                                  wide.iov_count);
    if (ret == 0 && wide.flat != NULL) {
        flat_spread(wide.flat, iov, iov_count);
    }
    widened_release(&wide);
    return ret;
}

/* Reads the blocks that the request covers in part into the scratch. */
static int co_read_borders(struct block_node *node, const struct widened *wide)
{
    uint32_t alignment = node->limits.request_alignment_bytes;
    bool single = wide->bytes == alignment;
    int ret = 0;

    if (wide->head_bytes > 0 || single) {
        struct iovec iov = { wide->scratch, alignment };

        ret = node->driver->co_preadv(node, wide->offset, alignment, &iov, 1);
    }
    if (ret == 0 && wide->tail_bytes > 0 && !single) {
        struct iovec iov = { wide->scratch + alignment, alignment };

        ret = node->driver->co_preadv(
            node, wide->offset + wide->bytes - alignment, alignment, &iov, 1);
    }
    return ret;
}

static int co_rewrite(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    struct range_hold hold;
    struct widened wide;
    int ret = widened_init(&wide, node->limits.request_alignment_bytes, offset,
                           bytes, iov, iov_count);

    if (ret < 0) {
        return ret;
    }
    if (wide.flat != NULL) {
        flat_fill(wide.flat, iov, iov_count);
    }
    co_range_lock(&node->ranges, &hold, wide.offset, wide.bytes);
    ret = co_read_borders(node, &wide);
    if (ret == 0) {
        ret = node->driver->co_pwritev(node, wide.offset, wide.bytes, wide.iov,
                                       wide.iov_count, flags);
    }
    range_unlock(&node->ranges, &hold);
    widened_release(&wide);
    return ret;
}

int co_block_aligned_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count,
                             unsigned int flags)
{
    struct range_hold hold;
    int ret;

    if (node->limits.request_alignment_bytes == 1) {
        return node->driver->co_pwritev(node, offset, bytes, iov, iov_count,
                                        flags);
    }
    if (!is_aligned(node, offset, bytes)) {
        return co_rewrite(node, offset, bytes, iov, iov_count, flags);
    }
    co_range_lock(&node->ranges, &hold, offset, bytes);
    ret = node->driver->co_pwritev(node, offset, bytes, iov, iov_count, flags);
    range_unlock(&node->ranges, &hold);
    return ret;
}
