/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Coroutines: code that waits and still reads top to bottom.
 *
 * A coroutine has a stack of its own (from a pool, with a guard page below) and
 * belongs to one loop at a time. It runs until it yields; then it continues
 * when someone wakes it. There is no preemption, so between two yields a
 * coroutine has its loop's data to itself.
 *
 * The one rule of waiting: for each co_yield() there is exactly one co_wake().
 * A wake never runs the coroutine itself; it queues it on its loop, so a wake
 * that happens before the yield is not lost. What waits for more than one
 * thing at once uses co_queue_wait_until() (loop/co_lock.h).
 *
 * After a move the thread is another one. A pointer to thread-local data must
 * not be kept across a yield, and that goes for errno: a function that reads it
 * must not be one that yields (nor be inlined into one).
 *
 * Functions that may yield carry `co_` in their name and are called from
 * coroutines only.
 */
#ifndef LOOP_COROUTINE_H
#define LOOP_COROUTINE_H

#include <stdbool.h>
#include <stdint.h>

#include "loop/loop.h"

/* Usable stack of a coroutine. Keep large buffers off it. */
#define COROUTINE_STACK_BYTES (128 * 1024)

struct coroutine;
typedef void (*coroutine_fn)(void *opaque);

/* Starts `run(opaque)` in a new coroutine on `loop`, soon. Any thread. */
void co_spawn(struct loop *loop, coroutine_fn run, void *opaque);

/* Starts it on the current loop at once: returns when it first yields or ends.
 * From a coroutine or a plain callback. The data path's way. */
void co_enter(coroutine_fn run, void *opaque);

/* The running coroutine; NULL in a plain callback. */
struct coroutine *co_self(void);

/* Gives up the thread until co_wake(). Never keeps it, even if woken before. */
void co_yield (void);

/* Makes `coroutine` ready to continue on its loop. Any thread. */
void co_wake(struct coroutine *coroutine);

/* Lets everything else that is ready run first, then continues. */
void co_reschedule(void);

/* Continues on another loop's thread (no-op when already there). */
void co_move(struct loop *target);

/* Sleeps until the monotonic time `deadline_ns`. */
void co_sleep_until(uint64_t deadline_ns);

/* Runs `call(opaque)` on a thread that may block (for what io_uring has no
 * operation for) and waits for its result. No locks of the loop may be needed
 * by `call`; it sees nothing of the loop. */
int co_offload(int (*call)(void *opaque), void *opaque);

#endif
