/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

/* A coroutine with a letter, which it appends when it gets what it waits for. */
struct scene {
    GString *text;
    struct co_queue queue;
    struct co_mutex mutex;
    struct range_lock ranges;
};

struct actor {
    struct scene *scene;
    char letter;
    uint64_t deadline_ns;
    uint64_t offset;
    uint64_t bytes;
};

static void play(coroutine_fn run, const char *expected)
{
    struct scene scene = { .text = g_string_new("") };

    co_queue_init(&scene.queue);
    co_mutex_init(&scene.mutex);
    range_lock_init(&scene.ranges);
    run_in_loop(run, &scene);
    assert_string_equal(scene.text->str, expected);
    assert_true(list_is_empty(&scene.ranges.holds));
    assert_true(co_queue_is_empty(&scene.queue));
    g_string_free(scene.text, true);
}

static void wait_in_queue(void *opaque)
{
    struct actor *actor = opaque;

    co_queue_wait(&actor->scene->queue);
    g_string_append_c(actor->scene->text, actor->letter);
}

static void wake_in_turn(void *opaque)
{
    struct scene *scene = opaque;
    struct actor actors[] = { { scene, 'a', 0, 0, 0 },
                              { scene, 'b', 0, 0, 0 },
                              { scene, 'c', 0, 0, 0 } };

    co_queue_wake_one(&scene->queue); /* nobody: no effect */
    for (size_t i = 0; i < G_N_ELEMENTS(actors); i++) {
        co_enter(wait_in_queue, &actors[i]);
    }
    assert_false(co_queue_is_empty(&scene->queue));
    co_queue_wake_one(&scene->queue);
    co_reschedule();
    g_string_append(scene->text, "-");
    co_queue_wake_all(&scene->queue);
    co_reschedule();
}

static void queue_wakes_in_order_of_arrival(void **state)
{
    (void)state;
    play(wake_in_turn, "a-bc");
}

static void wait_with_deadline(void *opaque)
{
    struct actor *actor = opaque;
    bool woken = co_queue_wait_until(&actor->scene->queue, actor->deadline_ns);

    g_string_append_c(actor->scene->text,
                      woken ? g_ascii_toupper(actor->letter) : actor->letter);
}

static void miss_deadlines(void *opaque)
{
    struct scene *scene = opaque;
    uint64_t now_ns = loop_now_ns();
    struct actor actors[] = {
        { scene, 'a', now_ns + 3000000, 0, 0 },
        { scene, 'b', now_ns + 1000000, 0, 0 },
        { scene, 'c', now_ns + UINT64_C(3600000000000), 0, 0 },
        { scene, 'd', UINT64_MAX, 0, 0 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(actors); i++) {
        co_enter(wait_with_deadline, &actors[i]);
    }
    co_sleep_until(now_ns + 5000000);
    g_string_append(scene->text, "-");
    size_t left = 0;
    LIST_FOREACH(link, &scene->queue.waiters) {
        left++;
    }
    assert_int_equal(left, 2);
    co_queue_wake_all(&scene->queue);
    co_reschedule();
}

/* Who times out leaves the queue; the others are woken as ever. */
static void queue_waits_end_at_their_deadline(void **state)
{
    (void)state;
    play(miss_deadlines, "ba-CD");
}

static void lock_and_yield(void *opaque)
{
    struct actor *actor = opaque;

    co_mutex_lock(&actor->scene->mutex);
    g_string_append_c(actor->scene->text, actor->letter);
    co_reschedule();
    g_string_append_c(actor->scene->text, actor->letter);
    co_mutex_unlock(&actor->scene->mutex);
}

static void contend(void *opaque)
{
    struct scene *scene = opaque;
    struct actor actors[] = { { scene, 'a', 0, 0, 0 },
                              { scene, 'b', 0, 0, 0 },
                              { scene, 'c', 0, 0, 0 } };

    for (size_t i = 0; i < G_N_ELEMENTS(actors); i++) {
        co_enter(lock_and_yield, &actors[i]);
    }
    /* Comes last, though the mutex gets free meanwhile. */
    co_mutex_lock(&scene->mutex);
    g_string_append(scene->text, "-");
    co_mutex_unlock(&scene->mutex);
    assert_false(scene->mutex.locked);
}

static void mutex_serves_in_order_of_arrival(void **state)
{
    (void)state;
    play(contend, "aabbcc-");
}

static void hold_range(void *opaque)
{
    struct actor *actor = opaque;
    struct range_hold hold;

    co_range_lock(&actor->scene->ranges, &hold, actor->offset, actor->bytes);
    g_string_append_c(actor->scene->text, actor->letter);
    co_queue_wait(&actor->scene->queue);
    g_string_append_c(actor->scene->text, g_ascii_toupper(actor->letter));
    range_unlock(&actor->scene->ranges, &hold);
}

/* c overlaps only b, which waits for a: c waits too. d is free. */
static void overlap_ranges(void *opaque)
{
    struct scene *scene = opaque;
    struct actor actors[] = {
        { scene, 'a', 0, 0, 100 },  { scene, 'b', 0, 50, 100 },
        { scene, 'c', 0, 140, 10 }, { scene, 'd', 0, 200, UINT64_MAX - 200 },
        { scene, 'e', 0, 60, 0 },
    };
    struct range_hold hold;

    for (size_t i = 0; i < G_N_ELEMENTS(actors); i++) {
        co_enter(hold_range, &actors[i]);
    }
    assert_string_equal(scene->text->str, "ade");
    assert_false(range_lock_is_free(&scene->ranges, 0, 1));
    assert_false(range_lock_is_free(&scene->ranges, UINT64_MAX - 1, 1));
    assert_false(range_lock_try(&scene->ranges, &hold, 145, 1));
    assert_true(range_lock_is_free(&scene->ranges, 150, 50));
    assert_true(range_lock_try(&scene->ranges, &hold, 150, 50));
    range_unlock(&scene->ranges, &hold);
    while (!list_is_empty(&scene->ranges.holds)) {
        co_queue_wake_one(&scene->queue);
        co_reschedule();
        co_reschedule();
    }
}

static void ranges_wait_for_earlier_overlapping_ones(void **state)
{
    (void)state;
    play(overlap_ranges, "adeAbDEBcC");
}

static void pass_by(void *opaque)
{
    struct actor *actor = opaque;
    struct range_hold hold;

    co_range_lock(&actor->scene->ranges, &hold, actor->offset, actor->bytes);
    g_string_append_c(actor->scene->text, actor->letter);
    co_reschedule();
    range_unlock(&actor->scene->ranges, &hold);
}

/* A stream of small holds does not overtake the wide one. */
static void crowd_a_wide_range(void *opaque)
{
    struct scene *scene = opaque;
    struct actor actors[] = {
        { scene, 'a', 0, 0, 10 },  { scene, 'b', 0, 10, 10 },
        { scene, 'W', 0, 0, 100 }, { scene, 'c', 0, 20, 10 },
        { scene, 'd', 0, 0, 10 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(actors); i++) {
        co_enter(pass_by, &actors[i]);
    }
    while (!list_is_empty(&scene->ranges.holds)) {
        co_reschedule();
    }
}

static void small_ranges_do_not_overtake_a_wide_one(void **state)
{
    (void)state;
    play(crowd_a_wide_range, "abWcd");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queue_wakes_in_order_of_arrival),
        cmocka_unit_test(queue_waits_end_at_their_deadline),
        cmocka_unit_test(mutex_serves_in_order_of_arrival),
        cmocka_unit_test(ranges_wait_for_earlier_overlapping_ones),
        cmocka_unit_test(small_ranges_do_not_overtake_a_wide_one),
    };

    return cmocka_run_group_tests_name("loop/lock", tests, NULL, NULL);
}
