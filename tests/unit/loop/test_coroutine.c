/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

static void say_b(void *opaque)
{
    g_string_append(((struct trace *)opaque)->text, "b");
}

static void spawn_then_say(void *opaque)
{
    struct trace *trace = opaque;

    co_spawn(loop_current(), say_b, trace);
    g_string_append(trace->text, "a");
    co_reschedule();
    g_string_append(trace->text, "c");
}

/* co_spawn() on the own loop starts the coroutine later, not inside. */
static void spawn_runs_later(void **state)
{
    struct trace trace = { .text = g_string_new("") };

    (void)state;
    run_in_loop(spawn_then_say, &trace);
    assert_string_equal(trace.text->str, "abc");
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

static void note_self(struct loop_message *message)
{
    assert_null(co_self());
    g_free(message);
    loop_stop(loop_current());
}

/* A plain callback is no coroutine; outside a loop nothing is current. */
static void callbacks_are_not_coroutines(void **state)
{
    struct loop *loop = loop_new(&loop_uring_backend, "test", NULL);
    struct loop_message *message = g_new0(struct loop_message, 1);

    (void)state;
    assert_non_null(loop);
    assert_null(loop_current());
    assert_null(co_self());
    message->run = note_self;
    loop_post(loop, message);
    loop_run(loop);
    assert_null(loop_current());
    loop_free(loop);
}

/* ThreadSanitizer has room for about 8,000 fibers, and takes its time. */
#ifdef __SANITIZE_THREAD__
# define MANY 500
#else
# define MANY 10000
#endif

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

#ifndef __SANITIZE_THREAD__
static void gather_starving_crowd(void *opaque)
{
    struct crowd *crowd = opaque;
    struct rlimit before;
    struct rlimit little;

    getrlimit(RLIMIT_AS, &before);
    little = before;
    little.rlim_cur = 1; /* no new mapping at all */
    setrlimit(RLIMIT_AS, &little);
    for (unsigned i = 0; i < 3; i++) {
        co_enter(join_crowd, crowd);
        co_spawn(loop_current(), join_crowd, crowd);
    }
    setrlimit(RLIMIT_AS, &before);
}

static void wait_for_crowd(void *opaque)
{
    struct crowd *crowd = opaque;

    co_enter(gather_starving_crowd, crowd);
    while (crowd->left < 6) {
        co_queue_wake_all(&crowd->queue);
        co_reschedule();
    }
}

/* Without memory for another stack, new coroutines wait for one to end. */
static void new_coroutines_wait_for_a_stack(void **state)
{
    struct crowd crowd = { .arrived = 0 };

    (void)state;
    co_queue_init(&crowd.queue);
    run_in_loop(wait_for_crowd, &crowd);
    assert_int_equal(crowd.arrived, 6);
}
#endif

static G_NO_INLINE int use_stack(unsigned depth)
{
    volatile char frame[1024];

    int below;

    frame[0] = 1;
    below = depth == 0 ? 0 : use_stack(depth - 1);
    __asm__ volatile("" : : "r"(frame) : "memory"); /* no tail call */
    return below + frame[0];
}

/* Sanitizers make frames larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
# define STACK_FRAMES 60
#else
# define STACK_FRAMES 100
#endif

static void use_much_stack(void *opaque)
{
    *(int *)opaque = use_stack(STACK_FRAMES);
}

/* What the header promises of the stack can be used; so can it again. */
static void stack_is_as_deep_as_promised(void **state)
{
    int result = 0;

    (void)state;
    run_in_loop(use_much_stack, &result);
    run_in_loop(use_much_stack, &result);
    assert_int_equal(result, STACK_FRAMES + 1);
}

static void use_too_much_stack(void *opaque)
{
    *(int *)opaque = use_stack(1024);
}

/* One frame too many hits the guard page, not the neighbour's stack. */
static void stack_overflow_is_caught(void **state)
{
    int result = 0;
    int status = 0;
    pid_t child;

    (void)state;
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit none = { 0, 0 };

        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        run_in_loop(use_too_much_stack, &result);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
}

struct traveller {
    struct loop *loops[2];
    struct co_queue queue; /* of loops[0] */
    unsigned running;
};

static void travel(void *opaque)
{
    struct traveller *traveller = opaque;

    for (unsigned i = 0; i < 200; i++) {
        co_move(traveller->loops[1]);
        assert_ptr_equal(loop_current(), traveller->loops[1]);
        if (i % 3 == 0) {
            co_reschedule();
        }
        co_move(traveller->loops[0]);
        assert_ptr_equal(loop_current(), traveller->loops[0]);
    }
    traveller->running--;
    co_queue_wake_one(&traveller->queue);
}

static void send_travellers(void *opaque)
{
    struct traveller *traveller = opaque;

    traveller->loops[0] = loop_current();
    co_move(loop_current()); /* no-op */
    co_queue_init(&traveller->queue);
    for (traveller->running = 0; traveller->running < 50;) {
        traveller->running++;
        co_enter(travel, traveller);
    }
    while (traveller->running > 0) {
        co_queue_wait(&traveller->queue);
    }
}

/* Moved coroutines find themselves on the other loop, fifty at a time. */
static void move_changes_the_loop(void **state)
{
    struct traveller traveller = { .running = 0 };

    (void)state;
    traveller.loops[1] = loop_thread_start(&loop_uring_backend, "away", NULL);
    assert_non_null(traveller.loops[1]);
    run_in_loop(send_travellers, &traveller);
    loop_thread_join(traveller.loops[1]);
}

struct courier {
    struct loop_message message;
    struct coroutine *coroutine;
};

static void wake_from_there(struct loop_message *message)
{
    struct coroutine *coroutine =
        LIST_ENTRY(message, struct courier, message)->coroutine;

    /* The courier lies on the coroutine's stack: gone after the wake. */
    co_wake(coroutine);
}

static void be_woken_from_afar(void *opaque)
{
    struct loop *away = opaque;

    for (unsigned i = 0; i < 5000; i++) {
        struct courier courier = {
            .message = { .run = wake_from_there },
            .coroutine = co_self(),
        };

        loop_post(away, &courier.message);
        co_yield ();
    }
}

/* Each wake from another thread arrives, however it meets the falling asleep
 * of the loop. */
static void no_wake_from_another_thread_is_lost(void **state)
{
    struct loop *away = loop_thread_start(&loop_uring_backend, "away", NULL);

    (void)state;
    assert_non_null(away);
    run_in_loop(be_woken_from_afar, away);
    loop_thread_join(away);
}

/* Two wakes on their way at once, and the coroutine moves before it yields. */
static void be_followed(void *opaque)
{
    struct loop *home = loop_current();
    struct loop *away = opaque;

    for (unsigned i = 0; i < 500; i++) {
        struct courier couriers[2];

        for (unsigned j = 0; j < 2; j++) {
            couriers[j].message.run = wake_from_there;
            couriers[j].coroutine = co_self();
            loop_post(away, &couriers[j].message);
        }
        co_move(i % 2 == 0 ? away : home);
        co_yield ();
        co_yield ();
    }
    co_move(home);
}

static void wakes_follow_a_moving_coroutine(void **state)
{
    struct loop *away = loop_thread_start(&loop_uring_backend, "away", NULL);

    (void)state;
    assert_non_null(away);
    run_in_loop(be_followed, away);
    loop_thread_join(away);
}

static int return_result(void *opaque)
{
    assert_null(loop_current());
    return *(int *)opaque;
}

struct offloading {
    struct co_queue queue;
    unsigned running;
    int sum;
};

static void offload_one(void *opaque)
{
    struct offloading *offloading = opaque;
    int seven = -7;

    offloading->sum += co_offload(return_result, &seven);
    offloading->running--;
    co_queue_wake_one(&offloading->queue);
}

static void offload_many(void *opaque)
{
    struct offloading *offloading = opaque;

    co_queue_init(&offloading->queue);
    for (unsigned i = 0; i < 100; i++) {
        offloading->running++;
        co_enter(offload_one, offloading);
    }
    while (offloading->running > 0) {
        co_queue_wait(&offloading->queue);
    }
}

/* Many more calls than threads all come back, outside of any loop. */
static void offload_returns_each_result(void **state)
{
    struct offloading offloading = { .sum = 0 };

    (void)state;
    run_in_loop(offload_many, &offloading);
    assert_int_equal(offloading.sum, -700);
}

static void sleep_a_little(void *opaque)
{
    uint64_t deadline_ns = loop_now_ns() + 2000000;

    co_sleep_until(deadline_ns);
    *(bool *)opaque = loop_now_ns() >= deadline_ns;
    co_sleep_until(0);
}

static void sleep_lasts_until_the_deadline(void **state)
{
    bool reached = false;

    (void)state;
    run_in_loop(sleep_a_little, &reached);
    assert_true(reached);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enter_runs_at_once_and_wake_later),
        cmocka_unit_test(spawn_runs_later),
        cmocka_unit_test(early_wakes_are_not_lost),
        cmocka_unit_test(callbacks_are_not_coroutines),
        cmocka_unit_test(many_coroutines_live_at_once),
#ifndef __SANITIZE_THREAD__
        cmocka_unit_test(new_coroutines_wait_for_a_stack),
#endif
        cmocka_unit_test(stack_is_as_deep_as_promised),
        cmocka_unit_test(stack_overflow_is_caught),
        cmocka_unit_test(move_changes_the_loop),
        cmocka_unit_test(no_wake_from_another_thread_is_lost),
        cmocka_unit_test(wakes_follow_a_moving_coroutine),
        cmocka_unit_test(offload_returns_each_result),
        cmocka_unit_test(sleep_lasts_until_the_deadline),
    };

    return cmocka_run_group_tests_name("loop/coroutine", tests, NULL, NULL);
}
