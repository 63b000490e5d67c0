/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues and the mutex. A waiter lies on its coroutine's stack; whoever takes
 * it off the queue, a waker or its timer, is the one that wakes it. The mutex
 * is handed over locked, so nobody overtakes the queue.
 */
#include "loop/co_lock.h"

struct waiter {
    struct list link;
    struct coroutine *coroutine;
    struct loop_timer timer;
    bool timed_out;
};

void co_queue_init(struct co_queue *queue)
{
    list_init(&queue->waiters);
}

bool co_queue_is_empty(const struct co_queue *queue)
{
    return list_is_empty(&queue->waiters);
}

static void waiter_timed_out(struct loop_timer *timer)
{
    struct waiter *waiter = LIST_ENTRY(timer, struct waiter, timer);

    list_remove(&waiter->link);
    waiter->timed_out = true;
    co_wake(waiter->coroutine);
}

bool co_queue_wait_until(struct co_queue *queue, uint64_t deadline_ns)
{
    struct waiter waiter = { .coroutine = co_self() };

    loop_timer_init(&waiter.timer, waiter_timed_out);
    if (deadline_ns != UINT64_MAX) {
        loop_timer_start(&waiter.timer, deadline_ns);
    }
    list_append(&queue->waiters, &waiter.link);
    co_yield ();
    return !waiter.timed_out;
}

void co_queue_wait(struct co_queue *queue)
{
    (void)co_queue_wait_until(queue, UINT64_MAX); /* always true */
}

void co_queue_wake_one(struct co_queue *queue)
{
    struct list *link = list_take_first(&queue->waiters);
    struct waiter *waiter;

    if (link != NULL) {
        waiter = LIST_ENTRY(link, struct waiter, link);
        loop_timer_cancel(&waiter->timer);
        co_wake(waiter->coroutine);
    }
}

void co_queue_wake_all(struct co_queue *queue)
{
    while (!co_queue_is_empty(queue)) {
        co_queue_wake_one(queue);
    }
}

void co_mutex_init(struct co_mutex *mutex)
{
    mutex->locked = false;
    co_queue_init(&mutex->waiters);
}

void co_mutex_lock(struct co_mutex *mutex)
{
    if (!mutex->locked) {
        mutex->locked = true;
        return;
    }
    co_queue_wait(&mutex->waiters);
    g_assert(mutex->locked);
}

void co_mutex_unlock(struct co_mutex *mutex)
{
    g_assert(mutex->locked);
    if (co_queue_is_empty(&mutex->waiters)) {
        mutex->locked = false;
    } else {
        co_queue_wake_one(&mutex->waiters);
    }
}
