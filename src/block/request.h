/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests: reading and writing through a node.
 *
 * Byte-granular; the block layer aligns for drivers that need it and
 * serialises overlapping unaligned writes. Every write, zeroing and discard
 * passes the gate (block/fence.h) and the hooks (block/hook.h) of the node and
 * of the nodes below it before it reaches an image.
 *
 * Home thread of the node only. Results: 0 or a negative errno; a range that
 * leaves the node is -EINVAL (reads) or -ENOSPC (writes). Buffers are borrowed
 * until the call returns.
 */
#ifndef BLOCK_REQUEST_H
#define BLOCK_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "block/node.h"

enum block_flags {
    BLOCK_FUA = 1 << 0,       /* durable when the call returns */
    BLOCK_MAY_UNMAP = 1 << 1, /* zeroes may become a hole */
    BLOCK_FAST_ZERO = 1 << 2, /* zeroes: -ENOTSUP unless fast */
    /* Data: a flush will follow when all is written, so begin to store it now.
     * Only a hint. */
    BLOCK_FLUSHED_SOON = 1 << 3,
    /* Data: store it compressed. Whole clusters (but for the disk's end);
     * -ENOTSUP from drivers that do not list it in write_flags. */
    BLOCK_COMPRESS = 1 << 4,
};

/*
 * The way without a coroutine: does the whole request now, or returns -EAGAIN
 * having done nothing that matters, and the caller starts a coroutine for the
 * co_ form. Never waits.
 */
int block_try_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count);
int block_try_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count);

int co_block_preadv(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count);
int co_block_pwritev(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count,
                     unsigned int flags);
int co_block_write_zeroes(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          unsigned int flags);
/* A hint; content afterwards is unspecified for raw images. */
int co_block_discard(struct block_node *node, uint64_t offset, uint64_t bytes);
/* Everything completed before, through any user of the node, is durable. After
 * a failed flush of a cached file each later one fails, too. */
int co_block_flush(struct block_node *node);

/* Writes what a host file holds, copied by the kernel (or shared, where the file
 * system can), from `file_offset`; it must not change meanwhile. -ENOTSUP: the
 * node, the range's alignment or the file cannot do that; after any error the
 * range is as after a failed write. */
int co_block_pwrite_from_file(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              int fd,
                              uint64_t file_offset);

/* Short forms with one buffer. */
int co_block_pread(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   void *buffer);
int co_block_pwrite(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const void *buffer,
                    unsigned int flags);

enum block_status_flags {
    BLOCK_STATUS_ALLOCATED = 1 << 0, /* the node's own layer decides it */
    BLOCK_STATUS_ZERO = 1 << 1,      /* reads as zeroes */
    BLOCK_STATUS_HOLE = 1 << 2,      /* takes no space */
};

struct block_extent {
    uint64_t bytes; /* from the offset asked about; at least 1 */
    unsigned int status;
};

/* What the range that starts at `offset` is, as far as it is one thing, and at
 * most `bytes` (> 0) of it. */
int co_block_status(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    struct block_extent *ret);

/* Grows or shrinks; `shrink`: dropping the end is meant. */
int co_block_truncate(struct block_node *node,
                      uint64_t size_bytes,
                      bool shrink,
                      GError **err);

/* If the range is, as it stands, plain bytes of one file: its descriptor and
 * where (for sendfile and copy_file_range, to read; a write past the node would
 * be seen by no hook and no flush). -ENOTSUP: it is not. The answer holds until
 * the caller yields. */
int block_try_map(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  int *ret_fd,
                  uint64_t *ret_file_offset);

/* Limits of a node. All powers of two, at least 1. */
struct block_limits {
    uint32_t request_alignment_bytes; /* what the driver needs */
    uint32_t cluster_bytes;           /* allocation unit; 0: has none */
};
const struct block_limits *block_limits(const struct block_node *node);

#endif
