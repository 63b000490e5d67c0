/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/vectors.h"

#include <glib.h>
#include <string.h>

#include "base/bytes.h"

void vector_cursor_init(struct vector_cursor *cursor,
                        const struct iovec *iov,
                        int iov_count)
{
    cursor->iov = iov;
    cursor->iov_count = iov_count;
    cursor->skip = 0;
    cursor->piece = iov_count <= VECTOR_CURSOR_INLINE
                        ? cursor->inline_piece
                        : g_new(struct iovec, (size_t)iov_count);
    cursor->piece_count = 0;
}

void vector_cursor_release(struct vector_cursor *cursor)
{
    if (cursor->piece != cursor->inline_piece) {
        g_free(cursor->piece);
    }
}

/* The next run of bytes in one vector, at most `bytes` (> 0) long. */
static struct iovec next_run(struct vector_cursor *cursor, uint64_t bytes)
{
    struct iovec run;

    while (cursor->skip == cursor->iov->iov_len) {
        cursor->iov++;
        cursor->iov_count--;
        cursor->skip = 0;
        g_assert(cursor->iov_count > 0);
    }
    run.iov_base = (uint8_t *)cursor->iov->iov_base + cursor->skip;
    run.iov_len = min_u64(bytes, cursor->iov->iov_len - cursor->skip);
    cursor->skip += run.iov_len;
    return run;
}

void vector_cursor_take(struct vector_cursor *cursor, uint64_t bytes)
{
    cursor->piece_count = 0;
    while (bytes > 0) {
        struct iovec run = next_run(cursor, bytes);

        cursor->piece[cursor->piece_count++] = run;
        bytes -= run.iov_len;
    }
}

void vector_cursor_zero(struct vector_cursor *cursor, uint64_t bytes)
{
    while (bytes > 0) {
        struct iovec run = next_run(cursor, bytes);

        memset(run.iov_base, 0, run.iov_len);
        bytes -= run.iov_len;
    }
}

void vector_cursor_fill(struct vector_cursor *cursor,
                        const uint8_t *from,
                        uint64_t bytes)
{
    while (bytes > 0) {
        struct iovec run = next_run(cursor, bytes);

        memcpy(run.iov_base, from, run.iov_len);
        from += run.iov_len;
        bytes -= run.iov_len;
    }
}
