/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What coroutines of one loop wait on: queues, a mutex, ranges.
 *
 * None of these locks out another thread: all users of one object run on the
 * same loop. All are embedded; all waiters are served first come, first served.
 */
#ifndef LOOP_CO_LOCK_H
#define LOOP_CO_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "loop/coroutine.h"

/* A queue of waiting coroutines, without a condition of its own: callers wait
 * in a loop over their condition. */
struct co_queue {
    struct list waiters;
};

void co_queue_init(struct co_queue *queue);
bool co_queue_is_empty(const struct co_queue *queue);
void co_queue_wait(struct co_queue *queue);
/* Returns false when `deadline_ns` passed first. UINT64_MAX: no deadline. */
bool co_queue_wait_until(struct co_queue *queue, uint64_t deadline_ns);
/* Wake the first, or all that wait now. From any callback or coroutine of the
 * queue's loop. */
void co_queue_wake_one(struct co_queue *queue);
void co_queue_wake_all(struct co_queue *queue);

struct co_mutex {
    bool locked;
    struct co_queue waiters;
};

void co_mutex_init(struct co_mutex *mutex);
void co_mutex_lock(struct co_mutex *mutex);
void co_mutex_unlock(struct co_mutex *mutex);

/* Exclusive locks on byte ranges: a hold waits for every overlapping hold that
 * came before it. The hold is embedded by the caller (its stack is fine). */
struct range_lock {
    struct list holds; /* in order of arrival */
};

struct range_hold {
    struct list link;
    uint64_t offset;
    uint64_t bytes;
    struct co_queue waiters; /* for this hold to end */
};

void range_lock_init(struct range_lock *lock);
bool range_lock_is_free(const struct range_lock *lock,
                        uint64_t offset,
                        uint64_t bytes);
/* Takes the range without waiting; false: someone is in the way. */
bool range_lock_try(struct range_lock *lock,
                    struct range_hold *hold,
                    uint64_t offset,
                    uint64_t bytes);
void co_range_lock(struct range_lock *lock,
                   struct range_hold *hold,
                   uint64_t offset,
                   uint64_t bytes);
void range_unlock(struct range_lock *lock, struct range_hold *hold);

#endif
