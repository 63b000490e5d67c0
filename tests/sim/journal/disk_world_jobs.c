/* SPDX-License-Identifier: BSD-3-Clause */
/* Jobs: freeze, prepare, verdict, settle. */
#include "journal/disk_world_priv.h"

const char *world_bitmap_name(struct world *world)
{
    static const char *const names[BITMAPS] = { "b0", "b1", "b2" };

    uint64_t count = world->options->bitmaps;

    return names[random_below(&world->random, count == 0 ? BITMAPS : count)];
}

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
    run->cut = world_content(world);
    block_unfence(world->node);
    co_tracker_end(world->tracker);
    world_count(world, WORLD_FREEZE);
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
        world_count(world, WORLD_PREPARE);
    }
    return ret;
}

/* The state after a commit. */
static struct oracle_state *committed(struct world *world, struct job_run *run)
{
    struct oracle_state *state = oracle_copy(run->expected);

    oracle_state_forget_past(state);
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
    struct verdict *verdict = world_verdict(world, &run->txid);

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
        world_count(world, WORLD_COMMIT);
    } else {
        dirty_bitmap_reclaim(run->bitmap);
        world_count(world,
                    outcome == TRACKER_UNKNOWN ? WORLD_UNKNOWN : WORLD_ABORT);
    }
    tracker_settle(world->tracker, &run->txid, outcome);
}

void co_world_job(struct world *world)
{
    struct job_run run = { .txid = journal_id_new() };
    struct verdict verdict = { .txid = run.txid };
    const char *name = world_bitmap_name(world);
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
    if (random_once_in(&world->random, 2)) {
        co_sleep_until(loop_now_ns() + random_below(&world->random, 200000));
    }
    if (prepared && !storage_memory_is_dead(world->memory)) {
        decide(world, &run);
    }
    settle(world, &run);
    if (random_once_in(&world->random, 2)) {
        (void)co_tracker_checkpoint(world->tracker, NULL);
    }
    g_bytes_unref(run.cut);
}
