/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers: a binary heap, ordered by deadline and, among equal deadlines, by
 * who was started first. Each timer knows its place, so cancelling one is as
 * cheap as starting it.
 */
#include "loop/loop_priv.h"

static struct loop_timer *timer_at(const struct loop *loop, size_t index)
{
    return g_ptr_array_index(loop->timers, index);
}

static void place(struct loop *loop, struct loop_timer *timer, size_t index)
{
    g_ptr_array_index(loop->timers, index) = timer;
    timer->heap_index = index;
}

static bool earlier(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns
                                            : a->order < b->order;
}

static void move_up(struct loop *loop, struct loop_timer *timer, size_t index)
{
    while (index > 0) {
        struct loop_timer *parent = timer_at(loop, (index - 1) / 2);

        if (!earlier(timer, parent)) {
            break;
        }
        size_t parent_index = parent->heap_index;
        place(loop, parent, index);
        index = parent_index;
    }
    place(loop, timer, index);
}

static void move_down(struct loop *loop, struct loop_timer *timer, size_t index)
{
    size_t count = loop->timers->len;

    for (;;) {
        size_t child = 2 * index + 1;

        if (child + 1 < count &&
            earlier(timer_at(loop, child + 1), timer_at(loop, child))) {
            child++;
        }
        if (child >= count || !earlier(timer_at(loop, child), timer)) {
            break;
        }
        place(loop, timer_at(loop, child), index);
        index = child;
    }
    place(loop, timer, index);
}

void loop_timer_init(struct loop_timer *timer,
                     void (*fire)(struct loop_timer *timer))
{
    *timer = (struct loop_timer){ .fire = fire };
}

void loop_timer_start(struct loop_timer *timer, uint64_t deadline_ns)
{
    struct loop *loop = loop_current();

    loop_timer_cancel(timer);
    timer->deadline_ns = deadline_ns;
    timer->order = loop->timers_started++;
    timer->loop = loop;
    g_ptr_array_add(loop->timers, timer);
    move_up(loop, timer, loop->timers->len - 1);
}

void loop_timer_cancel(struct loop_timer *timer)
{
    struct loop *loop = timer->loop;
    struct loop_timer *last;
    size_t index = timer->heap_index;

    if (loop == NULL) {
        return;
    }
    g_assert(loop == loop_current());
    timer->loop = NULL;
    last = timer_at(loop, loop->timers->len - 1);
    g_ptr_array_set_size(loop->timers, (int)(loop->timers->len - 1));
    if (last == timer) {
        return;
    }
    /* The last one fills the hole, and finds its place from there. */
    if (index > 0 && earlier(last, timer_at(loop, (index - 1) / 2))) {
        move_up(loop, last, index);
    } else {
        move_down(loop, last, index);
    }
}

bool timers_fire(struct loop *loop)
{
    uint64_t started_before = loop->timers_started;
    bool fired = false;
    uint64_t now_ns;

    if (loop->timers->len == 0) {
        return false;
    }
    now_ns = loop->backend->now_ns(loop->backend_state);
    while (loop->timers->len > 0) {
        struct loop_timer *timer = timer_at(loop, 0);

        /* One that a firing timer started has its turn next time. */
        if (timer->deadline_ns > now_ns || timer->order >= started_before) {
            break;
        }
        loop_timer_cancel(timer);
        timer->fire(timer);
        fired = true;
    }
    return fired;
}

uint64_t timers_next_deadline_ns(const struct loop *loop)
{
    return loop->timers->len > 0 ? timer_at(loop, 0)->deadline_ns : UINT64_MAX;
}
