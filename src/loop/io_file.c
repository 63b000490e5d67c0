/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File operations. The first transfer is nearly always all there is; only when
 * the kernel moved less does the rest get a vector array of its own, and goes
 * round again until all is done, the file ends, or something fails. A failure
 * after a part is a failure: the part is not reported.
 */
#include <errno.h>
#include <string.h>

#include "loop/io.h"
#include "loop/io_request.h"
#include "loop/offload.h"

/* O_DIRECT takes offsets in units of no less than this. */
#define SECTOR_BYTES 512

static void wake_waiter(struct io_request *request)
{
    co_wake(LIST_ENTRY(request, struct io_waiter, request)->coroutine);
}

int64_t co_io_submit(struct io_waiter *waiter)
{
    struct loop *loop = loop_current();

    waiter->coroutine = co_self();
    waiter->request.done = wake_waiter;
    loop->backend->submit(loop->backend_state, &waiter->request);
    co_yield ();
    return waiter->request.result;
}

static uint64_t vector_bytes(const struct iovec *iov, int iov_count)
{
    uint64_t bytes = 0;

    for (int i = 0; i < iov_count; i++) {
        bytes += iov[i].iov_len;
    }
    return bytes;
}

/* What is left of `iov` after its first `done` bytes. Owned by the caller. */
static struct iovec *vector_rest(const struct iovec *iov,
                                 int iov_count,
                                 uint64_t done,
                                 int *ret_count)
{
    int skipped = 0;
    struct iovec *rest;

    while (done >= iov[skipped].iov_len) {
        done -= iov[skipped].iov_len;
        skipped++;
        g_assert(skipped < iov_count);
    }
    rest =
        g_memdup2(iov + skipped, (size_t)(iov_count - skipped) * sizeof(*iov));
    rest->iov_base = (char *)rest->iov_base + done;
    rest->iov_len -= done;
    *ret_count = iov_count - skipped;
    return rest;
}

static bool is_passing(int64_t result)
{
    return result == -EINTR || result == -EAGAIN;
}

static ssize_t co_transfer(enum io_operation operation,
                           int fd,
                           const struct iovec *iov,
                           int iov_count,
                           uint64_t offset,
                           int rw_flags)
{
    uint64_t wanted = vector_bytes(iov, iov_count);
    uint64_t done = 0;
    g_autofree struct iovec *rest = NULL;
    struct io_waiter waiter = {
        .request = { .operation = operation,
                     .fd = fd,
                     .flags = rw_flags,
                     .iov = iov,
                     .iov_count = iov_count,
                     .offset = offset },
    };

    while (done < wanted) {
        int64_t result = co_io_submit(&waiter);

        if (is_passing(result)) {
            continue;
        }
        /* The end of a file may lie within a sector. With O_DIRECT, asking for
         * what comes after it is refused as not aligned. */
        if (result == -EINVAL && operation == IO_PREADV && done > 0 &&
            waiter.request.offset % SECTOR_BYTES != 0) {
            break;
        }
        if (result < 0) {
            return (ssize_t)result;
        }
        if (result == 0) {
            if (operation == IO_PWRITEV) {
                return -EIO;
            }
            break;
        }
        done += (uint64_t)result;
        if (done < wanted) {
            g_free(rest);
            rest = vector_rest(iov, iov_count, done, &waiter.request.iov_count);
            waiter.request.iov = rest;
            waiter.request.offset = offset + done;
        }
    }
    return (ssize_t)done;
}

ssize_t co_file_preadv(int fd,
                       const struct iovec *iov,
                       int iov_count,
                       uint64_t offset)
{
    return co_transfer(IO_PREADV, fd, iov, iov_count, offset, 0);
}

ssize_t co_file_pwritev(int fd,
                        const struct iovec *iov,
                        int iov_count,
                        uint64_t offset,
                        int rw_flags)
{
    return co_transfer(IO_PWRITEV, fd, iov, iov_count, offset, rw_flags);
}

int co_file_datasync(int fd)
{
    struct io_waiter waiter = {
        .request = { .operation = IO_DATASYNC, .fd = fd },
    };
    int64_t result;

    do {
        result = co_io_submit(&waiter);
    } while (is_passing(result));
    return (int)result;
}

int co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    struct io_waiter waiter = {
        .request = { .operation = IO_ALLOCATE,
                     .fd = fd,
                     .flags = mode,
                     .offset = offset,
                     .bytes = bytes },
    };
    int64_t result;

    if (offset > INT64_MAX || bytes > INT64_MAX - offset) {
        return -EFBIG;
    }
    do {
        result = co_io_submit(&waiter);
    } while (is_passing(result));
    return (int)result;
}

int co_offload_to(struct offload_pool *pool,
                  int (*call)(void *opaque),
                  void *opaque)
{
    struct io_waiter waiter = {
        .request = { .operation = IO_CALL,
                     .call = call,
                     .opaque = opaque,
                     .pool = pool },
    };

    return (int)co_io_submit(&waiter);
}

int co_offload(int (*call)(void *opaque), void *opaque)
{
    return co_offload_to(NULL, call, opaque);
}

static ssize_t try_transfer(enum io_operation operation,
                            int fd,
                            const struct iovec *iov,
                            int iov_count,
                            uint64_t offset)
{
    struct loop *loop = loop_current();
    const struct io_request request = {
        .operation = operation,
        .fd = fd,
        .iov = iov,
        .iov_count = iov_count,
        .offset = offset,
    };

    if (loop->backend->try_transfer == NULL) {
        return -EAGAIN;
    }
    return (ssize_t)loop->backend->try_transfer(loop->backend_state, &request);
}

ssize_t file_try_preadv(int fd,
                        const struct iovec *iov,
                        int iov_count,
                        uint64_t offset)
{
    return try_transfer(IO_PREADV, fd, iov, iov_count, offset);
}

ssize_t file_try_pwritev(int fd,
                         const struct iovec *iov,
                         int iov_count,
                         uint64_t offset)
{
    return try_transfer(IO_PWRITEV, fd, iov, iov_count, offset);
}

ssize_t file_pwritev_inline(int fd,
                            const struct iovec *iov,
                            int iov_count,
                            uint64_t offset)
{
    struct loop *loop = loop_current();
    const struct io_request request = {
        .operation = IO_PWRITEV,
        .fd = fd,
        .iov = iov,
        .iov_count = iov_count,
        .offset = offset,
    };

    if (loop->backend->write_inline == NULL) {
        return -EAGAIN;
    }
    return (ssize_t)loop->backend->write_inline(loop->backend_state, &request);
}
