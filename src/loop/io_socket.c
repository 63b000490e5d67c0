/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sockets: try first, and wait in io_uring only when there is nothing to be had
 * at once. A stream that always has something would then never give up the
 * thread, so after many calls in a row that did not wait, it lets the others
 * run (co_burst()).
 *
 * What reads errno is kept in functions of its own that never yield: errno
 * lives in the thread, and a coroutine may change threads.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>

#include "loop/io.h"
#include "loop/io_request.h"

struct io_wait {
    struct io_waiter waiter;
    struct loop_timer timer;
    bool ending; /* the backend has been asked to */
    bool timed_out;
};

void io_canceller_init(struct io_canceller *canceller)
{
    *canceller = (struct io_canceller){ .cancelled = false };
}

static void end_wait(struct io_wait *wait)
{
    struct loop *loop = loop_current();

    if (!wait->ending) {
        wait->ending = true;
        loop->backend->cancel(loop->backend_state, &wait->waiter.request);
    }
}

void io_cancel(struct io_canceller *canceller)
{
    if (canceller->cancelled) {
        return;
    }
    canceller->cancelled = true;
    if (canceller->wait != NULL) {
        end_wait(canceller->wait);
    }
}

static bool is_cancelled(const struct io_canceller *canceller)
{
    return canceller != NULL && canceller->cancelled;
}

static void wait_timed_out(struct loop_timer *timer)
{
    struct io_wait *wait = LIST_ENTRY(timer, struct io_wait, timer);

    wait->timed_out = true;
    end_wait(wait);
}

int co_poll_until(int fd,
                  short events,
                  struct io_canceller *canceller,
                  uint64_t deadline_ns)
{
    struct io_wait wait = {
        .waiter.request = { .operation = IO_POLL, .fd = fd, .flags = events },
    };
    int64_t result;

    if (is_cancelled(canceller)) {
        return -ECANCELED;
    }
    loop_timer_init(&wait.timer, wait_timed_out);
    if (deadline_ns != UINT64_MAX) {
        loop_timer_start(&wait.timer, deadline_ns);
    }
    if (canceller != NULL) {
        g_assert(canceller->wait == NULL);
        canceller->wait = &wait;
    }
    result = co_io_submit(&wait.waiter);
    loop_timer_cancel(&wait.timer);
    if (canceller != NULL) {
        canceller->wait = NULL;
    }
    if (is_cancelled(canceller)) {
        return -ECANCELED;
    }
    if (result == -ECANCELED && wait.timed_out) {
        return -ETIMEDOUT;
    }
    return (int)result;
}

int co_poll(int fd, short events, struct io_canceller *canceller)
{
    return co_poll_until(fd, events, canceller, UINT64_MAX);
}

static G_NO_INLINE int accept_now(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    return fd >= 0 ? fd : -errno;
}

static G_NO_INLINE ssize_t recv_now(int fd, void *buffer, size_t bytes)
{
    ssize_t count = recv(fd, buffer, bytes, MSG_DONTWAIT);

    return count >= 0 ? count : -errno;
}

static G_NO_INLINE ssize_t send_now(int fd, struct iovec *iov, int iov_count)
{
    struct msghdr message = {
        .msg_iov = iov,
        .msg_iovlen = (size_t)MIN(iov_count, IOV_MAX),
    };
    ssize_t count = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

    return count >= 0 ? count : -errno;
}

/* The peer was gone before it was accepted, or a network's passing trouble
 * came up with it (accept(2), "Error handling"): the next one may be fine. */
static bool concerns_one_peer(int error)
{
    switch (-error) {
    case EINTR:
    case ECONNABORTED:
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH: return true;
    default: return false;
    }
}

int co_accept(int listen_fd, struct io_canceller *canceller)
{
    int ret;

    for (;;) {
        if (is_cancelled(canceller)) {
            return -ECANCELED;
        }
        ret = accept_now(listen_fd);
        if (ret >= 0) {
            co_burst();
            return ret;
        }
        if (ret == -EAGAIN) {
            ret = co_poll(listen_fd, POLLIN, canceller);
            if (ret < 0) {
                return ret;
            }
        } else if (!concerns_one_peer(ret)) {
            return ret;
        }
    }
}

ssize_t co_recv(int fd,
                void *buffer,
                size_t bytes,
                struct io_canceller *canceller)
{
    ssize_t ret;

    g_assert(bytes > 0);
    for (;;) {
        if (is_cancelled(canceller)) {
            return -ECANCELED;
        }
        ret = recv_now(fd, buffer, bytes);
        if (ret >= 0) {
            co_burst();
            return ret;
        }
        if (ret == -EAGAIN) {
            ret = co_poll(fd, POLLIN, canceller);
        }
        if (ret < 0 && ret != -EINTR) {
            return ret;
        }
    }
}

int co_recv_all(int fd,
                void *buffer,
                size_t bytes,
                struct io_canceller *canceller)
{
    char *at = buffer;

    while (bytes > 0) {
        ssize_t count = co_recv(fd, at, bytes, canceller);

        if (count <= 0) {
            return count == 0 ? -ECONNRESET : (int)count;
        }
        at += count;
        bytes -= (size_t)count;
    }
    return 0;
}

/* Takes `bytes` off the front of the vectors. */
static void advance(struct iovec **iov, int *iov_count, size_t bytes)
{
    while (*iov_count > 0 && bytes >= (*iov)->iov_len) {
        bytes -= (*iov)->iov_len;
        (*iov)++;
        (*iov_count)--;
    }
    if (*iov_count > 0) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
}

int co_send_all(int fd,
                struct iovec *iov,
                int iov_count,
                struct io_canceller *canceller)
{
    ssize_t ret;

    advance(&iov, &iov_count, 0); /* empty vectors at the front */
    while (iov_count > 0) {
        if (is_cancelled(canceller)) {
            return -ECANCELED;
        }
        ret = send_now(fd, iov, iov_count);
        if (ret >= 0) {
            advance(&iov, &iov_count, (size_t)ret);
            co_burst();
            continue;
        }
        if (ret == -EAGAIN) {
            ret = co_poll(fd, POLLOUT, canceller);
        }
        if (ret < 0 && ret != -EINTR) {
            return (int)ret;
        }
    }
    return 0;
}
