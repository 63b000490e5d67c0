/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "../loop/loop_test.h"

#include "backup/block_copy.h"
#include "backup/copy_before_write.h"
#include "base/bytes.h"
#include "block/request.h"
#include "memory_disk.h"

#define CLUSTER BLOCK_COPY_CLUSTER_BYTES_MIN
#define SIZE    (40 * CLUSTER + 1000) /* the last cluster is cut */

struct world {
    struct block_graph *graph;
    struct block_node *source;
    struct block_node *target;
    struct memory_disk *source_disk;
    struct memory_disk *target_disk;
    struct block_copy *copy;
    struct copy_before_write filter;
    uint8_t *before; /* the source at the instant */
    uint64_t copied_bytes;
    unsigned int failures;
    bool retries;
    bool guest_pays;
    bool compress;
    bool target_is_layer;
    int guest_result;
    bool guest_done;
};

static void on_copied(void *opaque, uint64_t bytes)
{
    ((struct world *)opaque)->copied_bytes += bytes;
}

static bool on_failed(void *opaque,
                      enum block_copy_side side,
                      int error,
                      bool foreground)
{
    struct world *world = opaque;

    (void)side;
    (void)error;
    world->failures++;
    return !foreground && world->retries;
}

static const struct block_driver *const drivers[] = { &driver_memory_disk,
                                                      NULL };

/* Two disks of SIZE, the source full of data that differs everywhere, all of it
 * to copy, guests' writes watched. */
static void co_open_world(struct world *world)
{
    const struct block_copy_events events = { on_copied, on_failed, world };

    const struct block_copy_options options = {
        .cluster_bytes = CLUSTER,
        .chunk_bytes = 4 * CLUSTER,
        .tasks_max = BLOCK_COPY_TASKS_MAX,
        .save_wait_ns = UINT64_MAX,
        .guest_pays = world->guest_pays,
        .compress = world->compress,
        .target_is_layer = world->target_is_layer,
    };

    *world = (struct world){
        .graph = block_graph_new(loop_current(), drivers),
        .retries = world->retries,
    };
    world->source = co_memory_disk_add(world->graph, "source", SIZE);
    world->target = co_memory_disk_add(world->graph, "target", SIZE);
    world->source_disk = memory_disk_of(world->source);
    world->target_disk = memory_disk_of(world->target);
    for (size_t i = 0; i < SIZE; i++) {
        world->source_disk->data[i] = (uint8_t)(i * 7 + i / 251 + 1);
    }
    memset(world->target_disk->data, 0xee, SIZE);
    world->before = g_memdup2(world->source_disk->data, SIZE);
    world->copy =
        block_copy_new(world->source, world->target, &options, &events, NULL);
    bitmap_set_all(block_copy_remaining(world->copy));
    copy_before_write_init(&world->filter, world->copy);
    copy_before_write_install(&world->filter, world->source);
}

static void co_close_world(struct world *world)
{
    block_copy_stop(world->copy);
    co_block_copy_settle(world->copy);
    co_copy_before_write_settle(&world->filter);
    copy_before_write_remove(&world->filter);
    block_copy_free(world->copy);
    co_block_del_all(world->graph);
    block_graph_free(world->graph);
    g_free(world->before);
}

static void co_copy_all(struct world *world)
{
    uint64_t cursor = 0;

    while (co_block_copy_step(world->copy, &cursor) > 0) {
    }
    co_block_copy_settle(world->copy);
}

static void assert_target_is_instant(const struct world *world)
{
    assert_memory_equal(world->target_disk->data, world->before, SIZE);
}

/* A guest's write of one value, in a coroutine of its own. */
struct guest_write {
    struct world *world;
    uint64_t offset;
    uint64_t bytes;
};

static void co_guest_write(void *opaque)
{
    struct guest_write *write = opaque;
    g_autofree uint8_t *buffer = g_malloc(write->bytes);

    memset(buffer, 0x5a, write->bytes);
    write->world->guest_result = co_block_pwrite(
        write->world->source, write->offset, write->bytes, buffer, 0);
    write->world->guest_done = true;
}

/* --- The tests, each a coroutine -------------------------------------------- */

static void co_copies_all(void *opaque)
{
    struct world world = { 0 };

    (void)opaque;
    co_open_world(&world);
    assert_int_equal(block_copy_remaining_bytes(world.copy), SIZE);
    co_copy_all(&world);
    assert_target_is_instant(&world);
    assert_int_equal(world.copied_bytes, SIZE);
    assert_int_equal(block_copy_remaining_bytes(world.copy), 0);
    co_close_world(&world);
}

static void co_copies_only_remaining(void *opaque)
{
    struct world world = { 0 };

    (void)opaque;
    co_open_world(&world);
    bitmap_clear_all(block_copy_remaining(world.copy));
    bitmap_set(block_copy_remaining(world.copy), 3 * CLUSTER, CLUSTER);
    bitmap_set(block_copy_remaining(world.copy), SIZE - 1, 1);
    assert_int_equal(block_copy_remaining_bytes(world.copy), CLUSTER + 1000);
    co_copy_all(&world);
    assert_int_equal(world.target_disk->written_bytes, CLUSTER + 1000);
    assert_int_equal(world.target_disk->data[0], 0xee);
    assert_memory_equal(world.target_disk->data + 3 * CLUSTER,
                        world.before + 3 * CLUSTER, CLUSTER);
    co_close_world(&world);
}

static void co_zeroes_are_not_written_as_data(void *opaque)
{
    struct world world = { 0 };

    (void)opaque;
    co_open_world(&world);
    memset(world.source_disk->data, 0, SIZE);
    memset(world.before, 0, SIZE);
    co_copy_all(&world);
    assert_target_is_instant(&world);
    assert_int_equal(world.target_disk->writes, 0);
    co_close_world(&world);
}

/* How often zeroes are written to a target that says `status` of itself. */
static unsigned int co_zero_writes(bool target_is_layer, unsigned int status)
{
    struct world world = { .target_is_layer = target_is_layer };
    unsigned int count;

    co_open_world(&world);
    memset(world.source_disk->data, 0, SIZE);
    world.target_disk->status = status;
    co_copy_all(&world);
    count = world.target_disk->zero_writes;
    assert_int_equal(world.copied_bytes, SIZE);
    co_close_world(&world);
    return count;
}

static void co_zeroes_of_a_layer_are_its_own(void *opaque)
{
    const unsigned int zero = BLOCK_STATUS_ZERO;

    (void)opaque;
    assert_int_equal(co_zero_writes(false, zero), 0);
    assert_true(co_zero_writes(true, zero) > 0);
    assert_int_equal(co_zero_writes(true, zero | BLOCK_STATUS_ALLOCATED), 0);
    assert_true(co_zero_writes(false, BLOCK_STATUS_ALLOCATED) > 0);
}

static void co_compresses_when_told(void *opaque)
{
    (void)opaque;
    for (unsigned int i = 0; i < 2; i++) {
        struct world world = { .compress = i == 1 };

        co_open_world(&world);
        co_copy_all(&world);
        assert_int_equal(
            (world.target_disk->last_write_flags & BLOCK_COMPRESS) != 0, i);
        assert_target_is_instant(&world);
        co_close_world(&world);
    }
}

static void co_guest_overwrites_everything(void *opaque)
{
    struct world world = { 0 };

    (void)opaque;
    co_open_world(&world);
    for (uint64_t at = 0; at < SIZE; at += 3 * CLUSTER / 2) {
        struct guest_write write = { &world, at,
                                     min_u64(3 * CLUSTER / 2, SIZE - at) };

        co_guest_write(&write);
        assert_int_equal(world.guest_result, 0);
    }
    co_copy_all(&world);
    assert_target_is_instant(&world);
    assert_int_equal(world.source_disk->data[SIZE - 1], 0x5a);
    assert_int_equal(world.copied_bytes, SIZE);
    co_close_world(&world);
}

static void co_guest_waits_for_background_read(void *opaque)
{
    struct world world = { 0 };
    struct guest_write write = { &world, 0, 512 };
    uint64_t cursor = 0;

    (void)opaque;
    co_open_world(&world);
    world.source_disk->hang_reads = true;
    co_block_copy_step(world.copy, &cursor);
    co_enter(co_guest_write, &write);
    co_reschedule();
    assert_false(world.guest_done);
    memory_disk_release(world.source_disk);
    co_copy_all(&world);
    assert_true(world.guest_done);
    assert_target_is_instant(&world);
    co_close_world(&world);
}

static void co_guests_wait_together_for_background_read(void *opaque)
{
    struct world world = { .guest_pays = false };
    struct world other = { .guest_pays = false };
    struct guest_write first = { &world, 0, 512 };
    struct guest_write second = { &other, 1024, 512 };
    uint64_t cursor = 0;

    (void)opaque;
    co_open_world(&world);
    other.source = world.source;
    world.source_disk->hang_reads = true;
    co_block_copy_step(world.copy, &cursor);
    co_enter(co_guest_write, &first);
    co_enter(co_guest_write, &second);
    memory_disk_release(world.source_disk);
    for (unsigned int turns = 0; turns < 100; turns++) {
        co_reschedule();
    }
    assert_true(world.guest_done);
    assert_true(other.guest_done);
    co_copy_all(&world);
    assert_target_is_instant(&world);
    co_close_world(&world);
}

static void co_guest_does_not_wait_for_target(void *opaque)
{
    struct world world = { 0 };
    struct guest_write write = { &world, 5 * CLUSTER, CLUSTER };

    (void)opaque;
    co_open_world(&world);
    world.target_disk->hang_writes = true;
    co_guest_write(&write);
    assert_int_equal(world.guest_result, 0);
    assert_int_equal(world.source_disk->data[5 * CLUSTER], 0x5a);
    memory_disk_release(world.target_disk);
    co_copy_all(&world);
    assert_target_is_instant(&world);
    co_close_world(&world);
}

static void co_failed_write_comes_back(void *opaque)
{
    struct world world = { 0 };
    enum block_copy_side side;
    uint64_t offset;

    (void)opaque;
    co_open_world(&world);
    world.target_disk->write_error = -ENOSPC;
    co_copy_all(&world);
    assert_int_equal(block_copy_error(world.copy, &side, &offset), -ENOSPC);
    assert_int_equal(side, BLOCK_COPY_TARGET);
    assert_int_equal(offset, 0);
    assert_int_equal(world.failures, 1);
    assert_int_equal(block_copy_remaining_bytes(world.copy), SIZE);
    co_close_world(&world);
}

static void co_failed_save_breaks_copy_not_guest(void *opaque)
{
    struct world world = { 0 };
    struct guest_write write = { &world, 0, 512 };
    enum block_copy_side side;
    uint64_t offset;

    (void)opaque;
    co_open_world(&world);
    world.source_disk->read_error = -EIO;
    co_guest_write(&write);
    assert_int_equal(world.guest_result, 0);
    assert_int_equal(block_copy_error(world.copy, &side, &offset), -EIO);
    assert_int_equal(side, BLOCK_COPY_SOURCE);
    assert_int_equal(block_copy_remaining_bytes(world.copy), SIZE);
    co_close_world(&world);
}

static void co_stopped_copy_saves_nothing(void *opaque)
{
    struct world world = { 0 };
    struct guest_write write = { &world, 0, 512 };
    uint64_t cursor = 0;

    (void)opaque;
    co_open_world(&world);
    block_copy_stop(world.copy);
    co_guest_write(&write);
    assert_int_equal(world.guest_result, 0);
    assert_int_equal(co_block_copy_step(world.copy, &cursor), 0);
    assert_int_equal(world.target_disk->writes, 0);
    assert_int_equal(block_copy_remaining_bytes(world.copy), SIZE);
    co_close_world(&world);
}

static void co_background_memory_is_bounded(void *opaque)
{
    struct world world = { 0 };
    uint64_t cursor = 0;
    uint64_t claimed = 0;

    (void)opaque;
    co_open_world(&world);
    bitmap_clear(block_copy_remaining(world.copy), CLUSTER, CLUSTER);
    world.target_disk->hang_writes = true;
    /* The disk is smaller than the bound, so all of it may be under way. */
    while (claimed < SIZE - CLUSTER) {
        claimed += co_block_copy_step(world.copy, &cursor);
    }
    assert_int_equal(co_block_copy_step(world.copy, &cursor), 0);
    memory_disk_release(world.target_disk);
    co_block_copy_settle(world.copy);
    assert_int_equal(world.copied_bytes, SIZE - CLUSTER);
    co_close_world(&world);
}

/* The guest overwrites a cluster whose old content failed to be written: what is
 * retried is the old content. */
static void co_retried_write_keeps_old_content(void *opaque)
{
    struct world world = { .retries = true };
    struct guest_write write = { &world, 0, CLUSTER };
    uint64_t cursor = 0;

    (void)opaque;
    co_open_world(&world);
    world.target_disk->write_error = -EIO;
    co_block_copy_step(world.copy, &cursor);
    assert_true(block_copy_is_held(world.copy));
    assert_int_equal(co_block_copy_step(world.copy, &cursor), 0);
    co_guest_write(&write);
    assert_int_equal(world.guest_result, 0);
    world.target_disk->write_error = 0;
    block_copy_go_on(world.copy);
    co_copy_all(&world);
    assert_true(block_copy_is_done(world.copy));
    assert_target_is_instant(&world);
    co_close_world(&world);
}

/* A cluster that failed to be read comes back, and a guest that waited for the
 * reading saves it itself. */
static void co_retried_read_is_saved_by_the_guest(void *opaque)
{
    struct world world = { .retries = true };
    struct guest_write write = { &world, 0, 512 };
    uint64_t cursor = 0;

    (void)opaque;
    co_open_world(&world);
    world.source_disk->hang_reads = true;
    world.source_disk->read_error = -EIO;
    co_block_copy_step(world.copy, &cursor);
    co_enter(co_guest_write, &write);
    world.source_disk->fail_once = true;
    memory_disk_release(world.source_disk);
    while (!world.guest_done) {
        co_reschedule();
    }
    assert_int_equal(world.guest_result, 0);
    block_copy_go_on(world.copy);
    while (co_block_copy_step(world.copy, &cursor) > 0) {
    }
    co_block_copy_settle(world.copy);
    assert_target_is_instant(&world);
    co_close_world(&world);
}

static void co_guest_that_pays_fails_and_the_copy_goes_on(void *opaque)
{
    struct world world = { .guest_pays = true };
    struct guest_write write = { &world, 0, 512 };

    (void)opaque;
    co_open_world(&world);
    world.target_disk->write_error = -EIO;
    co_guest_write(&write);
    assert_int_equal(world.guest_result, -EIO);
    assert_memory_equal(world.source_disk->data, world.before, SIZE);
    world.target_disk->write_error = 0;
    co_guest_write(&write);
    assert_int_equal(world.guest_result, 0);
    co_copy_all(&world);
    assert_target_is_instant(&world);
    co_close_world(&world);
}

/* Nobody holds guests off that read any more, so it may be newer than the
 * instant. */
static void co_read_after_stop_is_not_a_copy(void *opaque)
{
    struct world world = { .guest_pays = false };
    struct guest_write write = { &world, 0, 512 };
    uint64_t cursor = 0;

    (void)opaque;
    co_open_world(&world);
    world.source_disk->hang_reads = true;
    co_block_copy_step(world.copy, &cursor);
    block_copy_stop(world.copy);
    co_guest_write(&write);
    memory_disk_release(world.source_disk);
    co_block_copy_settle(world.copy);
    assert_int_equal(world.target_disk->writes, 0);
    assert_int_equal(world.failures, 0);
    assert_int_equal(block_copy_remaining_bytes(world.copy), SIZE);
    co_close_world(&world);
}

/* If the one that pays cannot save it, the source must still hold it. */
static void co_others_wait_for_the_guest_that_pays(void *opaque)
{
    struct world world = { .guest_pays = true };
    struct world other = { .guest_pays = true };
    struct guest_write first = { &world, 0, 512 };
    struct guest_write second = { &other, 1024, 512 };

    (void)opaque;
    co_open_world(&world);
    other.source = world.source;
    world.target_disk->hang_writes = true;
    world.target_disk->write_error = -EIO;
    co_enter(co_guest_write, &first);
    co_enter(co_guest_write, &second);
    co_reschedule();
    assert_false(world.guest_done);
    assert_false(other.guest_done);
    memory_disk_release(world.target_disk);
    while (!world.guest_done || !other.guest_done) {
        co_reschedule();
    }
    assert_int_equal(world.guest_result, -EIO);
    assert_int_equal(other.guest_result, -EIO);
    assert_memory_equal(world.source_disk->data, world.before, SIZE);
    assert_int_equal(block_copy_remaining_bytes(world.copy), SIZE);
    co_close_world(&world);
}

static void co_guest_that_pays_is_let_go_by_a_stop(void *opaque)
{
    struct world world = { .guest_pays = true };
    struct guest_write write = { &world, 0, 512 };

    (void)opaque;
    co_open_world(&world);
    world.target_disk->hang_writes = true;
    co_enter(co_guest_write, &write);
    co_reschedule();
    assert_false(world.guest_done);
    block_copy_stop(world.copy);
    co_reschedule();
    assert_true(world.guest_done);
    assert_int_equal(world.guest_result, 0);
    memory_disk_release(world.target_disk);
    co_close_world(&world);
}

#define TEST(name)              \
 static void name(void **state) \
 {                              \
  (void)state;                  \
  run_in_loop(co_##name, NULL); \
 }

TEST(copies_all)
TEST(copies_only_remaining)
TEST(zeroes_are_not_written_as_data)
TEST(zeroes_of_a_layer_are_its_own)
TEST(compresses_when_told)
TEST(guest_overwrites_everything)
TEST(guest_waits_for_background_read)
TEST(guests_wait_together_for_background_read)
TEST(guest_does_not_wait_for_target)
TEST(failed_write_comes_back)
TEST(failed_save_breaks_copy_not_guest)
TEST(stopped_copy_saves_nothing)
TEST(background_memory_is_bounded)
TEST(retried_write_keeps_old_content)
TEST(retried_read_is_saved_by_the_guest)
TEST(guest_that_pays_fails_and_the_copy_goes_on)
TEST(read_after_stop_is_not_a_copy)
TEST(others_wait_for_the_guest_that_pays)
TEST(guest_that_pays_is_let_go_by_a_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_all),
        cmocka_unit_test(copies_only_remaining),
        cmocka_unit_test(zeroes_are_not_written_as_data),
        cmocka_unit_test(zeroes_of_a_layer_are_its_own),
        cmocka_unit_test(compresses_when_told),
        cmocka_unit_test(guest_overwrites_everything),
        cmocka_unit_test(guest_waits_for_background_read),
        cmocka_unit_test(guests_wait_together_for_background_read),
        cmocka_unit_test(guest_does_not_wait_for_target),
        cmocka_unit_test(failed_write_comes_back),
        cmocka_unit_test(failed_save_breaks_copy_not_guest),
        cmocka_unit_test(stopped_copy_saves_nothing),
        cmocka_unit_test(background_memory_is_bounded),
        cmocka_unit_test(retried_write_keeps_old_content),
        cmocka_unit_test(retried_read_is_saved_by_the_guest),
        cmocka_unit_test(guest_that_pays_fails_and_the_copy_goes_on),
        cmocka_unit_test(read_after_stop_is_not_a_copy),
        cmocka_unit_test(others_wait_for_the_guest_that_pays),
        cmocka_unit_test(guest_that_pays_is_let_go_by_a_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
