/* SPDX-License-Identifier: BSD-3-Clause */
/* Verbs: begin; fence; the step in memory, told to the oracle; commit. */
#include "journal/disk_world_priv.h"

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
    state->since = world_content(world);
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
    oracle_state_forget_past(state);
    state->since = world_content(world);
    if (state->until != NULL) {
        g_bytes_unref(state->until);
        state->until = world_content(world);
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
        g_clear_pointer(&state->also_until, g_bytes_unref);
        state->since = world_content(world);
        state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
    } else {
        state->until = world_content(world);
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

void co_world_verb(struct world *world)
{
    struct step step = {
        .name = world_bitmap_name(world),
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
            world_count(world, verb);
            if (verb == WORLD_ADD) {
                world->is_lost = false;
            }
        }
    } else {
        dirty_bitmap_free(step.bitmap);
    }
    co_tracker_end(world->tracker);
}

void co_world_resize(struct world *world)
{
    uint64_t size_bytes =
        SIZE_BYTES / 2 + random_below(&world->random, SIZE_BYTES / 512) * 512;

    if (co_block_truncate(world->node, size_bytes, true, NULL) == 0) {
        world_count(world, WORLD_RESIZE);
    }
}
