/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A life: the node is opened, its bitmaps are recovered and compared with the
 * oracle; guests write and flush while verbs run, one after the other; it ends
 * with a crash at some point of the storage, or cleanly. After a crash everything
 * fails, so all coroutines come to their ends; then the storage loses what it
 * loses.
 */
#include "journal/disk_world.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "block/fence.h"
#include "block/request.h"
#include "journal/image_disk.h"
#include "journal/oracle.h"
#include "loop/co_lock.h"
#include "loop/scheduler.h"

#define IMAGE_PATH    "/disk.raw"
#define TRACKING_PATH "/disk.raw.cbt"
#define SIZE_BYTES    (UINT64_C(512) * 1024)
#define REGION_BYTES  (UINT64_C(16) * 1024)
#define GUESTS        3
#define BITMAPS       3

static const char *const bitmap_names[BITMAPS] = { "b0", "b1", "b2" };

/* What the log of the world says; durable as soon as it is said. */
struct verdict {
    struct journal_id txid;
    enum tracker_outcome outcome;
    bool told;         /* it is decided */
    bool acknowledged; /* the disk never asks again */
};

struct world {
    const struct world_options *options;
    struct world_result *result;
    struct random random;
    struct scheduler scheduler;
    struct storage_memory *memory;
    struct oracle oracle;
    struct tracker_outcomes outcomes;
    GArray *verdicts;
    uint64_t stamp;    /* of the next write */
    uint64_t clock_ns; /* when the last life ended */
    bool may_fail;     /* faults were planted: tracking may be lost */
    bool is_lost;      /* ... and was; said again until there is a new file */

    /* One life. */
    struct loop *loop;
    struct block_graph *graph;
    struct block_node *node;
    struct tracker *tracker;
    unsigned int guests;
    bool guests_stop;
    struct co_queue guests_gone;
    bool over;
};

static void count(struct world *world, enum world_count what)
{
    world->result->counts[what]++;
}

static void fail(struct world *world, char *problem)
{
    if (world->result->problem == NULL) {
        world->result->problem = g_strdup_printf(
            "seed %" G_GUINT64_FORMAT ", point %" G_GUINT64_FORMAT ": %s",
            world->options->seed, storage_memory_points(world->memory),
            problem);
    }
    g_free(problem);
}

static GBytes *content(struct world *world)
{
    uint64_t bytes;
    const uint8_t *data =
        storage_memory_peek(world->memory, IMAGE_PATH, &bytes);

    return g_bytes_new(data, bytes);
}

/*
 * The log.
 */

static struct verdict *find_verdict(struct world *world,
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
    const struct verdict *verdict = find_verdict(world, txid);

    (void)segment;
    if (verdict == NULL || !verdict->told) {
        return TRACKER_ABORTED;
    }
    if (verdict->acknowledged && segment != NULL) {
        fail(world, g_strdup("an acknowledged outcome was asked for again"));
    }
    return verdict->outcome;
}

static void co_acknowledge(struct tracker_outcomes *outcomes,
                           const struct journal_id *txid,
                           const struct journal_id *disk)
{
    struct world *world = LIST_ENTRY(outcomes, struct world, outcomes);
    struct verdict *verdict = find_verdict(world, txid);

    (void)disk;
    if (verdict != NULL) {
        verdict->acknowledged = true;
        count(world, WORLD_ACKNOWLEDGED);
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
        count(world, WORLD_WRITES);
    }
}

static void co_guest(void *opaque)
{
    struct world *world = opaque;

    while (!world->guests_stop) {
        if (random_once_in(&world->random, 12)) {
            if (co_block_flush(world->node) == 0) {
                count(world, WORLD_FLUSHES);
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
 * Verbs: begin; fence; the step in memory, told to the oracle; commit.
 */

struct step {
    struct dirty_bitmap *bitmap;
    struct oracle_bitmap *expected;
    const char *name;
};

static void step_add(struct world *world, struct step *step)
{
    struct oracle_state *state = g_new0(struct oracle_state, 1);
    struct dirty_bitmap *bitmap = step->bitmap;

    dirty_bitmap_attach(world->node, &bitmap);
    tracker_change(world->tracker, step->bitmap, TRACKER_CHANGE_ADD, NULL,
                   NULL);
    state->since = content(world);
    oracle_may(step->expected, state);
}

static void step_remove(struct world *world, struct step *step)
{
    struct oracle_state *state = g_new0(struct oracle_state, 1);

    tracker_change(world->tracker, step->bitmap, TRACKER_CHANGE_REMOVE, NULL,
                   NULL);
    dirty_bitmap_free(dirty_bitmap_detach(step->bitmap));
    state->absent = true;
    oracle_may(step->expected, state);
}

static void step_clear(struct world *world, struct step *step)
{
    struct oracle_state *state = oracle_copy(step->expected);

    bitmap_clear_all(dirty_bitmap_bits(step->bitmap));
    tracker_change(world->tracker, step->bitmap, TRACKER_CHANGE_CLEAR, NULL,
                   NULL);
    g_clear_pointer(&state->since, g_bytes_unref);
    g_clear_pointer(&state->also, g_bytes_unref);
    g_clear_pointer(&state->must, g_bytes_unref);
    state->since = content(world);
    if (state->until != NULL) {
        g_bytes_unref(state->until);
        state->until = content(world);
    }
    state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
    oracle_may(step->expected, state);
}

static void step_switch(struct world *world, struct step *step, bool enable)
{
    struct oracle_state *state = oracle_copy(step->expected);

    dirty_bitmap_set_enabled(step->bitmap, enable);
    tracker_change(world->tracker, step->bitmap,
                   enable ? TRACKER_CHANGE_ENABLE : TRACKER_CHANGE_DISABLE,
                   NULL, NULL);
    g_clear_pointer(&state->until, g_bytes_unref);
    if (enable) {
        g_clear_pointer(&state->since, g_bytes_unref);
        g_clear_pointer(&state->also, g_bytes_unref);
        state->since = content(world);
        state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
    } else {
        state->until = content(world);
    }
    oracle_may(step->expected, state);
}

/* One flag per sector. */
static GBytes *flags_of(const struct bitmap *bits)
{
    uint64_t sectors = bitmap_size_bytes(bits) / 512;
    uint8_t *flags = g_malloc0(sectors);

    for (uint64_t i = 0; i < sectors; i++) {
        flags[i] = bitmap_get(bits, i * 512);
    }
    return g_bytes_new_take(flags, sectors);
}

static void step_merge(struct world *world, struct step *step)
{
    struct oracle_state *state = oracle_copy(step->expected);
    struct dirty_bitmap *source = NULL;

    while ((source = dirty_bitmap_next(world->node, source)) != NULL) {
        if (source != step->bitmap && dirty_bitmap_reason(source) == NULL) {
            break;
        }
    }
    if (source != NULL) {
        bitmap_merge(dirty_bitmap_bits(step->bitmap),
                     dirty_bitmap_bits(source));
    }
    tracker_change(world->tracker, step->bitmap, TRACKER_CHANGE_MERGE, NULL,
                   NULL);
    g_clear_pointer(&state->must, g_bytes_unref);
    state->must = flags_of(dirty_bitmap_bits(step->bitmap));
    oracle_may(step->expected, state);
}

static enum world_count choose_verb(struct world *world,
                                    const struct dirty_bitmap *bitmap)
{
    static const enum world_count verbs[] = {
        WORLD_CLEAR,
        WORLD_CLEAR,
        WORLD_MERGE,
        WORLD_REMOVE,
    };

    if (bitmap == NULL) {
        return WORLD_ADD;
    }
    if (random_once_in(&world->random, 3)) {
        return dirty_bitmap_is_enabled(bitmap) ? WORLD_DISABLE : WORLD_ENABLE;
    }
    return verbs[random_below(&world->random, G_N_ELEMENTS(verbs))];
}

static void take_step(struct world *world,
                      struct step *step,
                      enum world_count verb)
{
    if (verb == WORLD_ADD) {
        step_add(world, step);
    } else if (verb == WORLD_REMOVE) {
        step_remove(world, step);
    } else if (verb == WORLD_CLEAR) {
        step_clear(world, step);
    } else if (verb == WORLD_MERGE) {
        step_merge(world, step);
    } else {
        step_switch(world, step, verb == WORLD_ENABLE);
    }
}

static int co_reserve(struct world *world, struct step *step)
{
    uint64_t granularity = UINT64_C(512) << random_below(&world->random, 4);

    step->bitmap =
        dirty_bitmap_new(world->node, step->name, granularity, false, NULL);
    return co_tracker_reserve(world->tracker, granularity, NULL);
}

static void co_verb(struct world *world)
{
    struct step step = {
        .name = bitmap_names[random_below(&world->random, BITMAPS)],
    };
    enum world_count verb;
    int ret = 0;

    step.expected = oracle_bitmap(&world->oracle, step.name);
    step.bitmap = dirty_bitmap_find(world->node, step.name);
    if (step.bitmap != NULL && dirty_bitmap_reason(step.bitmap) != NULL) {
        return;
    }
    verb = choose_verb(world, step.bitmap);
    co_tracker_begin(world->tracker);
    if (verb == WORLD_ADD) {
        ret = co_reserve(world, &step);
    }
    if (ret == 0) {
        (void)co_block_fence(world->node, UINT64_MAX);
        take_step(world, &step, verb);
        block_unfence(world->node);
        ret = co_tracker_commit(world->tracker, NULL);
        if (ret == 0) {
            oracle_decide(step.expected, true);
            count(world, verb);
            if (verb == WORLD_ADD) {
                world->is_lost = false;
            }
        }
    } else {
        dirty_bitmap_free(step.bitmap);
    }
    co_tracker_end(world->tracker);
}

static void co_resize(struct world *world)
{
    uint64_t size_bytes =
        SIZE_BYTES / 2 + random_below(&world->random, SIZE_BYTES / 512) * 512;

    if (co_block_truncate(world->node, size_bytes, true, NULL) == 0) {
        count(world, WORLD_RESIZE);
    }
}

/*
 * Jobs: freeze, prepare, verdict, settle.
 */

struct job_run {
    struct journal_id txid;
    struct dirty_bitmap *bitmap;
    struct oracle_bitmap *expected;
    GBytes *cut;
};

static bool co_freeze(struct world *world, struct job_run *run)
{
    struct bitmap *successor;

    co_tracker_begin(world->tracker);
    (void)co_block_fence(world->node, UINT64_MAX);
    successor = bitmap_new(block_size(world->node),
                           dirty_bitmap_granularity_bytes(run->bitmap), NULL);
    dirty_bitmap_freeze(run->bitmap, &successor, "job");
    tracker_freeze(world->tracker, run->bitmap, &run->txid, TRACKER_ON_SUCCESS);
    run->cut = content(world);
    block_unfence(world->node);
    co_tracker_end(world->tracker);
    count(world, WORLD_FREEZE);
    return true;
}

static int co_prepare(struct world *world, struct job_run *run)
{
    const struct log_segment segment = { .part = 1 };
    int ret;

    co_tracker_begin(world->tracker);
    ret = co_tracker_prepare(world->tracker, &run->txid, &segment, NULL);
    co_tracker_end(world->tracker);
    if (ret == 0) {
        count(world, WORLD_PREPARE);
    }
    return ret;
}

/* The state after a commit. */
static struct oracle_state *committed(struct world *world, struct job_run *run)
{
    struct oracle_state *state = oracle_copy(run->expected);

    g_clear_pointer(&state->since, g_bytes_unref);
    g_clear_pointer(&state->also, g_bytes_unref);
    g_clear_pointer(&state->must, g_bytes_unref);
    state->since = g_bytes_ref(run->cut);
    state->base = (struct bitmap_base){ .kind = BITMAP_BASE_ONE };
    state->base.points[0].txid = run->txid;
    state->base.points[0].disk = *tracker_disk_id(world->tracker);
    return state;
}

/* Nobody will ever know; a union serves both. */
static struct oracle_state *unknown(struct world *world, struct job_run *run)
{
    struct oracle_state *state = oracle_copy(run->expected);

    if (state->base.kind == BITMAP_BASE_EITHER) {
        state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
        return state;
    }
    state->also = g_bytes_ref(run->cut);
    state->base.kind = BITMAP_BASE_EITHER;
    state->base.points[1].txid = run->txid;
    state->base.points[1].disk = *tracker_disk_id(world->tracker);
    return state;
}

static struct verdict *own_verdict(struct world *world,
                                   const struct job_run *run)
{
    struct verdict *verdict = find_verdict(world, &run->txid);

    g_assert(verdict != NULL);
    return verdict;
}

static void decide(struct world *world, struct job_run *run)
{
    struct verdict *verdict = own_verdict(world, run);
    uint64_t chance = random_below(&world->random, 8);

    verdict->told = true;
    verdict->outcome = chance == 0   ? TRACKER_UNKNOWN
                       : chance <= 2 ? TRACKER_ABORTED
                                     : TRACKER_COMMITTED;
    if (verdict->outcome == TRACKER_COMMITTED) {
        oracle_may(run->expected, committed(world, run));
        oracle_decide(run->expected, true);
    } else if (verdict->outcome == TRACKER_UNKNOWN) {
        oracle_may(run->expected, unknown(world, run));
        oracle_decide(run->expected, true);
    }
}

static void settle(struct world *world, struct job_run *run)
{
    const struct verdict *verdict = own_verdict(world, run);
    enum tracker_outcome outcome =
        verdict->told ? verdict->outcome : TRACKER_ABORTED;

    if (outcome == TRACKER_COMMITTED) {
        dirty_bitmap_abdicate(run->bitmap);
        count(world, WORLD_COMMIT);
    } else {
        dirty_bitmap_reclaim(run->bitmap);
        count(world, outcome == TRACKER_UNKNOWN ? WORLD_UNKNOWN : WORLD_ABORT);
    }
    tracker_settle(world->tracker, &run->txid, outcome);
}

static void co_job(struct world *world)
{
    struct job_run run = { .txid = journal_id_new() };
    struct verdict verdict = { .txid = run.txid };
    const char *name = bitmap_names[random_below(&world->random, BITMAPS)];
    bool prepared;

    run.bitmap = dirty_bitmap_find(world->node, name);
    run.expected = oracle_bitmap(&world->oracle, name);
    if (run.bitmap == NULL || dirty_bitmap_reason(run.bitmap) != NULL ||
        !dirty_bitmap_is_enabled(run.bitmap)) {
        return;
    }
    g_array_append_val(world->verdicts, verdict);
    (void)co_freeze(world, &run);
    for (uint64_t i = random_below(&world->random, 30); i > 0; i--) {
        co_sleep_until(loop_now_ns() + 5000);
    }
    if (random_once_in(&world->random, 2)) {
        (void)co_tracker_checkpoint(world->tracker, NULL);
    }
    prepared = co_block_flush(world->node) == 0 &&
               random_below(&world->random, 6) > 0 &&
               co_prepare(world, &run) == 0;
    if (prepared && !storage_memory_is_dead(world->memory)) {
        decide(world, &run);
    }
    settle(world, &run);
    if (random_once_in(&world->random, 2)) {
        (void)co_tracker_checkpoint(world->tracker, NULL);
    }
    g_bytes_unref(run.cut);
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
        count(world, WORLD_FLUSH_FAILED);
    } else {
        storage_memory_fail_sync(world->memory, ".cbt",
                                 random_between(&world->random, 1, 8));
        count(world, WORLD_SYNC_FAILED);
    }
}

static void co_steps(struct world *world)
{
    for (uint64_t i = 0; i < world->options->steps; i++) {
        uint64_t chance = random_below(&world->random, 12);

        if (storage_memory_is_dead(world->memory) ||
            tracker_reason(world->tracker) != NULL) {
            return;
        }
        plant_fault(world);
        if (chance <= 5) {
            co_verb(world);
        } else if (chance <= 8) {
            co_job(world);
        } else if (chance == 9) {
            (void)co_tracker_checkpoint(world->tracker, NULL);
            count(world, WORLD_CHECKPOINT);
        } else if (chance == 10) {
            co_resize(world);
        }
        co_sleep_until(loop_now_ns() + random_below(&world->random, 100000));
    }
}

static void co_work(struct world *world)
{
    world->guests_stop = false;
    world->guests = GUESTS;
    for (int i = 0; i < GUESTS; i++) {
        co_spawn(world->loop, co_guest, world);
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
        count(world, WORLD_FAILED_TRACKING);
        world->is_lost = true;
        if (!world->may_fail) {
            fail(world, g_strdup_printf("tracking failed: %s", reason));
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
        fail(world, g_strdup(err->message));
    }
    return ret;
}

static void check_recovered(struct world *world)
{
    g_autoptr(GBytes) now = content(world);
    uint64_t regions, bytes;
    char *problem =
        oracle_check(&world->oracle, world->node, now, world->may_fail);

    if (problem != NULL) {
        fail(world, problem);
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
            (void)co_tracker_close(&world->tracker, NULL);
            count(world, storage_memory_is_dead(memory) ? WORLD_CRASHED_IN_CLOSE
                                                        : WORLD_CLEAN);
        } else {
            (void)co_tracker_close(&world->tracker, NULL);
        }
    } else if (storage_memory_is_dead(memory)) {
        count(world, WORLD_CRASHED_IN_RECOVERY);
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
        fail(world, g_strdup("the image cannot be opened"));
    }
    world->over = true;
}

static void plan_crash(struct world *world)
{
    uint64_t point = world->options->crash_point;

    if (point == 0 && random_below(&world->random, 5) > 0) {
        point = random_once_in(&world->random, 4)
                    ? random_between(&world->random, 1, 40)
                    : random_between(&world->random, 1, 600);
    }
    storage_memory_crash_at(world->memory, point);
}

static void end_life(struct world *world)
{
    bool power =
        world->options->power_cuts && random_once_in(&world->random, 2);
    bool clean = !storage_memory_is_dead(world->memory);

    if (world->options->durability == TRACKER_PROCESS && power && !clean) {
        world->may_fail = true; /* and says so */
    }
    storage_memory_fail_sync(world->memory, NULL, 0);
    storage_memory_reboot(world->memory,
                          power ? STORAGE_CRASH_POWER : STORAGE_CRASH_KILL);
    storage_memory_drop_suspect_cache(world->memory, IMAGE_PATH);
    count(world, power ? WORLD_POWER_CUTS : WORLD_KILLS);
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
    co_spawn(world->loop, co_life, world);
    while (!world->over && scheduler_turn(&world->scheduler)) {
    }
    if (!world->over) {
        fail(world, g_strdup("nothing can happen any more"));
        return;
    }
    while (scheduler_turn(&world->scheduler)) {
    }
    end_life(world);
    block_graph_free(world->graph);
    storage_memory_set_clock(world->memory, NULL);
    world->clock_ns = world->scheduler.now_ns;
    scheduler_release(&world->scheduler);
    count(world, WORLD_LIVES);
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
    ret_result->points = storage_memory_points(world.memory);
    oracle_release(&world.oracle);
    g_array_unref(world.verdicts);
    storage_memory_free(world.memory);
}
