/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop: one per thread, the only thing that waits.
 *
 * Everything that takes time goes through a loop: file I/O, sockets, timers,
 * messages between threads, the clock and randomness. Nothing else in the
 * engine calls read(), fsync() or clock_gettime(). A loop gets these from a
 * `struct loop_backend`: the real one sits on io_uring (loop_uring_backend), a
 * simulator brings its own, with virtual time and its own order of tasks.
 *
 * Life: loop_new(), then loop_run() on the thread that shall own it, until some
 * thread calls loop_stop(); then loop_free(). Or loop_thread_start(), which
 * does this on a thread of its own. All code of a loop runs on its thread, in
 * coroutines (loop/coroutine.h) or in plain callbacks, which must not wait.
 *
 * Thread-local state is read through functions that are never inlined, since a
 * coroutine may continue on another thread after it yielded (co_move()).
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

struct loop;
struct loop_backend;

/* The production backend: io_uring, CLOCK_MONOTONIC, getrandom(). */
extern const struct loop_backend loop_uring_backend;

/* A new loop that nobody runs yet. `name` is for traces and thread names,
 * copied. Fails with a sentence that names the cause when the kernel offers no
 * io_uring (not built in, or forbidden by kernel.io_uring_disabled or seccomp). */
struct loop *loop_new(const struct loop_backend *backend,
                      const char *name,
                      GError **err);

/* The loop must not be running and must have nothing outstanding. */
void loop_free(struct loop *loop);

/* Runs callbacks, coroutines and completions until loop_stop(). */
void loop_run(struct loop *loop);

/* One turn of loop_run(): deliver messages, fire timers, run what is ready, then
 * completions; with `may_wait`, sleep for them if nothing is left to do. True if
 * anything ran or is ready to; false: all wait. For a simulator that steps many
 * loops in one thread; `loop` is the current one during the call. */
bool loop_run_once(struct loop *loop, bool may_wait);

/* Makes loop_run() return once what is ready now has run. Any thread. */
void loop_stop(struct loop *loop);

/* As loop_new() plus a thread that runs it; loop_thread_join() stops the loop,
 * joins the thread and frees the loop. */
struct loop *loop_thread_start(const struct loop_backend *backend,
                               const char *name,
                               GError **err);
void loop_thread_join(struct loop *loop);

/* The loop whose code is running on this thread; NULL outside. */
struct loop *loop_current(void);
const char *loop_name(const struct loop *loop);

/* Monotonic time in nanoseconds, as of now (not cached). Current loop. */
uint64_t loop_now_ns(void);
/* Wall clock in microseconds since the epoch, for time stamps only. */
uint64_t loop_wall_clock_us(void);
/* Fills `buffer` with random bytes, good enough for identifiers. */
void loop_random(void *buffer, size_t bytes);

/*
 * Messages between threads: `run` is called once on the target's thread, later,
 * never from inside loop_post(), in the order posted by any one thread. The
 * caller owns the message and keeps it alive until `run` is called; `run` may
 * free it. Any thread.
 */
struct loop_message {
    struct loop_message *next; /* the mailbox's */
    void (*run)(struct loop_message *message);
};

void loop_post(struct loop *target, struct loop_message *message);

/*
 * Timers. Embedded by the caller; `fire` is called once, on the loop's thread,
 * at or after `deadline_ns`, unless cancelled first. Only from the thread of
 * the loop that is current. Cancelling an idle timer does nothing.
 */
struct loop_timer {
    uint64_t deadline_ns; /* monotonic */
    void (*fire)(struct loop_timer *timer);
    struct loop *loop; /* NULL while idle */
    size_t heap_index; /* the loop's */
    uint64_t order;    /* the loop's: equal deadlines fire in this order */
};

void loop_timer_init(struct loop_timer *timer,
                     void (*fire)(struct loop_timer *timer));
void loop_timer_start(struct loop_timer *timer, uint64_t deadline_ns);
void loop_timer_cancel(struct loop_timer *timer);

/*
 * Pollers: called again and again for a bounded time (adaptive, at most 50 us,
 * none on a machine with one CPU) before an idle loop sleeps in the kernel, so
 * that a request that follows soon is met without a wake-up. Returns true if
 * it found work (and did it, or made a coroutine ready). Current loop only.
 */
struct loop_poller {
    struct list link;
    bool (*poll)(struct loop_poller *poller);
};

void loop_poller_add(struct loop_poller *poller);
void loop_poller_remove(struct loop_poller *poller);

#endif
