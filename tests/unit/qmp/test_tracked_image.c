/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One qcow2 image with persistent bitmaps, under the engine as a daemon has it,
 * on a storage in memory that dies. What both the image and its tracking file
 * store must agree, whatever happens between writing to the one and to the other.
 *
 * Most tests go through all steps of a command or of closing, one life for each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bitmap/dirty_bitmap.h"
#include "block/request.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/create.h"
#include "journal/image_disk.h"
#include "journal/outcome_source.h"
#include "journal/storage_memory.h"
#include "loop/coroutine.h"
#include "loop/scheduler.h"
#include "qmp/dispatch.h"
#include "qmp/engine.h"

#define IMAGE_PATH      "/disk.qcow2"
#define STATE_DIRECTORY "/state"
#define IMAGE_BYTES     (UINT64_C(96) * 1024)
#define CHECKPOINT_NS   UINT64_C(1000000000)
#define STEPS_MAX       1000
#define WRITTEN_BYTE    0xa5

static const char *const names[] = { "b0", "b1" };

struct world {
    struct random random;
    struct scheduler scheduler;
    struct storage_memory *memory;
    struct engine engine;
    struct tracking tracking;
    struct outcome_source outcomes;
    enum tracker_durability durability;
    struct block_node *node; /* NULL: it is closed */
    /* The life, on the main loop. */
    void (*co_run)(struct world *world);
    bool over;
    /* The step at which it dies, or a checkpoint is due; 0: none. */
    uint64_t step;
    /* What happened. */
    uint64_t steps_of_closing;
    bool closing;
    bool (*co_remove)(struct world *world);
    bool was_answered;
};

/*
 * The engine.
 */

static const struct qmp_command *const tables[] = {
    qmp_commands_bitmap,
    qmp_commands_transaction,
    NULL,
};

static const struct block_driver *const format_drivers[] = {
    &driver_qcow2,
    NULL,
};

static void drop_event(void *opaque, const char *event, struct json_value *data)
{
    (void)opaque;
    (void)event;
    json_free(data);
}

/* What the engine warns of, a crash means. */
static void drop_warning(const char *domain,
                         GLogLevelFlags level,
                         const char *message,
                         void *opaque)
{
    if ((level & G_LOG_LEVEL_WARNING) == 0) {
        g_log_default_handler(domain, level, message, opaque);
    }
}

static void make_engine(struct world *world)
{
    const struct coordinator_options options = {
        .storage = storage_memory_storage(world->memory),
        .path = STATE_DIRECTORY,
        .event = drop_event,
    };
    const struct tracking_settings settings = {
        .durability = world->durability,
        .checkpoint_ns = CHECKPOINT_NS,
    };
    struct engine *engine = &world->engine;

    *engine = (struct engine){
        .main = scheduler_add_loop(&world->scheduler, "main"),
    };
    engine->graph = block_graph_new(engine->main, image_disk_drivers);
    block_graph_add_drivers(engine->graph, format_drivers);
    engine->jobs = job_list_new(drop_event, NULL);
    engine->coordinator = coordinator_new(&options);
    outcome_source_init(&world->outcomes, engine->coordinator, engine->main);
    tracking_init(&world->tracking, options.storage, STATE_DIRECTORY, &settings,
                  &world->outcomes.outcomes, engine->main);
    engine->tracking = &world->tracking;
    block_graph_set_watcher(engine->graph, &world->tracking.watcher);
}

static bool co_command(struct world *world,
                       const char *name,
                       struct json_value *arguments)
{
    g_autoptr(json_value) request = json_dict_new();
    g_autoptr(json_value) reply = NULL;
    enum qmp_mode mode = QMP_MODE_COMMAND;

    json_dict_set_string(request, "execute", name);
    json_dict_set(request, "arguments", arguments);
    reply = co_qmp_dispatch(tables, &world->engine, &mode, request);
    return json_dict_get(reply, "error") == NULL;
}

static struct json_value *bitmap_arguments(const char *name)
{
    struct json_value *arguments = json_dict_new();

    json_dict_set_string(arguments, "node", "disk");
    json_dict_set_string(arguments, "name", name);
    return arguments;
}

/*
 * A life.
 */

static struct json_value *file_options(void)
{
    struct json_value *options = json_dict_new();

    json_dict_set_string(options, "driver", "file");
    json_dict_set_string(options, "path", IMAGE_PATH);
    return options;
}

static void co_open_image(struct world *world)
{
    g_autoptr(json_value) options = json_dict_new();

    json_dict_set_string(options, "driver", "qcow2");
    json_dict_set_string(options, "node-name", "disk");
    json_dict_set(options, "file", file_options());
    assert_int_equal(
        co_block_add(world->engine.graph, options, true, &world->node, NULL),
        0);
}

/* As the daemon does. When the storage has died it unwinds what is left. */
static void co_shut_down(struct world *world)
{
    struct engine *engine = &world->engine;

    world->closing = true;
    coordinator_let_go(engine->coordinator);
    co_coordinator_drain(engine->coordinator);
    co_block_graph_lock(engine->graph);
    co_block_del_all(engine->graph);
    block_graph_unlock(engine->graph);
    world->closing = false;
    world->node = NULL;
    co_coordinator_close(engine->coordinator);
    tracking_release(&world->tracking);
}

static void co_live(void *opaque)
{
    struct world *world = opaque;

    world->co_run(world);
    co_shut_down(world);
    world->over = true;
}

static void live(struct world *world,
                 void (*co_run)(struct world *world),
                 enum storage_crash end)
{
    uint64_t began_ns = world->scheduler.now_ns;

    scheduler_init(&world->scheduler, &world->random);
    world->scheduler.now_ns += began_ns; /* it never goes back */
    make_engine(world);
    world->co_run = co_run;
    world->over = false;
    co_spawn(world->engine.main, co_live, world);
    while (!world->over && scheduler_turn(&world->scheduler)) {
    }
    assert_true(world->over);
    while (scheduler_turn(&world->scheduler)) {
    }
    storage_memory_reboot(world->memory, end);
    job_list_free(world->engine.jobs);
    block_graph_free(world->engine.graph);
    scheduler_release(&world->scheduler);
}

static void co_make_image(struct world *world)
{
    const struct qcow2_create_options create = {
        .size_bytes = IMAGE_BYTES,
        .cluster_bytes = 4096,
    };
    g_autoptr(json_value) options = file_options();
    struct block_node *node;

    json_dict_set_string(options, "node-name", "new");
    assert_int_equal(
        co_block_add(world->engine.graph, options, true, &node, NULL), 0);
    assert_int_equal(co_qcow2_create(node, &create, NULL), 0);
    assert_int_equal(co_block_del(world->engine.graph, "new", NULL), 0);
}

static void co_make_bitmaps(struct world *world)
{
    co_make_image(world);
    co_open_image(world);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        struct json_value *arguments = bitmap_arguments(names[i]);

        json_dict_set_bool(arguments, "persistent", true);
        assert_true(co_command(world, "block-dirty-bitmap-add", arguments));
    }
}

/* Looks on at each step of the storage. */
static enum storage_verdict observe(void *opaque,
                                    const struct storage_step *step)
{
    struct world *world = opaque;

    (void)step;
    if (world->closing && ++world->steps_of_closing == world->step) {
        world->scheduler.now_ns += 2 * CHECKPOINT_NS;
    }
    return STORAGE_GOES_ON;
}

/* A closed image, which stores its bitmaps, and its tracking file. */
static struct world *world_new(uint64_t seed, uint64_t step)
{
    struct world *world = g_new0(struct world, 1);

    g_log_set_default_handler(drop_warning, NULL);
    random_init(&world->random, seed);
    world->memory = storage_memory_new(&world->random);
    image_disk_use(storage_memory_storage(world->memory));
    storage_memory_poke(world->memory, IMAGE_PATH, 0, "", 1);
    storage_memory_make_folder(world->memory, STATE_DIRECTORY);
    live(world, co_make_bitmaps, STORAGE_CRASH_POWER);
    world->step = step;
    storage_memory_observe(world->memory, observe, world);
    return world;
}

static void world_free(struct world *world)
{
    storage_memory_free(world->memory);
    g_free(world);
}

/*
 * Removing.
 */

static bool co_remove_one(struct world *world)
{
    return co_command(world, "block-dirty-bitmap-remove",
                      bitmap_arguments("b0"));
}

/* Both, which a record decides. */
static bool co_remove_together(struct world *world)
{
    struct json_value *arguments = json_dict_new();
    struct json_value *actions = json_list_new();

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        struct json_value *action = json_dict_new();

        json_dict_set_string(action, "type", "block-dirty-bitmap-remove");
        json_dict_set(action, "data", bitmap_arguments(names[i]));
        json_list_append(actions, action);
    }
    json_dict_set(arguments, "actions", actions);
    return co_command(world, "transaction", arguments);
}

static void co_remove(struct world *world)
{
    co_open_image(world);
    storage_memory_crash_at(world->memory, world->step);
    world->was_answered =
        world->co_remove(world) && !storage_memory_is_dead(world->memory);
    if (!storage_memory_is_dead(world->memory)) {
        storage_memory_crash_at(world->memory, 1);
    }
}

static bool is_there(const struct world *world, const char *name)
{
    const struct dirty_bitmap *found = dirty_bitmap_find(world->node, name);

    if (found != NULL && dirty_bitmap_reason(found) != NULL) {
        fail_msg("step %" G_GUINT64_FORMAT ": '%s' came back: %s", world->step,
                 name, dirty_bitmap_reason(found));
    }
    return found != NULL;
}

/* Each is what it was, or is gone from both. */
static void co_expect_gone_or_good(struct world *world)
{
    bool together = world->co_remove == co_remove_together;

    co_open_image(world);
    assert_false(world->was_answered && is_there(world, "b0"));
    assert_int_equal(is_there(world, "b1"), !together || is_there(world, "b0"));
}

static void remove_at_each_step(bool (*co_remove_so)(struct world *world),
                                enum storage_crash end)
{
    bool was_answered = false;

    for (uint64_t step = 1; !was_answered; step++) {
        struct world *world = world_new(step, step);

        assert_true(step < STEPS_MAX);
        world->co_remove = co_remove_so;
        live(world, co_remove, end);
        was_answered = world->was_answered;
        live(world, co_expect_gone_or_good, STORAGE_CRASH_KILL);
        world_free(world);
    }
}

static void test_a_removed_bitmap_does_not_come_back(void **state)
{
    (void)state;
    remove_at_each_step(co_remove_one, STORAGE_CRASH_KILL);
    remove_at_each_step(co_remove_one, STORAGE_CRASH_POWER);
}

static void test_bitmaps_removed_together_do_not_come_back(void **state)
{
    (void)state;
    remove_at_each_step(co_remove_together, STORAGE_CRASH_KILL);
    remove_at_each_step(co_remove_together, STORAGE_CRASH_POWER);
}

/*
 * Closing.
 */

/* The first touch makes a checkpoint due some time later, and since a bitmap has
 * lost bits that one will flush the image. */
static void co_write(struct world *world)
{
    uint8_t sector[512] = { 1 };
    struct bitmap *successor;
    struct dirty_bitmap *other;

    co_open_image(world);
    assert_int_equal(
        co_block_pwrite(world->node, 4096, sizeof(sector), sector, 0), 0);
    other = dirty_bitmap_find(world->node, "b1");
    successor =
        bitmap_new(IMAGE_BYTES, dirty_bitmap_granularity_bytes(other), NULL);
    dirty_bitmap_freeze(other, &successor, "job");
    dirty_bitmap_abdicate(other);
    world->steps_of_closing = 0;
}

static void co_expect_dirty(struct world *world)
{
    struct dirty_bitmap *found;

    co_open_image(world);
    found = dirty_bitmap_find(world->node, "b0");
    assert_non_null(found);
    assert_null(dirty_bitmap_reason(found));
    assert_true(bitmap_get(dirty_bitmap_bits(found), 4096));
}

static void test_a_checkpoint_may_be_due_at_any_step_of_closing(void **state)
{
    uint64_t steps = 1;

    (void)state;
    for (uint64_t step = 1; step <= steps; step++) {
        for (uint64_t seed = 1; seed <= 8; seed++) {
            struct world *world = world_new(seed, step);

            live(world, co_write, STORAGE_CRASH_POWER);
            steps = world->steps_of_closing;
            assert_in_range(steps, 5, STEPS_MAX);
            live(world, co_expect_dirty, STORAGE_CRASH_POWER);
            world_free(world);
        }
    }
}

/*
 * Killed.
 */

/* What a command of durability=process cleared or added is a difference to what
 * the disk holds by then: a kill must not take that back. The image keeps in
 * memory where a new cluster is until it is flushed. */
static void co_write_and_lose_bits(struct world *world)
{
    uint8_t sector[512] = { WRITTEN_BYTE };
    struct json_value *arguments = bitmap_arguments("b2");

    co_open_image(world);
    assert_int_equal(
        co_block_pwrite(world->node, 4096, sizeof(sector), sector, 0), 0);
    assert_true(
        co_command(world, "block-dirty-bitmap-clear", bitmap_arguments("b0")));
    json_dict_set_bool(arguments, "persistent", true);
    assert_true(co_command(world, "block-dirty-bitmap-add", arguments));
    co_sleep_until(loop_now_ns() + 1000); /* the cleared intents are written */
    storage_memory_crash_at(world->memory, 1);
}

static void co_expect_written_or_dirty(struct world *world)
{
    static const char *const changed[] = { "b0", "b2" };
    uint8_t sector[512] = { 0 };

    co_open_image(world);
    assert_int_equal(co_block_pread(world->node, 4096, sizeof(sector), sector),
                     0);
    for (size_t i = 0; i < G_N_ELEMENTS(changed); i++) {
        struct dirty_bitmap *found = dirty_bitmap_find(world->node, changed[i]);

        assert_non_null(found);
        assert_null(dirty_bitmap_reason(found));
        assert_true(sector[0] == WRITTEN_BYTE ||
                    bitmap_get(dirty_bitmap_bits(found), 4096));
    }
}

static void test_a_kill_takes_back_nothing_that_a_bitmap_builds_on(void **state)
{
    struct world *world = world_new(1, 0);

    (void)state;
    world->durability = TRACKER_PROCESS;
    live(world, co_write_and_lose_bits, STORAGE_CRASH_KILL);
    live(world, co_expect_written_or_dirty, STORAGE_CRASH_KILL);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_removed_bitmap_does_not_come_back),
        cmocka_unit_test(test_bitmaps_removed_together_do_not_come_back),
        cmocka_unit_test(test_a_checkpoint_may_be_due_at_any_step_of_closing),
        cmocka_unit_test(
            test_a_kill_takes_back_nothing_that_a_bitmap_builds_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
