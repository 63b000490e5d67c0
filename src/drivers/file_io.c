/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading, writing and flushing a file.
 *
 * Cached requests that are not too long are done inline when they need not wait:
 * what the page cache holds is read with RWF_NOWAIT; for writes see
 * loop/inline_writer.h. Everything else goes through io_uring, or through threads of
 * the file's own if it may hang (file_call.c).
 *
 * After a failed fdatasync() of a cached file nobody knows which pages are
 * lost, and the kernel reports it once: so from then on every flush fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "drivers/file_priv.h"
#include "loop/io.h"

/* A bounce buffer is this large at most. */
#define BOUNCE_BYTES MIB

void file_note_change(struct file_state *state)
{
    state->writes++;
    state->extent = (struct file_extent){ 0 };
}

int file_try_read(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  const struct iovec *iov,
                  int iov_count)
{
    struct file_state *state = block_state(node);

    if (state->direct || bytes > FILE_INLINE_READ_BYTES) {
        return -EAGAIN;
    }
    file_ahead_note(state, offset, bytes);
    if (file_try_preadv(state->fd, iov, iov_count, offset) != (ssize_t)bytes) {
        return -EAGAIN; /* if it was an error, it will come again */
    }
    return 0;
}

int file_try_write(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   const struct iovec *iov,
                   int iov_count)
{
    struct file_state *state = block_state(node);

    if (state->direct) {
        return -EAGAIN;
    }
    file_note_change(state);
    return inline_writer_try(&state->inline_writer, state->fd, iov, iov_count,
                             bytes, offset) == (ssize_t)bytes
               ? 0
               : -EAGAIN;
}

static bool is_memory_aligned(const struct file_state *state,
                              const struct iovec *iov,
                              int iov_count)
{
    uintptr_t surplus = state->memory_alignment_bytes - 1;

    for (int i = 0; i < iov_count; i++) {
        /* Each length, too: the next vector goes on in the same sector. */
        if ((((uintptr_t)iov[i].iov_base | iov[i].iov_len) & surplus) != 0) {
            return false;
        }
    }
    return true;
}

static int co_read_exactly(struct file_state *state,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    ssize_t count = co_file_transfer(state, false, offset, iov, iov_count, 0);

    if (count < 0) {
        return (int)count;
    }
    /* Fewer only if someone has shortened the file behind our back; what was
     * there is lost, and zeroes in its place would hide it. */
    return (uint64_t)count == bytes ? 0 : -EIO;
}

static int co_write_exactly(struct file_state *state,
                            uint64_t offset,
                            const struct iovec *iov,
                            int iov_count,
                            int rw_flags)
{
    ssize_t count =
        co_file_transfer(state, true, offset, iov, iov_count, rw_flags);

    return count < 0 ? (int)count : 0;
}

/* Copies between `flat` and the part of `iov` that begins at `skip`. */
static void copy_part(uint8_t *flat,
                      size_t bytes,
                      const struct iovec *iov,
                      uint64_t skip,
                      bool to_iov)
{
    while (bytes > 0) {
        if (skip < iov->iov_len) {
            uint8_t *at = (uint8_t *)iov->iov_base + skip;
            size_t part = MIN(iov->iov_len - skip, bytes);

            if (to_iov) {
                memcpy(at, flat, part);
            } else {
                memcpy(flat, at, part);
            }
            flat += part;
            bytes -= part;
            skip = 0;
        } else {
            skip -= iov->iov_len;
        }
        iov++;
    }
}

/* O_DIRECT with buffers that the device cannot reach: in parts, through one
 * that it can. */
static int co_bounce(struct file_state *state,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     bool is_write,
                     int rw_flags)
{
    size_t buffer_bytes = min_u64(bytes, BOUNCE_BYTES);
    size_t alignment = MAX(state->memory_alignment_bytes, 4096);
    void *buffer = NULL;
    int ret = 0;

    if (posix_memalign(&buffer, alignment, buffer_bytes) != 0) {
        return -ENOMEM;
    }
    for (uint64_t done = 0; ret == 0 && done < bytes; done += buffer_bytes) {
        struct iovec part = { buffer, min_u64(buffer_bytes, bytes - done) };

        if (is_write) {
            copy_part(buffer, part.iov_len, iov, done, false);
            ret = co_write_exactly(state, offset + done, &part, 1, rw_flags);
            continue;
        }
        ret = co_read_exactly(state, offset + done, part.iov_len, &part, 1);
        if (ret == 0) {
            copy_part(buffer, part.iov_len, iov, done, true);
        }
    }
    free(buffer);
    return ret;
}

int co_file_read(struct block_node *node,
                 uint64_t offset,
                 uint64_t bytes,
                 const struct iovec *iov,
                 int iov_count)
{
    struct file_state *state = block_state(node);

    if (!state->direct) {
        file_ahead_note(state, offset, bytes);
    } else if (!is_memory_aligned(state, iov, iov_count)) {
        return co_bounce(state, offset, bytes, iov, false, 0);
    }
    return co_read_exactly(state, offset, bytes, iov, iov_count);
}

/* Remembers a failure to make data durable, if nothing can mend it. */
static int durability_result(struct file_state *state, int ret)
{
    if (ret < 0 && !state->direct) {
        state->flush_failed = true;
    }
    /* Of two syncs at once only one may be told of the error. */
    return ret == 0 && state->flush_failed ? -EIO : ret;
}

static int co_write(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count,
                    int rw_flags)
{
    struct file_state *state = block_state(node);
    int ret;

    if (rw_flags == 0 &&
        file_try_write(node, offset, bytes, iov, iov_count) == 0) {
        return 0;
    }
    file_note_change(state);
    if (state->direct && !is_memory_aligned(state, iov, iov_count)) {
        ret = co_bounce(state, offset, bytes, iov, true, rw_flags);
    } else {
        ret = co_write_exactly(state, offset, iov, iov_count, rw_flags);
    }
    file_note_change(state);
    return ret;
}

int co_file_write(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  const struct iovec *iov,
                  int iov_count,
                  unsigned int flags)
{
    struct file_state *state = block_state(node);
    bool durable = (flags & BLOCK_FUA) != 0;
    int ret;

    if (durable && state->flush_failed) {
        return -EIO;
    }
    ret =
        co_write(node, offset, bytes, iov, iov_count, durable ? RWF_DSYNC : 0);
    if (durable) {
        return durability_result(state, ret);
    }
    if (ret == 0 && (flags & BLOCK_FLUSHED_SOON) != 0 && !state->direct) {
        file_behind_note(state, offset, bytes);
    }
    return ret;
}

int co_file_flush(struct block_node *node)
{
    struct file_state *state = block_state(node);
    uint64_t covered = state->writes;
    int ret;

    if (state->flush_failed) {
        return -EIO;
    }
    if (state->writes_flushed == covered) {
        return 0; /* nothing has been written since */
    }
    ret = durability_result(state, co_file_sync(state));
    if (ret == 0) {
        state->writes_flushed = max_u64(state->writes_flushed, covered);
    }
    return ret;
}

int file_try_map(struct block_node *node,
                 uint64_t offset,
                 uint64_t bytes,
                 int *ret_fd,
                 uint64_t *ret_file_offset)
{
    struct file_state *state = block_state(node);

    if (state->direct) {
        return -ENOTSUP;
    }
    file_ahead_note(state, offset, bytes);
    *ret_fd = state->fd;
    *ret_file_offset = offset;
    return 0;
}
