/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seam between the engine and the world.
 *
 * A backend does what a loop cannot: file I/O, waiting, time, chance, and the
 * choice of which ready task runs next. The engine above sees only loop.h,
 * coroutine.h and io.h. Two implementations are meant: uring_backend.c, and a
 * simulator that runs many loops in one thread from one seed.
 */
#ifndef LOOP_BACKEND_H
#define LOOP_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "loop/loop.h"

enum io_operation {
    IO_PREADV,
    IO_PWRITEV,
    IO_DATASYNC,
    IO_ALLOCATE,
    IO_POLL,
    IO_CALL, /* run `call` where it may block */
};

/* One operation under way. Owned by the submitter, alive until `done`. */
struct io_request {
    enum io_operation operation;
    int fd;
    int flags; /* PWRITEV: RWF_*; ALLOCATE: mode; POLL: events */
    const struct iovec *iov;
    int iov_count;
    uint64_t offset;
    uint64_t bytes;
    int (*call)(void *opaque);
    void *opaque;
    struct offload_pool *pool; /* CALL: where; NULL: wherever is room */
    int64_t result;            /* count, events or negative errno */
    /* Called once on the loop's thread, later than submit() returned. */
    void (*done)(struct io_request *request);
    /* The backend's own, from submit() to done(). */
    struct list link;
    struct loop *loop;
    struct loop_message message;
};

struct offload_pool;

struct loop_backend {
    /* Sets up and tears down `*ret_state`, the backend's part of a loop. */
    int (*open)(struct loop *loop, void **ret_state, GError **err);
    void (*close)(void *state);
    /* Takes an operation on; it may sit in a batch until the next wait(). */
    void (*submit)(void *state, struct io_request *request);
    /* Transfers (PREADV, PWRITEV) here and now: a count, which may be short, or
     * a negative errno, -EAGAIN if that would mean to wait. NULL: it always
     * would. */
    int64_t (*try_transfer)(void *state, const struct io_request *request);
    /* Writes (PWRITEV) here and now, and may hold up the thread while the file
     * system makes room: a count, which may be short, or a negative errno. NULL:
     * as if -EAGAIN. */
    int64_t (*write_inline)(void *state, const struct io_request *request);
    /* Asks for an early end (POLL only, once); done() still comes. */
    void (*cancel)(void *state, struct io_request *request);
    /* Sends what is batched, runs done() of what has completed and, if nothing
     * had and `deadline_ns` is not past, sleeps until something completes,
     * wake() is called or the deadline comes. 0: do not sleep. */
    void (*wait)(void *state, uint64_t deadline_ns);
    /* Ends a wait(), or makes the next one not sleep. Any thread. */
    void (*wake)(void *state);
    uint64_t (*now_ns)(void *state);
    uint64_t (*wall_clock_us)(void *state);
    void (*random)(void *state, void *buffer, size_t bytes);
    /* Which of `count` (> 1) ready coroutines runs next; 0 is the one that has
     * been ready longest. A loop with a chooser then runs no more than that one
     * in this turn. NULL: each turn runs all that were ready, oldest first. */
    size_t (*choose)(void *state, size_t count);
    /* An idle loop may call wait(0), now_ns() and its pollers in a tight loop
     * (loop.h). Not for a clock that stands still meanwhile. */
    bool may_spin;
};

#endif
