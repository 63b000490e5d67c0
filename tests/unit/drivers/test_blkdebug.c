/* SPDX-License-Identifier: BSD-3-Clause */
/* blkdebug: rules, events, states, as seen with QEMU's. */
#include "block_test.h"

#include <errno.h>

#include "drivers/drivers.h"

#define DEBUG_TEST(name)                                         \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(block_drivers, 0, co_##name, NULL);               \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

#define OVER_NULL "blkdebug,node-name=b,image.driver=null-co,"

static int co_write(struct block_node *node, uint64_t offset)
{
    return co_block_pwrite(node, offset, 512, (uint8_t[512]){ 1 }, 0);
}

static int co_read(struct block_node *node)
{
    uint8_t buffer[512];

    return co_block_pread(node, 0, 512, buffer);
}

/* "none" makes a rule active from the start, for its kind of request only. */
DEBUG_TEST(a_rule_hits_its_kind_of_request)
{
    struct block_node *node = co_add(
        graph, OVER_NULL "inject-error.0.event=none,"
                         "inject-error.0.iotype=write,inject-error.0.errno=28");

    (void)opaque;
    assert_int_equal(co_write(node, 0), -ENOSPC);
    assert_int_equal(co_write(node, 0), -ENOSPC);
    assert_int_equal(co_read(node), 0);
    assert_int_equal(co_block_write_zeroes(node, 0, 512, 0), 0);
    assert_int_equal(co_block_flush(node), 0);
}

/* Without a kind it hits all but questions about extents; EIO by default. */
DEBUG_TEST(a_rule_without_kind_hits_all)
{
    struct block_node *node =
        co_add(graph, OVER_NULL "inject-error.0.event=none,discard=unmap,"
                                "image.discard=unmap");
    struct block_extent extent;

    (void)opaque;
    assert_int_equal(co_write(node, 0), -EIO);
    assert_int_equal(co_read(node), -EIO);
    assert_int_equal(co_block_write_zeroes(node, 0, 512, 0), -EIO);
    assert_int_equal(co_block_discard(node, 0, 512), -EIO);
    assert_int_equal(co_block_flush(node), -EIO);
    assert_int_equal(co_block_status(node, 0, 512, &extent), 0);
}

/* once: a rule is used up by its first hit, not by what it does not match. */
DEBUG_TEST(once_and_sector)
{
    struct block_node *node =
        co_add(graph, OVER_NULL
               "inject-error.0.event=none,inject-error.0.iotype=write,"
               "inject-error.0.once=on,inject-error.0.sector=7,"
               "inject-error.0.immediately=on");

    (void)opaque;
    assert_int_equal(co_write(node, 6 * 512), 0);
    assert_int_equal(co_write(node, 8 * 512), 0);
    assert_int_equal(co_write(node, 7 * 512 - 1), -EIO);
    assert_int_equal(co_write(node, 7 * 512), 0);
}

/* An event makes its rule active before the request it belongs to, and the rule
 * stays, for other requests, too. */
DEBUG_TEST(events_make_rules_active)
{
    struct block_node *node =
        co_add(graph, OVER_NULL "inject-error.0.event=write_aio");

    (void)opaque;
    assert_int_equal(co_read(node), 0);
    assert_int_equal(co_write(node, 0), -EIO);
    assert_int_equal(co_read(node), -EIO);
}

/* pwritev_done comes after the write. */
DEBUG_TEST(done_comes_afterwards)
{
    struct block_node *node =
        co_add(graph, OVER_NULL "inject-error.0.event=pwritev_done");

    (void)opaque;
    assert_int_equal(co_write(node, 0), 0);
    assert_int_equal(co_write(node, 0), -EIO);
}

/* States: the third write fails, later ones do not. */
DEBUG_TEST(states_count_events)
{
    struct block_node *node = co_add(
        graph, OVER_NULL "set-state.0.event=pwritev,set-state.0.state=1,"
                         "set-state.0.new_state=2,"
                         "set-state.1.event=pwritev,set-state.1.state=2,"
                         "set-state.1.new_state=3,"
                         "inject-error.0.event=pwritev,inject-error.0.state=3,"
                         "inject-error.0.once=on");

    (void)opaque;
    assert_int_equal(co_write(node, 0), 0);
    assert_int_equal(co_write(node, 0), 0);
    assert_int_equal(co_write(node, 0), -EIO);
    assert_int_equal(co_write(node, 0), 0);
}

/* The rules of an event take the place of those that were active. */
DEBUG_TEST(events_replace_active_rules)
{
    struct block_node *node =
        co_add(graph, OVER_NULL
               "inject-error.0.event=none,inject-error.0.errno=28,"
               "inject-error.0.iotype=flush,"
               "inject-error.1.event=pwritev_zero,inject-error.1.errno=1,"
               "inject-error.1.iotype=read");

    (void)opaque;
    assert_int_equal(co_block_flush(node), -ENOSPC);
    assert_int_equal(co_block_write_zeroes(node, 0, 512, 0), 0);
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(co_read(node), -EPERM);
}

/* A raw node over it works the same, and numbers out of range are refused. */
DEBUG_TEST(below_raw_and_nonsense)
{
    struct block_node *node = co_add(
        graph, "raw,node-name=r,file.driver=blkdebug,file.image.driver=null-co,"
               "file.inject-error.0.event=none,"
               "file.inject-error.0.iotype=read");

    (void)opaque;
    assert_int_equal(co_write(node, 0), 0);
    assert_int_equal(co_read(node), -EIO);
    co_add_fails(
        graph, OVER_NULL "inject-error.0.event=none,inject-error.0.errno=5000",
        "5000 is no errno");
    co_add_fails(graph,
                 OVER_NULL "inject-error.0.event=none,inject-error.0.sector=-2",
                 "no sector -2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rule_hits_its_kind_of_request),
        cmocka_unit_test(a_rule_without_kind_hits_all),
        cmocka_unit_test(once_and_sector),
        cmocka_unit_test(events_make_rules_active),
        cmocka_unit_test(done_comes_afterwards),
        cmocka_unit_test(states_count_events),
        cmocka_unit_test(events_replace_active_rules),
        cmocka_unit_test(below_raw_and_nonsense),
    };

    test_options_type = &blockdev_options_type;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
