/* SPDX-License-Identifier: BSD-3-Clause */
/* Putting a node above another, for all who use it. */
#include "block/replace.h"
#include "block_test.h"

#include <errno.h>
#include <string.h>

#define FOREVER UINT64_MAX

/* Someone who reads and writes, and moves along. */
struct guest {
    struct block_user user;
    unsigned int moves;
};

static void guest_moved(struct block_user *user)
{
    LIST_ENTRY(user, struct guest, user)->moves++;
}

static void guest_attach(struct guest *guest, struct block_node *node)
{
    g_autoptr(GError) err = NULL;

    *guest = (struct guest){
        .user = {
            .kind = "export",
            .id = "guest",
            .permissions = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
            .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
            .on_replace = BLOCK_USER_MOVES,
            .moved = guest_moved,
        },
    };
    assert_int_equal(block_attach(node, &guest->user, &err), 0);
}

static struct block_replacement *prepare(struct block_node *from,
                                         struct block_node *to,
                                         enum block_replacement_kind kind)
{
    struct block_replacement *replacement = NULL;
    g_autoptr(GError) err = NULL;

    if (block_replacement_prepare(from, to, kind, &replacement, &err) < 0) {
        print_message("%s\n", err->message);
    }
    assert_non_null(replacement);
    return replacement;
}

static void prepare_fails(struct block_node *from,
                          struct block_node *to,
                          const char *part)
{
    struct block_replacement *replacement = NULL;
    g_autoptr(GError) err = NULL;

    assert_true(block_replacement_prepare(from, to, BLOCK_REPLACE_BY_OVERLAY,
                                          &replacement, &err) < 0);
    assert_null(replacement);
    assert_error(&err, part);
}

/* Commits as a transaction does; what was spawned before is held meanwhile. */
static void co_commit(struct block_replacement *replacement)
{
    const GPtrArray *nodes = block_replacement_nodes(replacement);
    g_autoptr(GPtrArray) drained = g_ptr_array_new();
    struct block_node *from = g_ptr_array_index(nodes, 0);

    co_go_home(from);
    for (guint i = 0; i < nodes->len; i++) {
        g_ptr_array_add(drained, g_ptr_array_index(nodes, i));
        assert_int_equal(co_block_drain(g_ptr_array_index(nodes, i), FOREVER),
                         0);
    }
    co_reschedule();
    co_reschedule();
    co_go_main(from);
    block_replacement_commit(replacement);
    co_go_home(from);
    for (guint i = 0; i < drained->len; i++) {
        block_undrain(g_ptr_array_index(drained, i));
    }
    co_go_main(from);
}

/* One write of 'x' at offset 0, by a coroutine of its own. */
struct write {
    struct block_node *node;
    int result;
    bool over;
};

static void co_write(void *opaque)
{
    struct write *write = opaque;

    write->result = co_block_pwrite(write->node, 0, 1, "x", 0);
    write->over = true;
}

static void co_wait_for(struct write *write)
{
    co_go_home(write->node);
    while (!write->over) {
        co_reschedule();
    }
    co_go_main(write->node);
    assert_int_equal(write->result, 0);
}

static char co_read_first(struct block_node *node)
{
    char byte = 0;

    co_go_home(node);
    assert_int_equal(co_block_pread(node, 0, 1, &byte), 0);
    co_go_main(node);
    return byte;
}

static void co_users_move(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *overlay = co_add(graph, "overlay,node-name=overlay");
    struct block_user writer = { .kind = "job",
                                 .id = "j",
                                 .permissions = BLOCK_PERM_WRITE,
                                 .shared = BLOCK_PERM_ALL };
    struct guest guest;
    g_autoptr(GError) err = NULL;

    (void)opaque;
    assert_int_equal(co_block_join(base, overlay, NULL), 0);
    guest_attach(&guest, base);
    memory_of(base)->bytes[0] = 'b';
    co_commit(prepare(base, overlay, BLOCK_REPLACE_BY_OVERLAY));

    assert_ptr_equal(guest.user.node, overlay);
    assert_int_equal(guest.moves, 1);
    assert_ptr_equal(block_child(overlay, "backing"), base);
    assert_false(block_is_top(base));
    assert_int_equal(co_read_first(overlay), 'b');
    /* The guest relies on what is below. */
    assert_int_equal(block_attach(base, &writer, &err), -EBUSY);
    assert_error(&err, "'overlay'");
    assert_int_equal(co_block_del(graph, "base", &err), -EBUSY);
    assert_error(&err, "overlay");
    block_detach(&guest.user);
    assert_int_equal(block_attach(base, &writer, &err), 0);
    block_detach(&writer);
}

static void users_move_to_the_overlay(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 2, co_users_move, NULL);
}

static void co_held_write(struct block_graph *graph, void *opaque)
{
    bool through_parent = *(bool *)opaque;
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *parent =
        co_add(graph, "filter,node-name=parent,file=base");
    struct block_node *overlay = co_add(graph, "overlay,node-name=overlay");
    struct write write = { .node = through_parent ? parent : base };
    struct block_replacement *replacement;

    assert_int_equal(co_block_join(base, overlay, NULL), 0);
    replacement = prepare(base, overlay, BLOCK_REPLACE_BY_OVERLAY);
    co_go_home(base);
    assert_int_equal(co_block_fence(write.node, FOREVER), 0);
    co_go_main(base);
    co_spawn(block_home(base), co_write, &write);
    co_commit(replacement);
    assert_false(write.over);
    co_go_home(base);
    block_unfence(write.node);
    co_go_main(base);
    co_wait_for(&write);

    assert_int_equal(memory_of(base)->bytes[0], 0);
    assert_int_equal(memory_of(overlay)->bytes[0], 'x');
    assert_int_equal(co_read_first(parent), 'x');
    assert_ptr_equal(block_child(parent, "file"), overlay);
}

static void a_held_write_goes_to_the_overlay(void **unused)
{
    bool through_parent = false;

    (void)unused;
    run_in_graph(test_drivers, 1, co_held_write, &through_parent);
}

static void a_write_held_at_a_parent_goes_to_the_overlay(void **unused)
{
    bool through_parent = true;

    (void)unused;
    run_in_graph(test_drivers, 1, co_held_write, &through_parent);
}

static void co_two_levels(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *first = co_add(graph, "overlay,node-name=first");
    struct block_node *second = co_add(graph, "overlay,node-name=second");
    struct block_replacement *one;
    struct block_replacement *two;
    struct guest guest;

    (void)opaque;
    guest_attach(&guest, base);
    one = prepare(base, first, BLOCK_REPLACE_BY_OVERLAY);
    two = prepare(first, second, BLOCK_REPLACE_BY_OVERLAY);
    co_commit(one);
    co_commit(two);
    assert_ptr_equal(guest.user.node, second);
    assert_int_equal(guest.moves, 2);
    assert_ptr_equal(block_child(second, "backing"), first);
    assert_ptr_equal(block_child(first, "backing"), base);
    block_detach(&guest.user);
}

static void a_second_overlay_can_follow_at_once(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_two_levels, NULL);
}

static void co_cancelled(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *overlay = co_add(graph, "overlay,node-name=overlay");
    struct block_replacement *replacement;
    struct guest guest;
    struct guest other;

    (void)opaque;
    guest_attach(&guest, base);
    replacement = prepare(base, overlay, BLOCK_REPLACE_BY_OVERLAY);
    block_replacement_cancel(replacement);
    assert_ptr_equal(guest.user.node, base);
    assert_int_equal(guest.moves, 0);
    assert_null(block_child(overlay, "backing"));
    assert_true(block_is_top(base));
    guest_attach(&other, base);
    block_detach(&other.user);
    assert_int_equal(co_block_del(graph, "overlay", NULL), 0);
    block_detach(&guest.user);
}

static void cancelling_leaves_no_trace(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_cancelled, NULL);
}

static void co_refused(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *overlay = co_add(graph, "overlay,node-name=overlay");
    struct block_node *memory = co_add(graph, "memory,node-name=memory");
    struct block_node *small = co_add(graph, "overlay,node-name=small,size=1");
    struct block_node *used = co_add(graph, "overlay,node-name=used");
    struct block_node *fixed =
        co_add(graph, "overlay,node-name=fixed,read-only=on");
    struct block_node *full =
        co_add(graph, "overlay,node-name=full,backing.driver=memory");
    struct block_user job = { .kind = "job",
                              .id = "j",
                              .permissions = BLOCK_PERM_READ,
                              .shared = BLOCK_PERM_ALL };
    struct guest guest;
    struct guest reader;

    (void)opaque;
    guest_attach(&guest, base);
    guest_attach(&reader, used);
    prepare_fails(base, base, "itself");
    prepare_fails(base, memory, "no backing file");
    prepare_fails(base, small, "65536");
    prepare_fails(base, used, "in use by export 'guest'");
    prepare_fails(base, fixed, "read-only");
    prepare_fails(base, full, "backing file already");
    assert_int_equal(block_attach(base, &job, NULL), 0);
    prepare_fails(base, overlay, "job 'j'");
    block_detach(&job);
    assert_true(block_is_top(base));
    block_replacement_cancel(prepare(base, overlay, BLOCK_REPLACE_BY_OVERLAY));
    block_detach(&guest.user);
    block_detach(&reader.user);
}

static void what_does_not_fit_is_refused(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_refused, NULL);
}

static void co_flushed(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *overlay = co_add(graph, "overlay,node-name=overlay");

    (void)opaque;
    co_commit(prepare(base, overlay, BLOCK_REPLACE_BY_OVERLAY));
    memory_of(base)->flush_error = -EIO;
    assert_int_equal(co_block_flush(overlay), -EIO);
    assert_int_equal(memory_of(overlay)->flushes, 0);
    memory_of(base)->flush_error = 0;
    assert_int_equal(co_block_flush(overlay), 0);
    assert_int_equal(co_block_flush(overlay), 0);
    assert_int_equal(memory_of(base)->flushes, 2);
    assert_int_equal(memory_of(overlay)->flushes, 2);
}

static void what_was_written_before_is_flushed_with_the_overlay(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 0, co_flushed, NULL);
}

static void co_filter_comes_and_goes(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *filter =
        co_add(graph, "filter,node-name=filter,file=base");
    struct block_user job = { .kind = "job",
                              .id = "j",
                              .permissions = BLOCK_PERM_READ,
                              .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE };
    struct write write = { .node = filter };
    struct guest guest;

    (void)opaque;
    guest_attach(&guest, base);
    assert_int_equal(block_attach(base, &job, NULL), 0);
    co_commit(prepare(base, filter, BLOCK_REPLACE_BY_FILTER));
    assert_ptr_equal(guest.user.node, filter);
    assert_ptr_equal(job.node, base);

    co_go_home(base);
    assert_int_equal(co_block_fence(filter, FOREVER), 0);
    co_go_main(base);
    co_spawn(block_home(base), co_write, &write);
    assert_int_equal(co_block_filter_remove(filter, "file", FOREVER / 2, NULL),
                     0);
    assert_ptr_equal(guest.user.node, base);
    co_go_home(base);
    block_unfence(filter);
    co_go_main(base);
    write.node = base; /* the filter may be gone by now */
    co_wait_for(&write);
    assert_int_equal(memory_of(base)->bytes[0], 'x');
    assert_int_equal(co_block_del(graph, "filter", NULL), 0);
    block_detach(&guest.user);
    block_detach(&job);
}

static void a_filter_comes_and_goes_under_a_guest(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 1, co_filter_comes_and_goes, NULL);
}

static void co_filter_hangs(struct block_graph *graph, void *opaque)
{
    struct block_node *base = co_add(graph, "memory,node-name=base");
    struct block_node *filter =
        co_add(graph, "filter,node-name=filter,file=base");
    struct write write = { .node = filter };
    g_autoptr(GError) err = NULL;

    (void)opaque;
    memory_of(base)->hold_writes = true;
    co_spawn(block_home(base), co_write, &write);
    assert_int_equal(co_block_filter_remove(filter, "file", 1, &err),
                     -ETIMEDOUT);
    assert_error(&err, "in time");
    co_go_home(base);
    memory_of(base)->hold_writes = false;
    co_queue_wake_all(&memory_of(base)->held);
    co_go_main(base);
    co_wait_for(&write);
}

static void a_filter_stays_while_a_request_hangs(void **unused)
{
    (void)unused;
    run_in_graph(test_drivers, 1, co_filter_hangs, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_move_to_the_overlay),
        cmocka_unit_test(a_held_write_goes_to_the_overlay),
        cmocka_unit_test(a_write_held_at_a_parent_goes_to_the_overlay),
        cmocka_unit_test(a_second_overlay_can_follow_at_once),
        cmocka_unit_test(cancelling_leaves_no_trace),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(what_was_written_before_is_flushed_with_the_overlay),
        cmocka_unit_test(a_filter_comes_and_goes_under_a_guest),
        cmocka_unit_test(a_filter_stays_while_a_request_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
