/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs whose bitmap mode is not on-success.
 *
 *     never      the bitmap stays what it was, base and all; the next increment
 *                goes on from the point that it names
 *     always     committed, as on-success. Failed, the bitmap is a difference to
 *                what the target holds by then, and has no base; a crash before
 *                that is durable finds all of it, and the base it had
 */
#include "mixed/world.h"

bool world_has_modes(const struct world *world)
{
    return world->seed % 4 < 2;
}

void modes_choose(struct world *world, bool is_full, struct json_value *data)
{
    static const char *const names[] = { "always", "on-success", "never" };

    if (!world_has_modes(world)) {
        json_dict_set_string(data, "sync", is_full ? "full" : "incremental");
        if (is_full) {
            json_dict_set_string(data, "bitmap-mode", "on-success");
        }
        return;
    }
    json_dict_set_string(data, "sync", is_full ? "full" : "bitmap");
    json_dict_set_string(data, "bitmap-mode",
                         names[random_below(&world->random, is_full ? 2 : 3)]);
}

void modes_note(struct fate *fate,
                const struct disk *disk,
                const char *bitmap,
                enum tracker_mode mode)
{
    fate->modes[disk->index] = mode;
    for (int i = 0; i < REPOSITORIES; i++) {
        if (g_str_equal(disk->world->repositories[i].bitmap, bitmap)) {
            fate->client = &disk->world->repositories[i];
        }
    }
}

/* What was copied is no longer dirty. */
static void expect_dropped(struct disk *disk, const struct fate *fate)
{
    struct world *world = disk->world;
    g_autofree char *path =
        repository_data_path(fate->client, fate->client->number, disk->index);
    struct oracle_bitmap *expected =
        oracle_bitmap(&disk->oracle, fate->client->bitmap);
    struct oracle_state *state = oracle_copy(expected);
    uint64_t bytes = 0;
    const uint8_t *data = storage_memory_peek(world->memory, path, &bytes);

    oracle_state_forget_past(state);
    state->since = g_bytes_new(data, bytes);
    state->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
    if (state->until != NULL) {
        g_clear_pointer(&state->until, g_bytes_unref);
        state->until = g_bytes_ref(fate->cut[disk->index]);
    }
    oracle_may(expected, state);
}

void modes_settled(struct disk *disk,
                   const struct fate *fate,
                   enum tracker_outcome outcome)
{
    struct world *world = disk->world;
    enum tracker_mode mode = fate->modes[disk->index];

    if (world_is_dead(world)) {
        return;
    }
    if (outcome == TRACKER_ABORTED) {
        faults_settled(disk, fate);
    }
    if (mode == TRACKER_ON_SUCCESS) {
        return;
    }
    if (outcome == TRACKER_COMMITTED) {
        world_count(world, mode == TRACKER_NEVER ? WORLD_NEVER : WORLD_ALWAYS);
    } else if (outcome == TRACKER_ABORTED && mode == TRACKER_NEVER) {
        world_count(world, WORLD_NEVER_FAILED);
    } else if (outcome == TRACKER_ABORTED) {
        world_count(world, WORLD_ALWAYS_FAILED);
        expect_dropped(disk, fate);
    }
}

void modes_count_found(struct disk *disk)
{
    for (guint i = 0; i < disk->oracle.bitmaps->len; i++) {
        const struct oracle_bitmap *bitmap =
            g_ptr_array_index(disk->oracle.bitmaps, i);
        const struct oracle_state *last =
            g_ptr_array_index(bitmap->states, bitmap->states->len - 1);
        const struct fate *fate = last->by;

        if (fate != NULL && fate->modes[disk->index] == TRACKER_ALWAYS) {
            world_count(disk->world, WORLD_ALWAYS_FOUND);
        }
    }
}
