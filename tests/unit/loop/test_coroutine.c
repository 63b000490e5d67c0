/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

/* A trace of who ran when. */
struct trace {
    GString *text;
    struct coroutine *waiting;
};

static void say_and_yield(void *opaque)
{
    struct trace *trace = opaque;

    g_string_append(trace->text, "a");
    trace->waiting = co_self();
    co_yield ();
    g_string_append(trace->text, "c");
}

static void enter_then_wake(void *opaque)
{
    struct trace *trace = opaque;

    co_enter(say_and_yield, trace);
    g_string_append(trace->text, "b");
    co_wake(trace->waiting);
    g_string_append(trace->text, "-");
    co_reschedule();
    g_string_append(trace->text, "d");
}

/* co_enter() runs the coroutine up to its first yield; a wake only queues it. */
static void enter_runs_at_once_and_wake_later(void **state)
{
    struct trace trace = { .text = g_string_new("") };

    (void)state;
    run_in_loop(enter_then_wake, &trace);
    assert_string_equal(trace.text->str, "ab-cd");
    g_string_free(trace.text, true);
}

static void wake_self_twice(void *opaque)
{
    int *yields = opaque;

    co_wake(co_self());
    co_wake(co_self());
    co_yield ();
    ++*yields;
    co_yield ();
    ++*yields;
}

/* Wakes that come before their yields are all kept. */
static void early_wakes_are_not_lost(void **state)
{
    int yields = 0;

    (void)state;
    run_in_loop(wake_self_twice, &yields);
    assert_int_equal(yields, 2);
}

#define MANY 10000

struct crowd {
    struct co_queue queue;
    unsigned arrived;
    unsigned left;
};

static void join_crowd(void *opaque)
{
    struct crowd *crowd = opaque;

    crowd->arrived++;
    co_queue_wait(&crowd->queue);
    crowd->left++;
}

static void gather_crowd(void *opaque)
{
    struct crowd *crowd = opaque;

    for (unsigned i = 0; i < MANY; i++) {
        co_enter(join_crowd, crowd);
    }
    assert_int_equal(crowd->arrived, MANY);
    co_queue_wake_all(&crowd->queue);
    co_reschedule();
    assert_int_equal(crowd->left, MANY);
}

/* Ten thousand coroutines wait at once, each on a stack of its own. */
static void many_coroutines_live_at_once(void **state)
{
    struct crowd crowd = { .arrived = 0 };

    (void)state;
    co_queue_init(&crowd.queue);
    run_in_loop(gather_crowd, &crowd);
}

struct traveller {
    struct loop *home;
    struct loop *away;
    unsigned trips;
    pthread_t home_thread;
    pthread_t away_thread;
};

static void travel(void *opaque)
{
    struct traveller *traveller = opaque;

    traveller->home = loop_current();
    for (unsigned i = 0; i < 100; i++) {
        co_move(traveller->away);
        assert_ptr_equal(loop_current(), traveller->away);
        co_move(traveller->home);
        assert_ptr_equal(loop_current(), traveller->home);
        traveller->trips++;
    }
}

/* A moved coroutine finds itself on the other loop, and comes back. */
static void move_changes_the_loop(void **state)
{
    struct traveller traveller = { .trips = 0 };

    (void)state;
    traveller.away = loop_thread_start(&loop_uring_backend, "away", NULL);
    assert_non_null(traveller.away);
    run_in_loop(travel, &traveller);
    loop_thread_join(traveller.away);
    assert_int_equal(traveller.trips, 100);
}

static int return_seven(void *opaque)
{
    return *(int *)opaque + 3;
}

static void offload_some(void *opaque)
{
    int four = 4;

    *(int *)opaque = co_offload(return_seven, &four);
}

static void offload_returns_the_result(void **state)
{
    int result = 0;

    (void)state;
    run_in_loop(offload_some, &result);
    assert_int_equal(result, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enter_runs_at_once_and_wake_later),
        cmocka_unit_test(early_wakes_are_not_lost),
        cmocka_unit_test(many_coroutines_live_at_once),
        cmocka_unit_test(move_changes_the_loop),
        cmocka_unit_test(offload_returns_the_result),
    };

    return cmocka_run_group_tests_name("loop/coroutine", tests, NULL, NULL);
}
