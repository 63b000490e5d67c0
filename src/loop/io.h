/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files and sockets, as a coroutine sees them.
 *
 * Each call is done by the current loop's backend and returns when it is done:
 * a count or 0, else a negative errno. Buffers are borrowed until then. EINTR
 * and short transfers of regular files are dealt with inside: co_file_preadv()
 * returns fewer bytes than asked only at the end of the file.
 */
#ifndef LOOP_IO_H
#define LOOP_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "loop/coroutine.h"

/* Files. At most IOV_MAX vectors. */
ssize_t co_file_preadv(int fd,
                       const struct iovec *iov,
                       int iov_count,
                       uint64_t offset);
ssize_t co_file_pwritev(int fd,
                        const struct iovec *iov,
                        int iov_count,
                        uint64_t offset,
                        int rw_flags);
int co_file_datasync(int fd);
int co_file_allocate(int fd, int mode, uint64_t offset, uint64_t bytes);

/* Without waiting, from coroutines and plain callbacks: -EAGAIN when it would
 * have to wait (or the file system cannot tell). The count may be short: what
 * follows would have to wait, or the file ends there. */
ssize_t file_try_preadv(int fd,
                        const struct iovec *iov,
                        int iov_count,
                        uint64_t offset);
ssize_t file_try_pwritev(int fd,
                         const struct iovec *iov,
                         int iov_count,
                         uint64_t offset);

/* A plain write on this thread, from coroutines and plain callbacks. It may wait
 * for the disk a little, and everything else on the loop with it: for cached
 * files on local file systems only, where it seldom does, and that cannot
 * promise not to (RWF_NOWAIT). Time it, and stay away for a while when it was
 * slow. -EAGAIN: this loop does not do it; the count may be short. */
ssize_t file_pwritev_inline(int fd,
                            const struct iovec *iov,
                            int iov_count,
                            uint64_t offset);

/*
 * Sockets and other pollable descriptors (non-blocking). A canceller lets
 * another coroutine or callback of the same loop end a wait: the wait then
 * returns -ECANCELED, and so does each later one. NULL: cannot be cancelled.
 * One canceller serves one waiting coroutine at a time.
 */
struct io_canceller {
    bool cancelled;
    struct io_wait *wait; /* whom it would end; NULL: nobody waits */
};

void io_canceller_init(struct io_canceller *canceller);
void io_cancel(struct io_canceller *canceller);

/* Waits for `events` (POLLIN, POLLOUT) on `fd`; returns those that came. */
int co_poll(int fd, short events, struct io_canceller *canceller);
/* As co_poll() with a monotonic deadline: -ETIMEDOUT. */
int co_poll_until(int fd,
                  short events,
                  struct io_canceller *canceller,
                  uint64_t deadline_ns);
/* One accepted, non-blocking, close-on-exec connection. What went wrong with a
 * single peer is passed over. -EMFILE, -ENFILE, -ENOBUFS and -ENOMEM say that
 * the peer still waits: do not try again at once. */
int co_accept(int listen_fd, struct io_canceller *canceller);
/* What is there, at least one byte; 0 at the end of the stream. `bytes` > 0. */
ssize_t co_recv(int fd,
                void *buffer,
                size_t bytes,
                struct io_canceller *canceller);
/* All bytes, or an error (-ECONNRESET if the stream ends first). */
int co_recv_all(int fd,
                void *buffer,
                size_t bytes,
                struct io_canceller *canceller);
/* All bytes of all vectors; the vector array is scratch and gets changed. */
int co_send_all(int fd,
                struct iovec *iov,
                int iov_count,
                struct io_canceller *canceller);

#endif
