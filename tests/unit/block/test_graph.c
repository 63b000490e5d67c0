/* SPDX-License-Identifier: BSD-3-Clause */
/* Adding, finding and deleting nodes, and who may use them together. */
#include "block_test.h"

#include <errno.h>
#include <string.h>

#define GRAPH_TEST(name)                                         \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(test_drivers, 1, co_##name, NULL);                \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

/* A node that was added is found, has its size, and is gone when deleted. */
GRAPH_TEST(a_node_lives_from_add_to_del)
{
    g_autoptr(GError) err = NULL;
    struct block_node *node = co_add(graph, "memory,node-name=d0,size=4096");

    (void)opaque;
    assert_ptr_equal(block_find(graph, "d0", &err), node);
    assert_int_equal(block_size(node), 4096);
    assert_true(block_is_named_by_user(node));
    assert_int_equal(co_block_del(graph, "d0", &err), 0);
    assert_null(block_find(graph, "d0", &err));
    assert_error(&err, "no node named 'd0'");
}

/* Nested children open with their parent, get a name, and go with it. */
GRAPH_TEST(nested_children_go_with_their_parent)
{
    g_autoptr(GError) err = NULL;
    struct block_node *top =
        co_add(graph, "filter,node-name=top,file.driver=memory");
    struct block_node *child = block_child(top, "file");

    (void)opaque;
    assert_true(block_name(child)[0] == '#');
    assert_false(block_is_named_by_user(child));
    assert_false(block_is_top(child));
    assert_true(block_is_top(top));
    assert_ptr_equal(block_next(graph, NULL), top);
    assert_ptr_equal(block_next(graph, top), child);
    assert_null(block_next(graph, child));
    assert_int_equal(co_block_del(graph, "top", &err), 0);
    assert_null(block_next(graph, NULL));
}

/* A child that the user had added stays when its parent goes. */
GRAPH_TEST(named_children_stay)
{
    g_autoptr(GError) err = NULL;

    (void)opaque;
    co_add(graph, "memory,node-name=m");
    co_add(graph, "filter,node-name=top,file=m");
    assert_int_equal(co_block_del(graph, "m", &err), -EBUSY);
    assert_error(&err, "in use by node 'top'");
    assert_int_equal(co_block_del(graph, "top", &err), 0);
    assert_int_equal(co_block_del(graph, "m", &err), 0);
}

/* A nested child cannot be deleted by its name while it has a parent. */
GRAPH_TEST(nested_children_cannot_be_deleted)
{
    g_autoptr(GError) err = NULL;

    (void)opaque;
    co_add(graph,
           "filter,node-name=top,file.driver=memory,file.node-name=below");
    assert_int_equal(co_block_del(graph, "below", &err), -EBUSY);
    assert_error(&err, "in use by node 'top'");
}

/* Each mistake is refused by what is wrong, and leaves nothing behind. */
GRAPH_TEST(mistakes_are_refused)
{
    (void)opaque;
    co_add(graph, "memory,node-name=d0");
    co_add_fails(graph, "nonsense,node-name=x", "no block driver named");
    co_add_fails(graph, "memory,node-name=d0", "'d0' exists already");
    co_add_fails(graph, "memory,node-name=0d", "cannot be a node name");
    co_add_fails(graph, "memory,node-name=#d", "cannot be a node name");
    co_add_fails(graph, "memory,node-name=a1234567890123456789012345678901",
                 "cannot be a node name");
    co_add_fails(graph, "filter,node-name=x", "needs the option 'file'");
    co_add_fails(graph, "filter,node-name=x,file=nix", "no node named 'nix'");
    co_add_fails(graph, "filter,node-name=x,file.driver=nix",
                 "no block driver named 'nix'");
    co_add_fails(graph, "memory,node-name=x,force-share=on",
                 "force-share=on needs read-only=on");
    co_add_fails(graph, "memory,node-name=x,detect-zeroes=unmap",
                 "needs discard=unmap");
    co_add_fails(graph, "memory,node-name=x,size=1000,alignment=512",
                 "no multiple of the 512 bytes");
    assert_string_equal(block_name(block_next(graph, NULL)), "d0");
    assert_null(block_next(graph, block_next(graph, NULL)));
}

/* A node cannot be its own child: it has no name yet when it looks for it. */
GRAPH_TEST(loops_are_impossible)
{
    (void)opaque;
    co_add_fails(graph, "filter,node-name=x,file=x", "no node named 'x'");
}

/* When a driver does not open, its nested children are closed again. */
GRAPH_TEST(failure_undoes_everything)
{
    (void)opaque;
    co_add_fails(graph,
                 "filter,node-name=x,size=666,file.driver=filter,"
                 "file.file.driver=memory",
                 "this filter never opens");
    co_add_fails(graph, "filter,node-name=x,file.driver=memory,file.size=666",
                 "this memory never opens");
    assert_null(block_next(graph, NULL));
    co_add(graph, "memory,node-name=x");
}

/* Requests nest as deep as nodes are stacked, so that has a limit. */
GRAPH_TEST(stacks_have_a_limit)
{
    struct json_value *deep = json_dict_new();
    struct block_node *top;
    char byte;
    g_autoptr(GError) err = NULL;

    (void)opaque;
    json_dict_set_string(deep, "driver", "memory");
    for (int i = 0; i < 80; i++) {
        struct json_value *parent = json_dict_new();

        json_dict_set_string(parent, "driver", "filter");
        json_dict_set(parent, "file", deep);
        deep = parent;
    }
    assert_true(co_block_add(graph, deep, false, NULL, &err) < 0);
    assert_error(&err, "on top of each other");
    json_free(deep);
    co_add(graph, "memory,node-name=n0,alignment=4096");
    for (int i = 1; i <= 64; i++) {
        g_autofree char *options =
            g_strdup_printf("filter,node-name=n%d,file=n%d", i, i - 1);

        co_add(graph, options);
    }
    co_add_fails(graph, "filter,node-name=x,file=n64", "on top of each other");
    /* The deepest stack fits the stack of a coroutine. */
    top = block_find(graph, "n64", NULL);
    co_go_home(top);
    assert_int_equal(co_block_pwrite(top, 1, 1, "x", BLOCK_FUA), 0);
    assert_int_equal(co_block_pread(top, 1, 1, &byte), 0);
    assert_int_equal(byte, 'x');
    co_go_main(top);
}

/* What is over a read-only child is read-only. */
GRAPH_TEST(read_only_goes_up)
{
    struct block_user writer = { .kind = "export",
                                 .id = "e0",
                                 .permissions = BLOCK_PERM_WRITE,
                                 .shared = BLOCK_PERM_ALL };
    g_autoptr(GError) err = NULL;
    struct block_node *top;

    (void)opaque;
    co_add(graph, "memory,node-name=m,read-only=on");
    top = co_add(graph, "filter,node-name=top,file=m");
    assert_true(block_is_read_only(top));
    assert_int_equal(block_attach(top, &writer, &err), -EROFS);
    assert_error(&err, "export 'e0' needs to write to it");
}

/* A job that lets others only read refuses, and is refused by, a writer. */
GRAPH_TEST(permissions_clash_by_name)
{
    struct block_user job = { .kind = "job",
                              .id = "j1",
                              .permissions = BLOCK_PERM_WRITE,
                              .shared = BLOCK_PERM_READ };
    struct block_user export = { .kind = "export",
                                 .id = "e1",
                                 .permissions =
                                     BLOCK_PERM_READ | BLOCK_PERM_WRITE,
                                 .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE };
    g_autoptr(GError) err = NULL;
    struct block_node *node = co_add(graph, "memory,node-name=d0");

    (void)opaque;
    assert_int_equal(block_attach(node, &job, &err), 0);
    assert_int_equal(block_attach(node, &export, &err), -EBUSY);
    assert_error(&err, "in use by job 'j1'");
    block_detach(&job);
    assert_int_equal(block_attach(node, &export, &err), 0);
    assert_int_equal(block_attach(node, &job, &err), -EBUSY);
    assert_error(&err, "in use by export 'e1'");
    assert_int_equal(co_block_del(graph, "d0", &err), -EBUSY);
    assert_error(&err, "in use by export 'e1'");
    block_detach(&export);
}

/* Two parents may read one node; once one of them is written through, nobody
 * else may write past it, on whichever way. */
GRAPH_TEST(a_node_has_one_writer)
{
    struct block_user first = { .kind = "export",
                                .id = "e1",
                                .permissions = BLOCK_PERM_WRITE,
                                .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE };
    struct block_user second = first;
    g_autoptr(GError) err = NULL;
    struct block_node *m = co_add(graph, "memory,node-name=m");
    struct block_node *a = co_add(graph, "filter,node-name=a,file=m");
    struct block_node *b = co_add(graph, "filter,node-name=b,file=m");

    (void)opaque;
    second.id = "e2";
    assert_int_equal(block_attach(a, &first, &err), 0);
    assert_int_equal(block_attach(b, &second, &err), -EBUSY);
    assert_error(&err, "node 'm' is in use by node 'a'");
    assert_int_equal(block_attach(m, &second, &err), -EBUSY);
    assert_error(&err, "node 'm' is in use by node 'a'");
    block_detach(&first);
    assert_int_equal(block_attach(b, &second, &err), 0);
    block_detach(&second);
}

/* What a user refuses on a node it refuses on the nodes below, too. */
GRAPH_TEST(refusals_reach_below)
{
    struct block_user export = { .kind = "export",
                                 .id = "e1",
                                 .permissions = BLOCK_PERM_READ,
                                 .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE };
    struct block_user resize = { .kind = "command",
                                 .id = "block_resize",
                                 .permissions = BLOCK_PERM_RESIZE,
                                 .shared = BLOCK_PERM_ALL };
    g_autoptr(GError) err = NULL;
    struct block_node *m = co_add(graph, "memory,node-name=m");
    struct block_node *a = co_add(graph, "filter,node-name=a,file=m");

    (void)opaque;
    assert_int_equal(block_attach(a, &export, &err), 0);
    assert_int_equal(block_attach(m, &resize, &err), -EBUSY);
    assert_error(&err, "does not let command 'block_resize' resize it");
    block_detach(&export);
    assert_int_equal(block_attach(m, &resize, &err), 0);
    block_detach(&resize);
}

/* The information about a node has every member that QMP requires. */
GRAPH_TEST(info_is_complete)
{
    static const char *const required[] = {
        "file",
        "node-name",
        "ro",
        "drv",
        "backing_file_depth",
        "bps",
        "bps_rd",
        "bps_wr",
        "iops",
        "iops_rd",
        "cache",
        "iops_wr",
        "image",
        "encrypted",
        "detect_zeroes",
        "write_threshold",
        "children",
        "active",
    };
    struct block_node *top =
        co_add(graph, "filter,node-name=top,file.driver=memory,file.size=4096");
    g_autoptr(json_value) info = co_block_info(top, false);

    (void)opaque;
    for (size_t i = 0; i < G_N_ELEMENTS(required); i++) {
        assert_non_null(json_dict_get(info, required[i]));
    }
    assert_string_equal(json_dict_string(info, "drv", ""), "filter");
    assert_int_equal(
        json_dict_uint(json_dict_get(info, "image"), "virtual-size", 0), 4096);
}

/* A loop that is someone's home cannot be taken away. */
GRAPH_TEST(homes_cannot_be_removed)
{
    g_autoptr(GError) err = NULL;
    struct block_node *node = co_add(graph, "memory,node-name=d0");
    struct loop *home = block_home(node);

    (void)opaque;
    assert_ptr_not_equal(home, block_graph_main(graph));
    assert_int_equal(block_graph_remove_loop(graph, home, &err), -EBUSY);
    assert_error(&err, "in use by node 'd0'");
    assert_int_equal(co_block_del(graph, "d0", &err), 0);
    assert_int_equal(block_graph_remove_loop(graph, home, &err), 0);
    node = co_add(graph, "memory,node-name=d0");
    assert_ptr_equal(block_home(node), block_graph_main(graph));
}

/* Homes have names: those of their loops. */
GRAPH_TEST(homes_are_found_by_name)
{
    g_autoptr(GError) err = NULL;
    struct loop *home = block_home(co_add(graph, "memory,node-name=d0"));

    (void)opaque;
    assert_ptr_equal(block_graph_find_loop(graph, loop_name(home), &err), home);
    assert_null(block_graph_find_loop(graph, "nowhere", &err));
    assert_error(&err, "no iothread named 'nowhere'");
}

static void co_delete_d0(void *opaque)
{
    assert_int_equal(co_block_del(opaque, "d0", NULL), 0);
}

/* While a node closes, which may take long, it can be told which. */
GRAPH_TEST(a_closing_node_has_a_name)
{
    (void)opaque;
    co_add(graph, "memory,node-name=d0");
    assert_null(block_closing(graph));
    co_enter(co_delete_d0, graph);
    assert_string_equal(block_closing(graph), "d0");
    while (block_closing(graph) != NULL) {
        co_reschedule();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_lives_from_add_to_del),
        cmocka_unit_test(nested_children_go_with_their_parent),
        cmocka_unit_test(named_children_stay),
        cmocka_unit_test(nested_children_cannot_be_deleted),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(loops_are_impossible),
        cmocka_unit_test(failure_undoes_everything),
        cmocka_unit_test(stacks_have_a_limit),
        cmocka_unit_test(read_only_goes_up),
        cmocka_unit_test(permissions_clash_by_name),
        cmocka_unit_test(a_node_has_one_writer),
        cmocka_unit_test(refusals_reach_below),
        cmocka_unit_test(info_is_complete),
        cmocka_unit_test(homes_cannot_be_removed),
        cmocka_unit_test(homes_are_found_by_name),
        cmocka_unit_test(a_closing_node_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
