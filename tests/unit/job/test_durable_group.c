/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups over three disks with real tracking files, which die anywhere: all
 * bitmaps have consumed the backup afterwards, or none has.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "block/request.h"
#include "job/durable_group.h"
#include "journal/image_disk.h"
#include "journal/outcome_source.h"
#include "journal/storage_memory.h"
#include "loop/coroutine.h"
#include "loop/scheduler.h"

#define DISKS       3
#define IMAGE_BYTES UINT64_C(1048576)
#define GRANULARITY UINT64_C(65536)

enum told {
    TOLD_NOTHING,
    TOLD_COMMITTED,
    TOLD_FAILED,
};

struct world {
    struct random random;
    struct scheduler scheduler;
    struct loop *loop;
    struct storage_memory *memory;
    struct block_graph *graph;
    struct coordinator *coordinator;
    struct outcome_source source;
    struct block_node *nodes[DISKS];
    struct tracker *trackers[DISKS];
    enum told told;
    struct journal_id txid;
    bool (*co_life)(struct world *world);
    bool over;
    /* What the last recovery found. */
    struct bitmap_base bases[DISKS];
    uint64_t dirty[DISKS];
};

/* --- A daemon's life ------------------------------------------------------------- */

static void drop_event(void *opaque, const char *event, struct json_value *data)
{
    (void)opaque;
    (void)event;
    json_free(data);
}

static void image_path(int disk, char *ret_path)
{
    g_snprintf(ret_path, 16, "/img/d%d", disk);
}

static int co_open_disk(struct world *world, int disk)
{
    g_autoptr(json_value) options = json_dict_new();
    char name[4], path[16], tracking[32];
    struct tracker_options tracker = {
        .storage = storage_memory_storage(world->memory),
        .path = tracking,
        .image_path = path,
        .outcomes = &world->source.outcomes,
    };
    int ret;

    g_snprintf(name, sizeof(name), "d%d", disk);
    image_path(disk, path);
    g_snprintf(tracking, sizeof(tracking), "%s.cbt", path);
    json_dict_set_string(options, "driver", "simimage");
    json_dict_set_string(options, "node-name", name);
    json_dict_set_string(options, "path", path);
    ret = co_block_add(world->graph, options, true, &world->nodes[disk], NULL);
    if (ret == 0) {
        ret = co_tracker_open(world->nodes[disk], &tracker,
                              &world->trackers[disk], NULL);
    }
    if (ret == 0 && world->trackers[disk] == NULL) {
        ret = co_tracker_create(world->nodes[disk], &tracker,
                                &world->trackers[disk], NULL);
    }
    return ret;
}

static void co_close_disk(struct world *world, int disk)
{
    if (world->trackers[disk] != NULL) {
        (void)co_tracker_close(&world->trackers[disk], NULL);
    }
    if (world->nodes[disk] != NULL) {
        dirty_bitmap_release_node(world->nodes[disk]);
    }
}

static void co_live(void *opaque)
{
    struct world *world = opaque;
    const struct coordinator_options options = {
        .storage = storage_memory_storage(world->memory),
        .path = "/state",
        .event = drop_event,
    };
    int ret = 0;

    world->coordinator = coordinator_new(&options);
    outcome_source_init(&world->source, world->coordinator, world->loop);
    for (int i = 0; i < DISKS; i++) {
        world->nodes[i] = NULL;
        world->trackers[i] = NULL;
    }
    for (int i = 0; ret == 0 && i < DISKS; i++) {
        ret = co_open_disk(world, i);
    }
    if (ret == 0) {
        world->co_life(world);
    }
    coordinator_let_go(world->coordinator);
    for (int i = 0; i < DISKS; i++) {
        co_close_disk(world, i);
    }
    co_block_del_all(world->graph);
    co_coordinator_close(world->coordinator);
    world->over = true;
}

/* Returns true if it died. */
static bool live(struct world *world,
                 bool (*co_life)(struct world *world),
                 uint64_t point,
                 enum storage_crash crash)
{
    bool died;

    world->graph = block_graph_new(world->loop, image_disk_drivers);
    world->co_life = co_life;
    world->over = false;
    storage_memory_crash_at(world->memory, point);
    co_spawn(world->loop, co_live, world);
    while (!world->over && scheduler_turn(&world->scheduler)) {
    }
    assert_true(world->over);
    block_graph_free(world->graph);
    died = storage_memory_is_dead(world->memory);
    if (died) {
        storage_memory_reboot(world->memory, crash);
    }
    storage_memory_crash_at(world->memory, 0);
    return died;
}

/* --- Lives ------------------------------------------------------------------------ */

static struct dirty_bitmap *bitmap_of(struct world *world, int disk)
{
    return dirty_bitmap_find(world->nodes[disk], "b0");
}

static bool co_add_bitmaps(struct world *world)
{
    for (int i = 0; i < DISKS; i++) {
        struct tracker *tracker = world->trackers[i];
        struct dirty_bitmap *bitmap =
            dirty_bitmap_new(world->nodes[i], "b0", GRANULARITY, false, NULL);
        uint8_t byte = 1;

        assert_non_null(bitmap);
        co_tracker_begin(tracker);
        assert_int_equal(co_tracker_reserve(tracker, GRANULARITY, NULL), 0);
        dirty_bitmap_attach(world->nodes[i], &bitmap);
        tracker_change(tracker, bitmap_of(world, i), TRACKER_CHANGE_ADD, NULL,
                       NULL);
        assert_int_equal(co_tracker_commit(tracker, NULL), 0);
        co_tracker_end(tracker);
        struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
        assert_int_equal(co_block_pwritev(world->nodes[i], 0, 1, &iov, 1, 0),
                         0);
    }
    return true;
}

struct part {
    struct durable_part part;
    struct dirty_bitmap *bitmap;
};

static void settle(struct durable_part *settled, enum tracker_outcome outcome)
{
    struct part *part = LIST_ENTRY(settled, struct part, part);

    if (outcome == TRACKER_COMMITTED) {
        dirty_bitmap_abdicate(part->bitmap);
    } else {
        dirty_bitmap_reclaim(part->bitmap);
    }
}

static void freeze_all(struct world *world,
                       struct durable_group *group,
                       struct part *parts)
{
    for (int i = 0; i < DISKS; i++) {
        struct bitmap *successor = bitmap_new(IMAGE_BYTES, GRANULARITY, NULL);

        dirty_bitmap_freeze(parts[i].bitmap, &successor, "job");
        tracker_freeze(world->trackers[i], parts[i].bitmap,
                       durable_group_txid(group), TRACKER_ON_SUCCESS);
    }
}

static bool wait_for_it(void *opaque, const GError *why)
{
    struct world *world = opaque;

    (void)why;
    return !storage_memory_is_dead(world->memory);
}

/* As a group of three backup jobs does it, without the copying. */
static bool co_backup(struct world *world)
{
    struct durable_cut *cut = durable_cut_new(world->coordinator);
    struct durable_group *group = durable_cut_add_group(cut, "label", NULL);
    struct part parts[DISKS];
    int ret;

    world->told = TOLD_NOTHING;
    world->txid = *durable_group_txid(group);
    for (int i = 0; i < DISKS; i++) {
        parts[i] = (struct part){ .part.settle = settle,
                                  .bitmap = bitmap_of(world, i) };
        const struct durable_change change = {
            .node = world->nodes[i],
            .bitmap = parts[i].bitmap,
            .gets_base = true,
        };

        durable_group_add(cut, group, &parts[i].part, &change);
    }
    if (co_durable_cut_begin(cut, NULL) < 0) {
        co_durable_cut_discard(&cut);
        return false;
    }
    freeze_all(world, group, parts);
    co_durable_cut_end(&cut);
    ret = co_durable_group_decide(group, wait_for_it, world, NULL);
    co_durable_group_end(&group);
    if (!storage_memory_is_dead(world->memory)) {
        world->told = ret == 0 ? TOLD_COMMITTED : TOLD_FAILED;
    }
    return ret == 0;
}

static bool co_look(struct world *world)
{
    for (int i = 0; i < DISKS; i++) {
        struct dirty_bitmap *bitmap = bitmap_of(world, i);

        assert_non_null(bitmap);
        assert_null(tracker_reason(world->trackers[i]));
        assert_false(dirty_bitmap_is_frozen(bitmap));
        assert_true(tracker_base(world->trackers[i], bitmap, &world->bases[i]));
        world->dirty[i] = bitmap_count(dirty_bitmap_bits(bitmap));
    }
    return true;
}

static bool has_new_base(const struct world *world, int disk)
{
    const struct bitmap_base *base = &world->bases[disk];

    assert_int_not_equal(base->kind, BITMAP_BASE_EITHER);
    return base->kind == BITMAP_BASE_ONE &&
           journal_id_equal(&base->points[0].txid, &world->txid);
}

static void check_alike(struct world *world)
{
    for (int i = 0; i < DISKS; i++) {
        assert_int_equal(has_new_base(world, i), has_new_base(world, 0));
        /* What was not consumed is dirty still. */
        assert_true(has_new_base(world, i) || world->dirty[i] > 0);
    }
    if (world->told != TOLD_NOTHING) {
        assert_int_equal(has_new_base(world, 0), world->told == TOLD_COMMITTED);
    }
}

/* --- Tests ------------------------------------------------------------------------ */

static struct world *world_new(uint64_t seed)
{
    struct world *world = g_new0(struct world, 1);
    g_autofree uint8_t *zeroes = g_malloc0(IMAGE_BYTES);

    random_init(&world->random, seed);
    scheduler_init(&world->scheduler, &world->random);
    world->loop = scheduler_add_loop(&world->scheduler, "main");
    world->memory = storage_memory_new(&world->random);
    storage_memory_set_clock(world->memory, &world->scheduler.now_ns);
    image_disk_use(storage_memory_storage(world->memory));
    for (int i = 0; i < DISKS; i++) {
        char path[16];

        image_path(i, path);
        storage_memory_poke(world->memory, path, 0, zeroes, IMAGE_BYTES);
    }
    live(world, co_add_bitmaps, 0, STORAGE_CRASH_KILL);
    return world;
}

static void world_free(struct world *world)
{
    scheduler_release(&world->scheduler);
    storage_memory_free(world->memory);
    g_free(world);
}

static bool crash_at(uint64_t seed, uint64_t point, enum storage_crash crash)
{
    struct world *world = world_new(seed);
    bool died = live(world, co_backup, point, crash);

    live(world, co_look, 0, STORAGE_CRASH_KILL);
    check_alike(world);
    world_free(world);
    return died;
}

static void test_a_crash_anywhere_ends_all_bitmaps_alike(void **state)
{
    uint64_t point = 1;

    (void)state;
    while (crash_at(point, point, STORAGE_CRASH_KILL)) {
        (void)crash_at(1000 + point, point, STORAGE_CRASH_POWER);
        point++;
    }
    assert_in_range(point, 30, 100000);
}

static void test_a_crash_in_recovery_ends_all_bitmaps_alike(void **state)
{
    (void)state;
    for (uint64_t point = 10; point < 100; point += 9) {
        bool died = true;

        for (uint64_t again = 1; died && again < 60; again += 5) {
            struct world *world = world_new(point * 100 + again);

            (void)live(world, co_backup, point, STORAGE_CRASH_KILL);
            died = live(world, co_look, again, STORAGE_CRASH_POWER);
            live(world, co_look, 0, STORAGE_CRASH_KILL);
            check_alike(world);
            world_free(world);
        }
    }
}

static bool co_backup_and_stay(struct world *world)
{
    assert_true(co_backup(world));
    return co_look(world);
}

static void test_a_commit_gives_each_bitmap_its_base(void **state)
{
    struct world *world = world_new(1);

    (void)state;
    live(world, co_backup_and_stay, 0, STORAGE_CRASH_KILL);
    check_alike(world);
    assert_true(has_new_base(world, 0));
    assert_int_equal(world->dirty[0], 0);
    world_free(world);
}

static bool co_broken_backup(struct world *world)
{
    storage_memory_fail_writes(world->memory, "d1.cbt", -EIO);
    assert_false(co_backup(world));
    storage_memory_fail_writes(world->memory, NULL, 0);
    return true;
}

static void test_a_file_that_cannot_be_prepared_aborts_all(void **state)
{
    struct world *world = world_new(1);

    (void)state;
    live(world, co_broken_backup, 0, STORAGE_CRASH_KILL);
    assert_int_equal(world->told, TOLD_FAILED);
    world_free(world);
}

static bool co_backup_without_commit(struct world *world)
{
    storage_memory_fail_sync(world->memory, "-0000.log", 1);
    assert_false(co_backup(world));
    return co_look(world);
}

static void test_a_commit_that_fails_takes_nothing_from_a_bitmap(void **state)
{
    struct world *world = world_new(1);

    (void)state;
    live(world, co_backup_without_commit, 0, STORAGE_CRASH_KILL);
    assert_int_equal(world->told, TOLD_FAILED);
    check_alike(world);
    live(world, co_look, 0, STORAGE_CRASH_KILL);
    check_alike(world);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_commit_gives_each_bitmap_its_base),
        cmocka_unit_test(test_a_file_that_cannot_be_prepared_aborts_all),
        cmocka_unit_test(test_a_commit_that_fails_takes_nothing_from_a_bitmap),
        cmocka_unit_test(test_a_crash_anywhere_ends_all_bitmaps_alike),
        cmocka_unit_test(test_a_crash_in_recovery_ends_all_bitmaps_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
