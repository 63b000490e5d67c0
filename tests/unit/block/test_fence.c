/* SPDX-License-Identifier: BSD-3-Clause */
/* Fences, drains and hooks: what is held, what goes on, in which order. */
#include "block_test.h"

#include <errno.h>
#include <string.h>

#define FENCE_TEST(name)                                         \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(test_drivers, 0, co_##name, NULL);                \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

/* A write of one byte in a coroutine of its own; tells when it has ended. */
struct one_write {
    struct block_node *node;
    char name;
    GString *trace;
    bool is_read;
    bool ended;
    int result;
};

static void co_one_write(void *opaque)
{
    struct one_write *write = opaque;
    uint8_t byte = 1;

    write->result = write->is_read
                        ? co_block_pread(write->node, 0, 1, &byte)
                        : co_block_pwrite(write->node, 0, 1, &byte, 0);
    write->ended = true;
    if (write->trace != NULL) {
        g_string_append_c(write->trace, write->name);
    }
}

static void settle(void)
{
    for (int i = 0; i < 50; i++) {
        co_reschedule();
    }
}

/* A fence holds new writes, lets reads pass, and held writes go on in order
 * with nobody overtaking. */
FENCE_TEST(held_writes_go_on_in_order)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");
    GString *trace = g_string_new("");
    struct one_write writes[6];
    struct one_write read = { .node = node, .is_read = true };
    uint8_t byte = 1;
    struct iovec iov = { &byte, 1 };

    (void)opaque;
    assert_int_equal(co_block_fence(node, UINT64_MAX), 0);
    for (int i = 0; i < 5; i++) {
        writes[i] = (struct one_write){ node, (char)('a' + i), trace, 0, 0, 0 };
        co_enter(co_one_write, &writes[i]);
    }
    co_enter(co_one_write, &read);
    settle();
    assert_true(read.ended);
    assert_string_equal(trace->str, "");
    assert_int_equal(block_try_pwritev(node, 0, 1, &iov, 1), -EAGAIN);
    block_unfence(node);
    /* Open again, but the ones that waited come first. */
    assert_int_equal(block_try_pwritev(node, 0, 1, &iov, 1), -EAGAIN);
    writes[5] = (struct one_write){ node, 'f', trace, 0, 0, 0 };
    co_enter(co_one_write, &writes[5]);
    settle();
    assert_string_equal(trace->str, "abcdef");
    assert_int_equal(block_try_pwritev(node, 0, 1, &iov, 1), 0);
    g_string_free(trace, TRUE);
}

/* Fences nest; one that closes again before the held ones ran holds them. */
FENCE_TEST(fences_nest)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");
    GString *trace = g_string_new("");
    struct one_write a = { .node = node, .name = 'a', .trace = trace };
    struct one_write b = { .node = node, .name = 'b', .trace = trace };

    (void)opaque;
    assert_int_equal(co_block_fence(node, UINT64_MAX), 0);
    assert_int_equal(co_block_fence(node, UINT64_MAX), 0);
    co_enter(co_one_write, &a);
    co_enter(co_one_write, &b);
    block_unfence(node);
    settle();
    assert_false(a.ended);
    block_unfence(node);
    assert_int_equal(co_block_fence(node, UINT64_MAX), 0);
    settle();
    assert_false(a.ended);
    block_unfence(node);
    settle();
    assert_string_equal(trace->str, "ab");
    g_string_free(trace, TRUE);
}

/* A fence waits for the write under way; past its deadline it says so and
 * stays closed. */
FENCE_TEST(a_hung_write_meets_the_deadline)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");
    struct memory_state *memory = memory_of(node);
    struct one_write hung = { .node = node };
    struct one_write late = { .node = node };

    (void)opaque;
    memory->hold_writes = true;
    co_enter(co_one_write, &hung);
    settle();
    assert_int_equal(co_block_fence(node, loop_now_ns() + 1000 * 1000),
                     -ETIMEDOUT);
    co_enter(co_one_write, &late);
    memory->hold_writes = false;
    co_queue_wake_all(&memory->held);
    settle();
    assert_true(hung.ended);
    assert_false(late.ended);
    block_unfence(node);
    settle();
    assert_true(late.ended);
    assert_int_equal(co_block_fence(node, 0), 0);
    block_unfence(node);
}

/* What a driver does behind its requests' back holds up a drain, not a fence. */
FENCE_TEST(a_drain_waits_for_the_background)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");

    (void)opaque;
    block_background_begin(node);
    assert_int_equal(co_block_fence(node, 0), 0);
    block_unfence(node);
    assert_int_equal(co_block_drain(node, loop_now_ns() + 1000 * 1000),
                     -ETIMEDOUT);
    block_background_end(node);
    assert_int_equal(co_block_drain(node, 0), 0);
    block_undrain(node);
    block_undrain(node);
}

/* A write through the parent counts as under way in the child, and a fence of
 * the child holds it before it starts. */
FENCE_TEST(a_childs_fence_sees_the_parents_writes)
{
    struct block_node *top =
        co_add(graph, "filter,node-name=f,file.driver=memory,file.node-name=m");
    struct block_node *child = block_find(graph, "m", NULL);
    struct memory_state *memory = memory_of(child);
    struct one_write first = { .node = top };
    struct one_write second = { .node = top };

    (void)opaque;
    memory->hold_writes = true;
    co_enter(co_one_write, &first);
    settle();
    assert_int_equal(co_block_fence(child, 0), -ETIMEDOUT);
    memory->hold_writes = false;
    co_queue_wake_all(&memory->held);
    settle();
    co_enter(co_one_write, &second);
    settle();
    assert_true(first.ended);
    assert_int_equal(memory->writes, 1);
    /* Parent and child both fenced: no deadlock, and both must open. */
    assert_int_equal(co_block_fence(top, UINT64_MAX), 0);
    block_unfence(child);
    settle();
    assert_false(second.ended);
    block_unfence(top);
    settle();
    assert_true(second.ended);
}

/* A drain holds reads, too. */
FENCE_TEST(a_drain_holds_everything)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");
    struct one_write read = { .node = node, .is_read = true };
    struct one_write write = { .node = node };

    (void)opaque;
    assert_int_equal(co_block_drain(node, UINT64_MAX), 0);
    co_enter(co_one_write, &read);
    co_enter(co_one_write, &write);
    settle();
    assert_false(read.ended || write.ended);
    block_undrain(node);
    settle();
    assert_true(read.ended && write.ended);
}

/* A hook that says its name, and may be told to wait, fail or go away. */
struct test_hook {
    struct block_hook hook;
    char name;
    GString *trace;
    bool must_wait;
    bool go_away;
    int error;
    uint64_t offset;
    bool closed;
};

static bool try_test_hook(struct block_hook *hook,
                          uint64_t offset,
                          uint64_t bytes)
{
    struct test_hook *self = LIST_ENTRY(hook, struct test_hook, hook);

    (void)bytes;
    self->offset = offset;
    g_string_append_c(self->trace, self->name);
    return !self->must_wait;
}

static int co_test_hook(struct block_hook *hook,
                        uint64_t offset,
                        uint64_t bytes)
{
    struct test_hook *self = LIST_ENTRY(hook, struct test_hook, hook);

    (void)offset;
    (void)bytes;
    co_reschedule();
    g_string_append_c(self->trace, (char)(self->name - 'a' + 'A'));
    if (self->go_away) {
        block_hook_remove(hook);
    }
    return self->error;
}

static void close_test_hook(struct block_hook *hook, struct block_node *node)
{
    (void)node;
    LIST_ENTRY(hook, struct test_hook, hook)->closed = true;
}

static void test_hook_add(struct block_node *node,
                          struct test_hook *hook,
                          enum block_hook_stage stage,
                          char name,
                          GString *trace)
{
    *hook = (struct test_hook){ .name = name, .trace = trace };
    hook->hook.stage = stage;
    hook->hook.try_before_write = try_test_hook;
    hook->hook.co_before_write = co_test_hook;
    hook->hook.node_closing = close_test_hook;
    block_hook_add(node, &hook->hook);
}

/* Hooks run in stage order before anything is written, for each kind of
 * change; a failing one fails the write. */
FENCE_TEST(hooks_run_in_stage_order)
{
    struct block_node *node = co_add(graph, "memory,node-name=m,discard=unmap");
    GString *trace = g_string_new("");
    struct test_hook hooks[4];
    uint8_t byte = 1;
    struct iovec iov = { &byte, 1 };

    (void)opaque;
    test_hook_add(node, &hooks[2], BLOCK_HOOK_COPY, 'c', trace);
    test_hook_add(node, &hooks[0], BLOCK_HOOK_INTENT, 'a', trace);
    test_hook_add(node, &hooks[1], BLOCK_HOOK_BITMAP, 'b', trace);
    test_hook_add(node, &hooks[3], BLOCK_HOOK_COPY, 'd', trace);
    assert_ptr_equal(block_hook_find(node, BLOCK_HOOK_BITMAP), &hooks[1].hook);
    assert_ptr_equal(block_hook_find(node, BLOCK_HOOK_COPY), &hooks[2].hook);

    assert_int_equal(block_try_pwritev(node, 0, 1, &iov, 1), 0);
    assert_int_equal(co_block_write_zeroes(node, 0, 1, 0), 0);
    assert_string_equal(trace->str, "abcdabcd");

    /* One that must wait: the fast way gives up, the slow one begins again. */
    g_string_truncate(trace, 0);
    hooks[1].must_wait = true;
    assert_int_equal(block_try_pwritev(node, 0, 1, &iov, 1), -EAGAIN);
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), 0);
    assert_string_equal(trace->str, "ababBcd");

    g_string_truncate(trace, 0);
    hooks[1].error = -ENOSPC;
    memory_of(node)->writes = 0;
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), -ENOSPC);
    assert_string_equal(trace->str, "abB");
    assert_int_equal(memory_of(node)->writes, 0);
    for (int i = 0; i < 4; i++) {
        block_hook_remove(&hooks[i].hook);
    }
    assert_null(block_hook_find(node, BLOCK_HOOK_COPY));
    g_string_free(trace, TRUE);
}

/* A hook may leave while a write waits in it; the next ones still run. */
FENCE_TEST(a_hook_may_leave_from_within)
{
    struct block_node *node = co_add(graph, "memory,node-name=m");
    GString *trace = g_string_new("");
    struct test_hook hooks[3];
    uint8_t byte = 1;

    (void)opaque;
    test_hook_add(node, &hooks[0], BLOCK_HOOK_INTENT, 'a', trace);
    test_hook_add(node, &hooks[1], BLOCK_HOOK_BITMAP, 'b', trace);
    test_hook_add(node, &hooks[2], BLOCK_HOOK_COPY, 'c', trace);
    hooks[1].must_wait = true;
    hooks[1].go_away = true;
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), 0);
    assert_string_equal(trace->str, "abBc");
    g_string_truncate(trace, 0);
    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), 0);
    assert_string_equal(trace->str, "ac");
    block_hook_remove(&hooks[0].hook);
    block_hook_remove(&hooks[2].hook);
    g_string_free(trace, TRUE);
}

/* Hooks of a child see what is written through its parent, on the fast way,
 * too; and they hear when the node closes. */
FENCE_TEST(hooks_of_children_see_everything)
{
    struct block_node *top =
        co_add(graph, "filter,node-name=f,file.driver=memory,file.node-name=m");
    struct block_node *child = block_find(graph, "m", NULL);
    GString *trace = g_string_new("");
    struct test_hook upper;
    struct test_hook lower;
    uint8_t byte = 1;
    struct iovec iov = { &byte, 1 };

    (void)opaque;
    test_hook_add(top, &upper, BLOCK_HOOK_BITMAP, 'a', trace);
    test_hook_add(child, &lower, BLOCK_HOOK_BITMAP, 'b', trace);
    assert_int_equal(block_try_pwritev(top, 77, 1, &iov, 1), 0);
    assert_int_equal(co_block_pwrite(top, 99, 1, &byte, 0), 0);
    assert_string_equal(trace->str, "abab");
    assert_int_equal(lower.offset, 99);
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
    assert_true(upper.closed && lower.closed);
    g_string_free(trace, TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_writes_go_on_in_order),
        cmocka_unit_test(fences_nest),
        cmocka_unit_test(a_hung_write_meets_the_deadline),
        cmocka_unit_test(a_drain_waits_for_the_background),
        cmocka_unit_test(a_childs_fence_sees_the_parents_writes),
        cmocka_unit_test(a_drain_holds_everything),
        cmocka_unit_test(hooks_run_in_stage_order),
        cmocka_unit_test(a_hook_may_leave_from_within),
        cmocka_unit_test(hooks_of_children_see_everything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
