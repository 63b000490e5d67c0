/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting for reads that have begun. */
#include "block_test.h"

#include "block/node_priv.h"

struct reading {
    struct block_node *node;
    bool over;
};

static void co_read(void *opaque)
{
    struct reading *reading = opaque;
    char byte;

    assert_int_equal(co_block_pread(reading->node, 0, 1, &byte), 0);
    reading->over = true;
}

/* A read of a "memory" yields once, so it is under way when spawned this way. */
static void start(struct reading *reading, struct block_node *node)
{
    *reading = (struct reading){ .node = node };
    co_enter(co_read, reading);
    assert_false(reading->over);
}

static void co_waits(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *node =
        co_add(graph, "overlay,node-name=overlay,backing=base");
    struct reading first;
    struct reading second;

    (void)opaque;
    (void)base;
    block_watch_reads(node);
    co_block_wait_for_reads(node); /* there are none */
    start(&first, node);
    co_block_wait_for_reads(node);
    assert_true(first.over);
    start(&first, node);
    start(&second, node);
    co_block_wait_for_reads(node);
    assert_true(first.over && second.over);
    block_unwatch_reads(node);
}

static void reads_that_have_begun_are_waited_for(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_waits, NULL);
}

struct waiter {
    struct block_node *node;
    struct reading *before;
    bool over;
};

static void co_wait(void *opaque)
{
    struct waiter *waiter = opaque;

    co_block_wait_for_reads(waiter->node);
    assert_true(waiter->before->over);
    waiter->over = true;
}

static void co_two_wait(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add(graph, "memory,node-name=memory");
    struct reading early;
    struct reading late;
    struct waiter one = { .node = node, .before = &early };
    struct waiter two = { .node = node, .before = &late };

    (void)opaque;
    block_watch_reads(node);
    start(&early, node);
    co_enter(co_wait, &one);
    assert_false(one.over);
    start(&late, node);
    co_enter(co_wait, &two);
    while (!two.over) {
        co_reschedule();
    }
    assert_true(one.over);
    block_unwatch_reads(node);
}

static void two_can_wait_at_once(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_two_wait, NULL);
}

struct late_reader {
    struct block_node *node;
    unsigned int *reader;
};

static void co_read_later(void *opaque)
{
    struct late_reader *late = opaque;

    co_queue_wait(&late->node->readers.ended);
    late->reader = block_reader_begin(late->node);
}

static void co_wait_for_early_ones(void *opaque)
{
    bool *over = ((void **)opaque)[1];

    co_block_wait_for_reads(((void **)opaque)[0]);
    *over = true;
}

/* Two wait for the same reads; when these have ended the one goes on first, and
 * with it a new read begins, before the other has looked. */
static void co_reads_go_on(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add(graph, "memory,node-name=memory");
    struct late_reader late = { .node = node };
    bool over[3] = { false };
    void *waiters[3][2];
    unsigned int *first;
    unsigned int *second;

    (void)opaque;
    for (int i = 0; i < 3; i++) {
        waiters[i][0] = node;
        waiters[i][1] = &over[i];
    }
    block_watch_reads(node);
    first = block_reader_begin(node);
    co_enter(co_wait_for_early_ones, waiters[0]);
    second = block_reader_begin(node);
    co_enter(co_wait_for_early_ones, waiters[1]);
    co_enter(co_read_later, &late);
    co_enter(co_wait_for_early_ones, waiters[2]);
    block_reader_end(node, first);
    while (late.reader == NULL) {
        co_reschedule();
    }
    block_reader_end(node, second);
    for (int i = 0; i < 10; i++) {
        co_reschedule();
    }
    assert_true(over[0] && over[1] && over[2]);
    block_reader_end(node, late.reader);
    block_unwatch_reads(node);
}

static void reads_that_begin_later_are_not_waited_for(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_reads_go_on, NULL);
}

static void co_fails(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add(graph, "memory,node-name=memory");
    char byte = 0;
    struct iovec iov = { &byte, 1 };

    (void)opaque;
    block_set_read_error(node, -5);
    assert_int_equal(co_block_pread(node, 0, 1, &byte), -5);
    assert_int_equal(block_try_preadv(node, 0, 1, &iov, 1), -5);
    assert_int_equal(co_block_pwrite(node, 0, 1, "x", 0), 0);
}

static void what_is_no_longer_true_cannot_be_read(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_fails, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_that_have_begun_are_waited_for),
        cmocka_unit_test(two_can_wait_at_once),
        cmocka_unit_test(reads_that_begin_later_are_not_waited_for),
        cmocka_unit_test(what_is_no_longer_true_cannot_be_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
