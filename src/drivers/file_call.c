/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files on network and FUSE file systems, which may hang for as long as their
 * server does.
 *
 * The kernel carries out what io_uring cannot do at once on a few threads of
 * the submitter's, and lines up buffered writes by a hash of the file. There
 * one hanging file would hold up others. So such a file gets threads of its
 * own, and everything it does is done there.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/bytes.h"
#include "drivers/file_priv.h"
#include "loop/io.h"

struct file_call {
    int fd;
    const struct iovec *iov;
    int iov_count;
    int flags;
    uint64_t offset;
    uint64_t bytes;
    ssize_t result;
};

int co_file_call(struct file_state *state,
                 int (*call)(void *opaque),
                 void *opaque)
{
    return co_offload_to(state->threads, call, opaque);
}

/* One vector, whole or up to the end of the file: a count or an error. */
static ssize_t transfer(const struct file_call *call,
                        struct iovec iov,
                        uint64_t offset,
                        bool is_write)
{
    size_t done = 0;

    while (iov.iov_len > 0) {
        ssize_t count =
            is_write ? pwritev2(call->fd, &iov, 1, (off_t)offset, call->flags)
                     : preadv(call->fd, &iov, 1, (off_t)offset);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? -errno : (ssize_t)done;
        }
        done += (size_t)count;
        offset += (uint64_t)count;
        iov.iov_base = (uint8_t *)iov.iov_base + count;
        iov.iov_len -= (size_t)count;
    }
    return (ssize_t)done;
}

static int transfer_all(struct file_call *call, bool is_write)
{
    call->result = 0;
    for (int i = 0; i < call->iov_count; i++) {
        ssize_t count =
            transfer(call, call->iov[i], call->offset + (uint64_t)call->result,
                     is_write);

        if (count < 0) {
            call->result = count;
            break;
        }
        call->result += count;
        if ((size_t)count < call->iov[i].iov_len) {
            break;
        }
    }
    return 0;
}

static int run_read(void *opaque)
{
    return transfer_all(opaque, false);
}

static int run_write(void *opaque)
{
    return transfer_all(opaque, true);
}

static int run_datasync(void *opaque)
{
    const struct file_call *call = opaque;

    return fdatasync(call->fd) < 0 ? -errno : 0;
}

static int run_allocate(void *opaque)
{
    const struct file_call *call = opaque;

    return fallocate(call->fd, call->flags, (off_t)call->offset,
                     (off_t)call->bytes) < 0
               ? -errno
               : 0;
}

ssize_t co_file_transfer(struct file_state *state,
                         bool is_write,
                         uint64_t offset,
                         const struct iovec *iov,
                         int iov_count,
                         int rw_flags)
{
    struct file_call call = {
        .fd = state->fd,
        .iov = iov,
        .iov_count = iov_count,
        .flags = rw_flags,
        .offset = offset,
    };

    if (state->threads == NULL) {
        return is_write ? co_file_pwritev(state->fd, iov, iov_count, offset,
                                          rw_flags)
                        : co_file_preadv(state->fd, iov, iov_count, offset);
    }
    (void)co_file_call(state, is_write ? run_write : run_read, &call);
    return call.result;
}

int co_file_sync(struct file_state *state)
{
    struct file_call call = { .fd = state->fd };

    return state->threads == NULL ? co_file_datasync(state->fd)
                                  : co_file_call(state, run_datasync, &call);
}

int co_file_reserve(struct file_state *state,
                    int mode,
                    uint64_t offset,
                    uint64_t bytes)
{
    struct file_call call = {
        .fd = state->fd,
        .flags = mode,
        .offset = offset,
        .bytes = bytes,
    };

    return state->threads == NULL
               ? co_file_allocate(state->fd, mode, offset, bytes)
               : co_file_call(state, run_allocate, &call);
}
