/* SPDX-License-Identifier: BSD-3-Clause */
/* Changes that a record decides: made so that they can be undone, prepared, and
 * settled by a verdict. */
#include "journal/disk_world_priv.h"

struct undecided {
    struct journal_id txid;
    enum tracker_change kind;
    struct dirty_bitmap *bitmap;
    struct oracle_bitmap *expected;
    struct bitmap *spare; /* MERGE: what will be added; CLEAR: the successor */
    bool was_enabled;
    GBytes *cut;
};

static enum tracker_change choose(struct world *world,
                                  const struct dirty_bitmap *bitmap)
{
    static const enum tracker_change kinds[] = {
        TRACKER_CHANGE_REMOVE,
        TRACKER_CHANGE_CLEAR,
        TRACKER_CHANGE_CLEAR,
        TRACKER_CHANGE_MERGE,
    };

    if (bitmap == NULL) {
        return TRACKER_CHANGE_ADD;
    }
    if (random_once_in(&world->random, 3)) {
        return dirty_bitmap_is_enabled(bitmap) ? TRACKER_CHANGE_DISABLE
                                               : TRACKER_CHANGE_ENABLE;
    }
    return kinds[random_below(&world->random, G_N_ELEMENTS(kinds))];
}

static int co_prepare_memory(struct world *world,
                             struct undecided *change,
                             const char *name)
{
    uint64_t granularity = 1024;

    if (change->kind == TRACKER_CHANGE_ADD) {
        change->bitmap =
            dirty_bitmap_new(world->node, name, granularity, false, NULL);
        return co_tracker_reserve(world->tracker, granularity, NULL);
    }
    if (change->kind == TRACKER_CHANGE_CLEAR ||
        change->kind == TRACKER_CHANGE_MERGE) {
        change->spare =
            bitmap_new(block_size(world->node),
                       dirty_bitmap_granularity_bytes(change->bitmap), NULL);
    }
    return 0;
}

/* Some bits that another bitmap might have. */
static void fill_spare(struct world *world, struct bitmap *spare)
{
    uint64_t size_bytes = bitmap_size_bytes(spare);

    for (int i = 0; i < 5; i++) {
        bitmap_set(spare, random_below(&world->random, size_bytes), 1);
    }
}

/* Fenced. */
static void make(struct world *world, struct undecided *change)
{
    struct dirty_bitmap *added = change->bitmap;

    change->was_enabled = dirty_bitmap_is_enabled(change->bitmap);
    if (change->kind == TRACKER_CHANGE_ADD) {
        dirty_bitmap_attach(world->node, &added);
    } else if (change->kind == TRACKER_CHANGE_CLEAR) {
        dirty_bitmap_freeze(change->bitmap, &change->spare, "change");
    } else if (change->kind == TRACKER_CHANGE_ENABLE) {
        dirty_bitmap_set_enabled(change->bitmap, true);
    } else if (change->kind == TRACKER_CHANGE_MERGE) {
        fill_spare(world, change->spare);
    }
    tracker_change(world->tracker, change->bitmap, change->kind, &change->txid,
                   change->kind == TRACKER_CHANGE_MERGE ? change->spare : NULL);
    change->cut = world_content(world);
}

static bool co_begin(struct world *world,
                     struct undecided *change,
                     const char *name)
{
    int ret;

    co_tracker_begin(world->tracker);
    ret = co_prepare_memory(world, change, name);
    if (ret < 0) {
        dirty_bitmap_free(change->bitmap);
    } else {
        (void)co_block_fence(world->node, UINT64_MAX);
        make(world, change);
        block_unfence(world->node);
    }
    co_tracker_end(world->tracker);
    return ret == 0;
}

static bool co_prepare(struct world *world, const struct undecided *change)
{
    const struct log_segment segment = { .part = 2 };
    int ret = co_block_flush(world->node);

    if (ret == 0) {
        co_tracker_begin(world->tracker);
        ret = co_tracker_prepare(world->tracker, &change->txid, &segment, NULL);
        co_tracker_end(world->tracker);
    }
    return ret == 0 && !storage_memory_is_dead(world->memory);
}

/*
 * What the oracle expects.
 */

static void since_the_cut(struct oracle_state *state,
                          const struct undecided *change)
{
    oracle_state_forget_past(state);
    state->since = g_bytes_ref(change->cut);
    state->absent = false;
}

static void add_flags(struct oracle_state *state, const struct bitmap *bits)
{
    uint64_t sectors = bitmap_size_bytes(bits) / 512;
    uint8_t *flags = g_malloc0(sectors);
    gsize old_bytes = 0;
    const uint8_t *old =
        state->must == NULL ? NULL : g_bytes_get_data(state->must, &old_bytes);

    for (uint64_t i = 0; i < sectors; i++) {
        flags[i] = bitmap_get(bits, i * 512) || (i < old_bytes && old[i] != 0);
    }
    g_clear_pointer(&state->must, g_bytes_unref);
    state->must = g_bytes_new_take(flags, sectors);
}

static void shape_committed(struct oracle_state *state,
                            const struct undecided *change)
{
    const struct bitmap_base none = { .kind = BITMAP_BASE_NONE };

    if (change->kind == TRACKER_CHANGE_ADD ||
        change->kind == TRACKER_CHANGE_CLEAR ||
        change->kind == TRACKER_CHANGE_ENABLE) {
        since_the_cut(state, change);
        state->base = none;
    }
    if (change->kind == TRACKER_CHANGE_CLEAR && state->until != NULL) {
        g_bytes_unref(state->until);
        state->until = g_bytes_ref(change->cut);
    }
    if (change->kind == TRACKER_CHANGE_ENABLE ||
        change->kind == TRACKER_CHANGE_ADD) {
        g_clear_pointer(&state->until, g_bytes_unref);
    }
    if (change->kind == TRACKER_CHANGE_DISABLE) {
        state->until = g_bytes_ref(change->cut);
    }
    if (change->kind == TRACKER_CHANGE_MERGE) {
        add_flags(state, change->spare);
    }
    state->absent = change->kind == TRACKER_CHANGE_REMOVE;
}

static void shape_unknown(struct oracle_state *state,
                          const struct undecided *change)
{
    if (change->kind == TRACKER_CHANGE_ADD ||
        change->kind == TRACKER_CHANGE_ENABLE) {
        since_the_cut(state, change);
        g_clear_pointer(&state->until, g_bytes_unref);
    }
    if (change->kind == TRACKER_CHANGE_MERGE) {
        add_flags(state, change->spare);
    }
    state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
}

static enum tracker_outcome decide(struct world *world,
                                   const struct undecided *change)
{
    struct verdict *verdict = world_verdict(world, &change->txid);
    uint64_t chance = random_below(&world->random, 6);
    struct oracle_state *state;

    g_assert(verdict != NULL);
    verdict->told = true;
    verdict->outcome = chance == 0   ? TRACKER_UNKNOWN
                       : chance <= 2 ? TRACKER_ABORTED
                                     : TRACKER_COMMITTED;
    if (verdict->outcome != TRACKER_ABORTED) {
        state = oracle_copy(change->expected);
        if (verdict->outcome == TRACKER_COMMITTED) {
            shape_committed(state, change);
        } else {
            shape_unknown(state, change);
        }
        oracle_may(change->expected, state);
        oracle_decide(change->expected, true);
    }
    return verdict->outcome;
}

/*
 * In memory.
 */

static void settle(struct world *world,
                   struct undecided *change,
                   enum tracker_outcome outcome)
{
    bool committed = outcome == TRACKER_COMMITTED;
    bool aborted = outcome == TRACKER_ABORTED;
    bool goes = (change->kind == TRACKER_CHANGE_ADD && aborted) ||
                (change->kind == TRACKER_CHANGE_REMOVE && committed);

    if (change->kind == TRACKER_CHANGE_CLEAR) {
        if (committed) {
            dirty_bitmap_abdicate(change->bitmap);
        } else {
            dirty_bitmap_reclaim(change->bitmap);
        }
    } else if (change->kind == TRACKER_CHANGE_ENABLE && aborted) {
        dirty_bitmap_set_enabled(change->bitmap, change->was_enabled);
    } else if (change->kind == TRACKER_CHANGE_DISABLE && committed) {
        dirty_bitmap_set_enabled(change->bitmap, false);
    } else if (change->kind == TRACKER_CHANGE_MERGE && !aborted) {
        bitmap_merge(dirty_bitmap_bits(change->bitmap), change->spare);
    }
    tracker_settle(world->tracker, &change->txid, outcome);
    if (goes) {
        dirty_bitmap_free(dirty_bitmap_detach(change->bitmap));
    }
}

void co_world_undecided(struct world *world)
{
    struct undecided change = { .txid = journal_id_new() };
    struct verdict verdict = { .txid = change.txid };
    const char *name = world_bitmap_name(world);
    enum tracker_outcome outcome = TRACKER_ABORTED;

    change.bitmap = dirty_bitmap_find(world->node, name);
    change.expected = oracle_bitmap(&world->oracle, name);
    if (change.bitmap != NULL && dirty_bitmap_reason(change.bitmap) != NULL) {
        return;
    }
    change.kind = choose(world, change.bitmap);
    g_array_append_val(world->verdicts, verdict);
    if (!co_begin(world, &change, name)) {
        return;
    }
    world_count(world, WORLD_UNDECIDED);
    co_sleep_until(loop_now_ns() + random_below(&world->random, 100000));
    if (random_once_in(&world->random, 2)) {
        (void)co_tracker_checkpoint(world->tracker, NULL);
    }
    if (co_prepare(world, &change)) {
        outcome = decide(world, &change);
    }
    settle(world, &change, outcome);
    if (random_once_in(&world->random, 2)) {
        (void)co_tracker_checkpoint(world->tracker, NULL);
    }
    g_bytes_unref(change.cut);
    bitmap_free(change.spare);
}
