/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request's vectors, piece by piece.
 *
 * A cursor stands at a byte of the request; vector_cursor_take() cuts the next
 * piece out as vectors of its own and goes on behind it. No copying.
 */
#ifndef DRIVERS_QCOW2_VECTORS_H
#define DRIVERS_QCOW2_VECTORS_H

#include <stdint.h>
#include <sys/uio.h>

#define VECTOR_CURSOR_INLINE 8

struct vector_cursor {
    const struct iovec *iov; /* borrowed; where the rest begins */
    int iov_count;
    size_t skip; /* bytes of iov[0] that are behind */
    struct iovec inline_piece[VECTOR_CURSOR_INLINE];
    struct iovec *piece; /* the piece cut out last; owned unless inline */
    int piece_count;
};

void vector_cursor_init(struct vector_cursor *cursor,
                        const struct iovec *iov,
                        int iov_count);
void vector_cursor_release(struct vector_cursor *cursor);

/* The next `bytes` are in piece[0 .. piece_count - 1], until the next call. The
 * request must have that many left. */
void vector_cursor_take(struct vector_cursor *cursor, uint64_t bytes);
/* The next `bytes` are filled with zeroes, or with the bytes at `from`. */
void vector_cursor_zero(struct vector_cursor *cursor, uint64_t bytes);
void vector_cursor_fill(struct vector_cursor *cursor,
                        const uint8_t *from,
                        uint64_t bytes);

#endif
