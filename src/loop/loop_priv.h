/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of this room share: the loop itself, and its parts.
 *
 * Everything here belongs to the loop's thread, except the mailbox and `stop`.
 */
#ifndef LOOP_LOOP_PRIV_H
#define LOOP_LOOP_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "loop/backend.h"
#include "loop/context.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* Messages from any thread, first in, first out. The lock is held while a
 * sleeper is woken, so that a poster is done with the loop before the message
 * can run, and with it whatever frees the loop. */
struct mailbox {
    pthread_mutex_t lock;
    struct loop_message *first;
    struct loop_message **end;
    bool asleep;          /* the loop sleeps, or is about to */
    atomic_bool has_mail; /* first != NULL, for a look without the lock */
};

/* Ended coroutines kept for the next ones. */
#define COROUTINE_POOL_MAX 256

struct coroutine_set {
    struct list pool; /* ended, with their stacks */
    size_t pooled;
    size_t alive;        /* neither ended nor moved away */
    struct list starved; /* struct spawn, waiting for a stack */
};

struct loop {
    const struct loop_backend *backend;
    void *backend_state;
    char *name;
    pthread_t thread; /* loop_thread_start()'s */

    struct context context; /* of loop_run() itself */
    struct coroutine *running;
    struct list ready; /* coroutines, in the order they became ready */
    size_t ready_count;
    struct coroutine_set coroutines;

    GPtrArray *timers; /* a binary heap, earliest first */
    uint64_t timers_started;

    struct list pollers;
    bool may_spin;
    uint64_t spin_ns;

    struct mailbox mailbox;
    atomic_bool stop;
};

/* Is there something that can run without waiting for the kernel? */
bool loop_has_work(const struct loop *loop);

/* A thread that leaves all signals to others. 0 or a negative errno. */
int loop_thread_create(pthread_t *ret_thread,
                       void *(*run)(void *opaque),
                       void *opaque);

/* mailbox.c. True if a message ran. */
void mailbox_init(struct mailbox *mailbox);
void mailbox_release(struct mailbox *mailbox);
bool mailbox_deliver(struct loop *loop);
/* False when there is mail, or a stop: do not sleep. Else whoever posts from
 * now on wakes the backend. */
bool mailbox_sleep_begin(struct loop *loop);
void mailbox_sleep_end(struct loop *loop);
/* Wakes the loop without a message. Any thread. */
void mailbox_knock(struct loop *loop);

/* timer.c */
bool timers_fire(struct loop *loop);
uint64_t timers_next_deadline_ns(const struct loop *loop);

/* poller.c. True if work was found while spinning. */
bool pollers_spin(struct loop *loop, uint64_t idle_since_ns);
void pollers_learn(struct loop *loop, uint64_t idle_since_ns);

/* coroutine.c */
void coroutines_init(struct coroutine_set *set);
void coroutines_release(struct loop *loop);
/* Notes a call that did not need to wait; after many in a row without a yield,
 * lets the others run. */
void co_burst(void);
/* Runs what was ready when called (with a chooser: one). True if any was. */
bool coroutines_run_ready(struct loop *loop);

#endif
