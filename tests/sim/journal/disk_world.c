/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A life: the node is opened, its bitmaps are recovered and compared with the
 * oracle; guests write and flush while verbs run, one after the other; it ends
 * with a crash at some point of the storage, or cleanly. After a crash everything
 * fails, so all coroutines come to their ends; then the storage loses what it
 * loses.
 */
#include <errno.h>
#include <string.h>

#include "journal/disk_world_priv.h"
#include "journal/image_disk.h"

void world_count(struct world *world, enum world_count what)
{
    world->result->counts[what]++;
}

void world_fail(struct world *world, char *problem)
{
    if (world->result->problem == NULL) {
        world->result->problem = g_strdup_printf(
            "seed %" G_GUINT64_FORMAT ", point %" G_GUINT64_FORMAT ": %s",
            world->options->seed, storage_memory_points(world->memory),
            problem);
    }
    g_free(problem);
}

GBytes *world_content(struct world *world)
{
    uint64_t bytes;
    const uint8_t *data =
        storage_memory_peek(world->memory, IMAGE_PATH, &bytes);

    return g_bytes_new(data, bytes);
}

/*
 * The log.
 */

struct verdict *world_verdict(struct world *world,
                              const struct journal_id *txid)
{
    for (guint i = 0; i < world->verdicts->len; i++) {
        struct verdict *verdict =
            &g_array_index(world->verdicts, struct verdict, i);

        if (journal_id_equal(&verdict->txid, txid)) {
            return verdict;
        }
    }
    return NULL;
}

static enum tracker_outcome co_ask(struct tracker_outcomes *outcomes,
                                   const struct journal_id *txid,
                                   const struct log_segment *segment)
{
    struct world *world = LIST_ENTRY(outcomes, struct world, outcomes);
    const struct verdict *verdict = world_verdict(world, txid);

    (void)segment;
    if (verdict == NULL || !verdict->told) {
        return TRACKER_ABORTED;
    }
    if (verdict->acknowledged && segment != NULL) {
        world_fail(world,
                   g_strdup("an acknowledged outcome was asked for again"));
    }
    return verdict->outcome;
}

static void co_acknowledge(struct tracker_outcomes *outcomes,
                           const struct journal_id *txid,
                           const struct journal_id *disk)
{
    struct world *world = LIST_ENTRY(outcomes, struct world, outcomes);
    struct verdict *verdict;

    (void)disk;
    if (txid == NULL) {
        for (guint i = 0; i < world->dead_verdicts; i++) {
            verdict = &g_array_index(world->verdicts, struct verdict, i);
            verdict->acknowledged = true;
        }
        return;
    }
    verdict = world_verdict(world, txid);
    if (verdict != NULL) {
        verdict->acknowledged = true;
        world_count(world, WORLD_ACKNOWLEDGED);
    }
}

/*
 * Guests.
 */

static void co_guest_write(struct world *world)
{
    uint64_t size_bytes = block_size(world->node);
    uint64_t sectors = random_between(&world->random, 1, 12);
    uint64_t offset = random_below(&world->random, size_bytes / 512) * 512;
    uint64_t bytes = MIN(sectors * 512, size_bytes - offset);
    g_autofree uint8_t *data = g_malloc(bytes);

    for (uint64_t at = 0; at < bytes; at += 8) {
        store_le64(data + at, ++world->stamp);
    }
    if (co_block_pwrite(world->node, offset, bytes, data, 0) == 0) {
        world_count(world, WORLD_WRITES);
    }
}

void co_world_guest(void *opaque)
{
    struct world *world = opaque;

    while (!world->guests_stop) {
        if (random_once_in(&world->random, 12)) {
            if (co_block_flush(world->node) == 0) {
                world_count(world, WORLD_FLUSHES);
            }
        } else {
            co_guest_write(world);
        }
        if (random_once_in(&world->random, 6)) {
            co_sleep_until(loop_now_ns() + random_below(&world->random, 40000));
        }
        co_reschedule();
    }
    world->guests--;
    co_queue_wake_all(&world->guests_gone);
}

/*
 * A life.
 */

static void plant_fault(struct world *world)
{
    if (!world->options->faults || !random_once_in(&world->random, 10)) {
        return;
    }
    world->may_fail = true;
    if (random_once_in(&world->random, 4)) {
        storage_memory_fail_sync(world->memory, ".raw",
                                 random_between(&world->random, 1, 4));
        world_count(world, WORLD_FLUSH_FAILED);
    } else if (random_once_in(&world->random, 4)) {
        storage_memory_fail_sync(world->memory, ".cbt.new",
                                 random_between(&world->random, 1, 3));
        world_count(world, WORLD_NEW_FILE_FAILED);
    } else {
        storage_memory_fail_sync(world->memory, ".cbt",
                                 random_between(&world->random, 1, 8));
        world_count(world, WORLD_SYNC_FAILED);
    }
}

static void co_steps(struct world *world)
{
    for (uint64_t i = 0; i < world->options->steps; i++) {
        uint64_t chance = random_below(&world->random, 15);

        if (storage_memory_is_dead(world->memory) ||
            tracker_reason(world->tracker) != NULL) {
            return;
        }
        plant_fault(world);
        if (chance <= 5) {
            co_world_verb(world);
        } else if (chance <= 8) {
            co_world_job(world);
        } else if (chance == 9) {
            (void)co_tracker_checkpoint(world->tracker, NULL);
            world_count(world, WORLD_CHECKPOINT);
        } else if (chance == 10) {
            co_world_resize(world);
        } else if (chance >= 12) {
            co_world_undecided(world);
        }
        co_sleep_until(loop_now_ns() + random_below(&world->random, 100000));
    }
}

static void co_work(struct world *world)
{
    world->guests_stop = false;
    world->guests = GUESTS;
    for (int i = 0; i < GUESTS; i++) {
        co_spawn(world->loop, co_world_guest, world);
    }
    co_steps(world);
    world->guests_stop = true;
    while (world->guests > 0) {
        co_queue_wait(&world->guests_gone);
    }
}

static void note_trouble(void *opaque,
                         struct block_node *node,
                         const char *reason,
                         bool is_durable)
{
    struct world *world = opaque;

    (void)node;
    (void)reason;
    (void)is_durable;
    if (!storage_memory_is_dead(world->memory)) {
        world_count(world, WORLD_FAILED_TRACKING);
        world->is_lost = true;
        if (!world->may_fail) {
            world_fail(world, g_strdup_printf("tracking failed: %s", reason));
        }
    }
}

static int co_open(struct world *world)
{
    struct tracker_options options = {
        .storage = storage_memory_storage(world->memory),
        .path = (char *)(uintptr_t)TRACKING_PATH,
        .image_path = (char *)(uintptr_t)IMAGE_PATH,
        .state_directory = (char *)(uintptr_t) "/state",
        .durability = world->options->durability,
        .outcomes = &world->outcomes,
        .over_marking_bytes = REGION_BYTES * 12,
        .region_bytes = REGION_BYTES,
        .checkpoint_ns = 300000,
        .on_trouble = note_trouble,
        .opaque = world,
    };
    g_autoptr(GError) err = NULL;
    int ret = co_tracker_open(world->node, &options, &world->tracker, &err);

    if (ret == 0 && world->tracker == NULL) {
        ret = co_tracker_create(world->node, &options, &world->tracker, &err);
    }
    if (ret < 0 && !storage_memory_is_dead(world->memory)) {
        world_fail(world, g_strdup(err->message));
    }
    return ret;
}

static void check_recovered(struct world *world)
{
    g_autoptr(GBytes) now = world_content(world);
    uint64_t regions, bytes;
    char *problem =
        oracle_check(&world->oracle, world->node, now, world->may_fail);

    if (problem != NULL) {
        world_fail(world, problem);
    }
    tracker_recovered(world->tracker, &regions, &bytes);
    world->result->counts[WORLD_INTENTS] += regions;
}

/* What faults have made useless. */
static int co_remove_inconsistent(struct world *world)
{
    int ret;

    struct dirty_bitmap *bitmap = dirty_bitmap_next(world->node, NULL);

    co_tracker_begin(world->tracker);
    while (bitmap != NULL) {
        struct dirty_bitmap *next = dirty_bitmap_next(world->node, bitmap);

        if (dirty_bitmap_reason(bitmap) != NULL) {
            tracker_change(world->tracker, bitmap, TRACKER_CHANGE_REMOVE, NULL,
                           NULL);
            dirty_bitmap_free(dirty_bitmap_detach(bitmap));
        }
        bitmap = next;
    }
    ret = co_tracker_commit(world->tracker, NULL);
    co_tracker_end(world->tracker);
    return ret;
}

static void co_live_with_node(struct world *world)
{
    struct storage_memory *memory = world->memory;

    if (co_open(world) == 0) {
        if (!storage_memory_is_dead(memory)) {
            check_recovered(world);
            world->may_fail =
                co_remove_inconsistent(world) < 0 || world->is_lost;
        }
        if (world->result->problem == NULL) {
            co_work(world);
        }
        if (!storage_memory_is_dead(memory)) {
            if (world->options->crash_point == 0 &&
                random_once_in(&world->random, 2)) {
                storage_memory_crash_at(memory,
                                        random_between(&world->random, 1, 14));
            }
            (void)co_tracker_close(&world->tracker, NULL);
            world_count(world, storage_memory_is_dead(memory)
                                   ? WORLD_CRASHED_IN_CLOSE
                                   : WORLD_CLEAN);
        } else {
            (void)co_tracker_close(&world->tracker, NULL);
        }
    } else if (storage_memory_is_dead(memory)) {
        world_count(world, WORLD_CRASHED_IN_RECOVERY);
    }
    dirty_bitmap_release_node(world->node);
}

static void co_life(void *opaque)
{
    struct world *world = opaque;
    g_autoptr(json_value) options = json_dict_new();

    json_dict_set_string(options, "driver", "simimage");
    json_dict_set_string(options, "node-name", "disk");
    json_dict_set_string(options, "path", IMAGE_PATH);
    if (co_block_add(world->graph, options, true, &world->node, NULL) == 0) {
        co_live_with_node(world);
        co_block_del_all(world->graph);
    } else if (!storage_memory_is_dead(world->memory)) {
        world_fail(world, g_strdup("the image cannot be opened"));
    }
    world->over = true;
}

static void plan_crash(struct world *world)
{
    uint64_t point = world->options->crash_point;

    if (point != 0) {
        if (world->result->counts[WORLD_LIVES] + 1 == world->options->lives) {
            point = 0;
        }
    } else if (world->killed && random_once_in(&world->random, 2)) {
        /* A kill, then a power cut before what it left is durable. */
        point = random_between(&world->random, 1, 14);
        world->power_follows = world->options->power_cuts;
    } else if (random_below(&world->random, 5) > 0) {
        point = random_once_in(&world->random, 3)
                    ? random_between(&world->random, 1, 20)
                    : random_between(&world->random, 1, 600);
    }
    storage_memory_crash_at(world->memory, point);
    if (world->options->crash_point == 0 && !world->power_follows &&
        random_once_in(&world->random, 4)) {
        bool names = random_once_in(&world->random, 2);

        storage_memory_crash_at_sync(
            world->memory, names,
            random_between(&world->random, 1, names ? 6 : 30));
    }
}

/* Where it died. Named by what the operation begins with, and its path ends in. */
static void count_crash(struct world *world)
{
    static const struct {
        const char *operation;
        const char *suffix;
        enum world_count count;
    } places[] = {
        { "write", ".cbt", WORLD_DIED_WRITE },
        { "sync ", ".cbt", WORLD_DIED_SYNC },
        { "", ".cbt.new", WORLD_DIED_MAKE },
        { "rename", "", WORLD_DIED_NAME },
        { "unlink", "", WORLD_DIED_NAME },
        { "sync-directory", "", WORLD_DIED_DIRECTORY },
        { "write", ".raw", WORLD_DIED_IMAGE },
        { "sync ", ".raw", WORLD_DIED_IMAGE_SYNC },
        { "truncate", ".raw", WORLD_DIED_TRUNCATE },
    };

    const char *died_in = storage_memory_died_in(world->memory);

    world->result->crashes++;
    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        if (g_str_has_prefix(died_in, places[i].operation) &&
            g_str_has_suffix(died_in, places[i].suffix)) {
            world_count(world, places[i].count);
            return;
        }
    }
}

static void end_life(struct world *world)
{
    bool power = world->power_follows || (world->options->power_cuts &&
                                          random_once_in(&world->random, 2));
    bool clean = !storage_memory_is_dead(world->memory);

    if (world->options->durability == TRACKER_PROCESS && power && !clean) {
        world->may_fail = true; /* and says so */
    }
    storage_memory_fail_sync(world->memory, NULL, 0);
    storage_memory_reboot(world->memory,
                          power ? STORAGE_CRASH_POWER : STORAGE_CRASH_KILL);
    storage_memory_drop_suspect_cache(world->memory, IMAGE_PATH);
    world->killed = !power && !clean;
    world->power_follows = false;
    if (!clean) {
        count_crash(world);
        world_count(world, power ? WORLD_POWER_CUTS : WORLD_KILLS);
    } else if (power) {
        world_count(world, WORLD_CUT_AFTER_CLOSE);
    }
}

static void live(struct world *world)
{
    scheduler_init(&world->scheduler, &world->random);
    world->scheduler.now_ns += world->clock_ns; /* it never goes back */
    world->loop = scheduler_add_loop(&world->scheduler, "main");
    world->graph = block_graph_new(world->loop, image_disk_drivers);
    co_queue_init(&world->guests_gone);
    storage_memory_set_clock(world->memory, &world->scheduler.now_ns);
    world->over = false;
    world->tracker = NULL;
    plan_crash(world);
    world->dead_verdicts = world->verdicts->len;
    co_spawn(world->loop, co_life, world);
    while (!world->over && scheduler_turn(&world->scheduler)) {
    }
    if (!world->over) {
        world_fail(world, g_strdup("nothing can happen any more"));
        return;
    }
    while (scheduler_turn(&world->scheduler)) {
    }
    end_life(world);
    block_graph_free(world->graph);
    storage_memory_set_clock(world->memory, NULL);
    world->clock_ns = world->scheduler.now_ns;
    scheduler_release(&world->scheduler);
    world_count(world, WORLD_LIVES);
}

void disk_world_run(const struct world_options *options,
                    struct world_result *ret_result)
{
    struct world world = {
        .options = options,
        .result = ret_result,
        .outcomes = { .co_ask = co_ask, .co_acknowledge = co_acknowledge },
    };
    g_autofree uint8_t *zeroes = g_malloc0(SIZE_BYTES);

    *ret_result = (struct world_result){ .problem = NULL };
    random_init(&world.random, options->seed);
    world.memory = storage_memory_new(&world.random);
    world.verdicts = g_array_new(FALSE, FALSE, sizeof(struct verdict));
    oracle_init(&world.oracle);
    image_disk_use(storage_memory_storage(world.memory));
    storage_memory_poke(world.memory, IMAGE_PATH, 0, zeroes, SIZE_BYTES);
    for (unsigned int i = 0; i < options->lives && ret_result->problem == NULL;
         i++) {
        live(&world);
    }
    ret_result->operations = storage_memory_points(world.memory);
    oracle_release(&world.oracle);
    g_array_unref(world.verdicts);
    storage_memory_free(world.memory);
}
