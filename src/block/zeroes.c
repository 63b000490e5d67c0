/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing zeroes: by the driver if it can, else from a buffer of zeroes.
 *
 * Whole blocks go to the driver's co_write_zeroes; an unaligned head or tail is
 * written as data, as is everything that the driver refuses (-ENOTSUP).
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "block/node_priv.h"

#define ZERO_BYTES   (64 * KIB)
#define ZERO_VECTORS 16

static const uint8_t zeroes[ZERO_BYTES] __attribute__((aligned(4096)));

bool block_iov_is_zero(const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count; i++) {
        const uint8_t *bytes = iov[i].iov_base;
        size_t count = iov[i].iov_len;

        /* All bytes are zero if the first is, and each equals the next. */
        if (count > 0 &&
            (bytes[0] != 0 || memcmp(bytes, bytes + 1, count - 1) != 0)) {
            return false;
        }
    }
    return true;
}

static int co_write_zero_buffer(struct block_node *node,
                                uint64_t offset,
                                uint64_t bytes)
{
    union {
        const void *from;
        void *base;
    } cast = { .from = zeroes };
    struct iovec iov[ZERO_VECTORS];

    while (bytes > 0) {
        uint64_t chunk = 0;
        int count = 0;
        int ret;

        while (count < ZERO_VECTORS && chunk < bytes) {
            uint64_t part = min_u64(ZERO_BYTES, bytes - chunk);

            iov[count++] = (struct iovec){ cast.base, part };
            chunk += part;
        }
        ret = co_block_aligned_pwritev(node, offset, chunk, iov, count, 0);
        if (ret < 0) {
            return ret;
        }
        offset += chunk;
        bytes -= chunk;
    }
    return 0;
}

/* Whole blocks. */
static int co_zero_blocks(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          unsigned int flags)
{
    bool serialised = node->limits.request_alignment_bytes > 1;
    struct range_hold hold;
    int ret = -ENOTSUP;

    if (node->driver->co_write_zeroes != NULL) {
        if (serialised) {
            co_range_lock(&node->ranges, &hold, offset, bytes);
        }
        ret = node->driver->co_write_zeroes(node, offset, bytes, flags);
        if (serialised) {
            range_unlock(&node->ranges, &hold);
        }
    }
    if (ret == -ENOTSUP && (flags & BLOCK_FAST_ZERO) == 0) {
        ret = co_write_zero_buffer(node, offset, bytes);
    }
    return ret;
}

int co_block_zero_range(struct block_node *node,
                        uint64_t offset,
                        uint64_t bytes,
                        unsigned int flags)
{
    uint32_t alignment = node->limits.request_alignment_bytes;
    uint64_t end = offset + bytes;
    uint64_t start = round_up(offset, alignment);
    uint64_t stop = round_down(end, alignment);
    int ret;

    if (start >= stop) {
        return co_write_zero_buffer(node, offset, bytes);
    }
    /* The middle first: it alone can be refused as not fast, and then nothing
     * has been written. */
    ret = co_zero_blocks(node, start, stop - start, flags);
    if (ret == 0 && start > offset) {
        ret = co_write_zero_buffer(node, offset, start - offset);
    }
    if (ret == 0 && end > stop) {
        ret = co_write_zero_buffer(node, stop, end - stop);
    }
    return ret;
}
