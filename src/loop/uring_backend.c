/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The production backend. Operations become submission entries that the next
 * wait() sends in one system call, together with the sleep if there is one.
 *
 * The ring is created by loop_new() and enabled by the thread that first runs
 * the loop: the kernel then knows that nobody else will ever submit, and does
 * completion work only when that thread asks for it. A kernel that lacks these
 * modes gets plainer ones.
 *
 * A wake() writes an eventfd on which a read is always pending. What finds the
 * submission queue full even after it was sent waits in `backlog`. The
 * completion queue cannot lose entries: the kernel keeps what does not fit
 * (IORING_FEAT_NODROP), and looking at the queue fetches it.
 */
#include <errno.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/loop_priv.h"
#include "loop/offload.h"

#define SUBMISSION_ENTRIES 256
#define COMPLETION_ENTRIES 4096
#define REAP_BATCH         64

struct uring {
    struct io_uring ring;
    bool enabled;
    int wake_fd;
    uint64_t wake_count; /* read from wake_fd */
    size_t in_flight;    /* without the wake_fd's read */
    bool wake_armed;
    struct list backlog;     /* not submitted yet */
    struct list uncancelled; /* under way; its cancellation is not submitted */
    struct list cancelled;   /* out of the backlog; done() is due */
    struct offload_pool *offload;
};

static int refuse(int ret, GError **err)
{
    switch (-ret) {
    case ENOSYS:
        return error_set(err, ret,
                         "this kernel has no io_uring (CONFIG_IO_URING); "
                         "cohort needs Linux 5.11 or later with it");
    case EPERM:
    case EACCES:
        return error_set(err, ret,
                         "io_uring is forbidden here, by the sysctl "
                         "kernel.io_uring_disabled or by a seccomp filter "
                         "(a container's default profile, for one)");
    case ENOMEM:
        return error_set(err, ret,
                         "io_uring got no memory; raise the limit on locked "
                         "memory (ulimit -l, LimitMEMLOCK=)");
    default: return error_set_errno(err, ret, "io_uring refused to start");
    }
}

static int create_ring(struct io_uring *ring, GError **err)
{
    static const unsigned modes[] = {
        IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
            IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
            IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN |
            IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
        IORING_SETUP_R_DISABLED,
    };
    const unsigned needed =
        IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE;
    struct io_uring_params params;
    int ret = -EINVAL;

    for (size_t i = 0; i < G_N_ELEMENTS(modes) && ret == -EINVAL; i++) {
        params = (struct io_uring_params){
            .flags = modes[i] | IORING_SETUP_CQSIZE,
            .cq_entries = COMPLETION_ENTRIES,
        };
        ret = io_uring_queue_init_params(SUBMISSION_ENTRIES, ring, &params);
    }
    if (ret < 0) {
        return refuse(ret, err);
    }
    if ((params.features & needed) != needed) {
        io_uring_queue_exit(ring);
        return error_set(err, -EOPNOTSUPP,
                         "this kernel's io_uring is too old; cohort needs "
                         "Linux 5.11 or later");
    }
    return 0;
}

static int uring_open(struct loop *loop, void **ret_state, GError **err)
{
    struct uring *uring = g_new0(struct uring, 1);
    int ret = create_ring(&uring->ring, err);

    (void)loop; /* completions name theirs */
    if (ret < 0) {
        g_free(uring);
        return ret;
    }
    uring->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (uring->wake_fd < 0) {
        ret = error_set_errno(err, -errno, "cannot create an eventfd");
        io_uring_queue_exit(&uring->ring);
        g_free(uring);
        return ret;
    }
    list_init(&uring->backlog);
    list_init(&uring->uncancelled);
    list_init(&uring->cancelled);
    uring->offload = offload_pool_new();
    *ret_state = uring;
    return 0;
}

static void uring_close(void *state)
{
    struct uring *uring = state;

    g_assert(uring->in_flight == 0);
    offload_pool_free(uring->offload);
    io_uring_queue_exit(&uring->ring);
    close(uring->wake_fd);
    g_free(uring);
}

/* The first time on the loop's thread. (io_uring_enable_rings() is declared by
 * liburing 2.3, but its library does not have it.) */
static void enable(struct uring *uring)
{
    int ret = io_uring_register((unsigned)uring->ring.ring_fd,
                                IORING_REGISTER_ENABLE_RINGS, NULL, 0);

    if (ret < 0) {
        g_error("io_uring cannot be enabled: %s", g_strerror(-ret));
    }
    uring->enabled = true;
}

/* A free entry, sending what is there if need be; NULL: the kernel takes no
 * more until completions have been looked at. */
static struct io_uring_sqe *get_entry(struct uring *uring)
{
    struct io_uring_sqe *sqe;

    if (!uring->enabled) {
        enable(uring);
    }
    sqe = io_uring_get_sqe(&uring->ring);
    if (sqe == NULL) {
        (void)io_uring_submit(&uring->ring); /* then there is none, still */
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

static void fill_entry(struct io_uring_sqe *sqe, struct io_request *request)
{
    switch (request->operation) {
    case IO_PREADV:
        io_uring_prep_readv2(sqe, request->fd, request->iov,
                             (unsigned)request->iov_count, request->offset,
                             request->flags);
        break;
    case IO_PWRITEV:
        io_uring_prep_writev2(sqe, request->fd, request->iov,
                              (unsigned)request->iov_count, request->offset,
                              request->flags);
        break;
    case IO_DATASYNC:
        io_uring_prep_fsync(sqe, request->fd, IORING_FSYNC_DATASYNC);
        break;
    case IO_ALLOCATE:
        io_uring_prep_fallocate(sqe, request->fd, request->flags,
                                (off_t)request->offset, (off_t)request->bytes);
        break;
    case IO_POLL:
        io_uring_prep_poll_add(sqe, request->fd, (unsigned)request->flags);
        break;
    case IO_CALL: g_assert_not_reached();
    }
    io_uring_sqe_set_data(sqe, request);
}

/* Not poll_remove: that leaves a poll alone (-EALREADY) which the kernel is about
 * to look at, since something came for it; and should that be gone by then,
 * taken by somebody who did not wait, the poll would go on. */
static void fill_cancel(struct io_uring_sqe *sqe, struct io_request *request)
{
    io_uring_prep_cancel(sqe, request, 0);
    io_uring_sqe_set_data(sqe, NULL);
}

static void uring_submit(void *state, struct io_request *request)
{
    struct uring *uring = state;
    struct io_uring_sqe *sqe;

    if (request->operation == IO_CALL) {
        offload_submit(request->pool != NULL ? request->pool : uring->offload,
                       request);
        return;
    }
    uring->in_flight++;
    list_init(&request->link);
    sqe = list_is_empty(&uring->backlog) ? get_entry(uring) : NULL;
    if (sqe != NULL) {
        fill_entry(sqe, request);
    } else {
        list_append(&uring->backlog, &request->link);
    }
}

/* The address identifies the request. Entries are carried out in order, so one
 * that is submitted later at the same address is not the one found. */
static void uring_cancel(void *state, struct io_request *request)
{
    struct uring *uring = state;
    struct io_uring_sqe *sqe;

    g_assert(request->operation == IO_POLL);
    if (!list_is_empty(&request->link)) {
        list_remove(&request->link);
        list_append(&uring->cancelled, &request->link);
        return;
    }
    sqe = get_entry(uring);
    if (sqe != NULL) {
        fill_cancel(sqe, request);
    } else {
        list_append(&uring->uncancelled, &request->link);
    }
}

/* A file system that cannot promise not to wait says so in several ways. */
static int64_t uring_try_transfer(void *state, const struct io_request *request)
{
    const off_t offset = (off_t)request->offset;
    ssize_t count;

    (void)state;
    do {
        count = request->operation == IO_PREADV
                    ? preadv2(request->fd, request->iov, request->iov_count,
                              offset, RWF_NOWAIT)
                    : pwritev2(request->fd, request->iov, request->iov_count,
                               offset, RWF_NOWAIT);
    } while (count < 0 && errno == EINTR);
    if (count >= 0) {
        return count;
    }
    return errno == EOPNOTSUPP || errno == ENOSYS ? -EAGAIN : -errno;
}

static int64_t uring_write_inline(void *state, const struct io_request *request)
{
    ssize_t count;

    (void)state;
    do {
        count = pwritev(request->fd, request->iov, request->iov_count,
                        (off_t)request->offset);
    } while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count;
}

static bool arm_wake(struct uring *uring)
{
    struct io_uring_sqe *sqe = uring->wake_armed ? NULL : get_entry(uring);

    if (sqe != NULL) {
        io_uring_prep_read(sqe, uring->wake_fd, &uring->wake_count,
                           sizeof(uring->wake_count), 0);
        io_uring_sqe_set_data(sqe, uring);
        uring->wake_armed = true;
    }
    return uring->wake_armed;
}

static void send_list(struct uring *uring,
                      struct list *list,
                      void (*fill)(struct io_uring_sqe *sqe,
                                   struct io_request *request))
{
    while (!list_is_empty(list)) {
        struct io_uring_sqe *sqe = get_entry(uring);

        if (sqe == NULL) {
            return;
        }
        fill(sqe, LIST_ENTRY(list_take_first(list), struct io_request, link));
    }
}

/* What did not fit earlier. False: some still does not. */
static bool send_backlog(struct uring *uring)
{
    bool armed = arm_wake(uring);

    send_list(uring, &uring->uncancelled, fill_cancel);
    send_list(uring, &uring->backlog, fill_entry);
    return armed && list_is_empty(&uring->uncancelled) &&
           list_is_empty(&uring->backlog);
}

static void finish(struct uring *uring,
                   struct io_request *request,
                   int64_t result)
{
    uring->in_flight--;
    list_remove(&request->link);
    request->result = result;
    request->done(request);
}

static void reap_one(struct uring *uring, void *data, int result)
{
    if (data == uring) {
        uring->wake_armed = false;
    } else if (data != NULL) {
        finish(uring, data, result);
    }
}

/* Looks at all completions; true if there were any. */
static bool reap(struct uring *uring)
{
    struct io_uring_cqe *cqes[REAP_BATCH];

    struct {
        void *data;
        int result;
    } seen[REAP_BATCH];

    unsigned count;
    bool any = false;

    for (unsigned total = 0; total < COMPLETION_ENTRIES; total += count) {
        count = io_uring_peek_batch_cqe(&uring->ring, cqes, REAP_BATCH);
        if (count == 0) {
            break;
        }
        /* Given back first: done() may submit, and that may need room. */
        for (unsigned i = 0; i < count; i++) {
            seen[i].data = io_uring_cqe_get_data(cqes[i]);
            seen[i].result = cqes[i]->res;
        }
        io_uring_cq_advance(&uring->ring, count);
        for (unsigned i = 0; i < count; i++) {
            reap_one(uring, seen[i].data, seen[i].result);
        }
        any = true;
    }
    return any;
}

static bool finish_cancelled(struct uring *uring)
{
    bool any = !list_is_empty(&uring->cancelled);
    struct list *link;

    while ((link = list_take_first(&uring->cancelled)) != NULL) {
        finish(uring, LIST_ENTRY(link, struct io_request, link), -ECANCELED);
    }
    return any;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static uint64_t uring_now_ns(void *state)
{
    (void)state;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t uring_wall_clock_us(void *state)
{
    (void)state;
    return clock_ns(CLOCK_REALTIME) / 1000;
}

static void sleep_until(struct uring *uring, uint64_t deadline_ns)
{
    struct __kernel_timespec timeout;
    struct io_uring_cqe *cqe;
    uint64_t now_ns;

    if (deadline_ns == UINT64_MAX) {
        (void)io_uring_submit_and_wait(&uring->ring, 1);
        return;
    }
    now_ns = uring_now_ns(uring);
    if (deadline_ns <= now_ns) {
        (void)io_uring_submit(&uring->ring);
        return;
    }
    timeout.tv_sec = (int64_t)((deadline_ns - now_ns) / 1000000000U);
    timeout.tv_nsec = (long long)((deadline_ns - now_ns) % 1000000000U);
    (void)io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &timeout,
                                           NULL);
}

/* What a system call here returns does not matter: what it could not send is
 * still in the queue for the next, a signal or a timeout ends the sleep, and
 * the completions tell the rest. */
static void uring_wait(void *state, uint64_t deadline_ns)
{
    struct uring *uring = state;

    if (!uring->enabled) {
        enable(uring);
    }
    if (!send_backlog(uring) || finish_cancelled(uring)) {
        deadline_ns = 0;
    }
    if (deadline_ns != 0 && io_uring_cq_ready(&uring->ring) == 0) {
        sleep_until(uring, deadline_ns);
    } else if (io_uring_sq_ready(&uring->ring) > 0) {
        (void)io_uring_submit_and_get_events(&uring->ring);
    }
    (void)reap(uring);
}

static void uring_wake(void *state)
{
    struct uring *uring = state;
    const uint64_t one = 1;
    ssize_t written;

    do {
        written = write(uring->wake_fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
}

static void uring_random(void *state, void *buffer, size_t bytes)
{
    char *at = buffer;

    (void)state;
    while (bytes > 0) {
        ssize_t count = getrandom(at, bytes, 0);

        if (count > 0) {
            at += count;
            bytes -= (size_t)count;
        } else {
            g_assert(errno == EINTR);
        }
    }
}

const struct loop_backend loop_uring_backend = {
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .try_transfer = uring_try_transfer,
    .write_inline = uring_write_inline,
    .cancel = uring_cancel,
    .wait = uring_wait,
    .wake = uring_wake,
    .now_ns = uring_now_ns,
    .wall_clock_us = uring_wall_clock_us,
    .random = uring_random,
    .may_spin = true,
};
