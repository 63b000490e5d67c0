/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What actions do to bitmaps: at the instant, or, in a group with jobs, when
 * the group ends. In the latter case a bitmap is busy until then, and what the
 * instant does is such that it can be taken back:
 *
 *     add      there                      stays              goes
 *     remove   busy                       goes               stays
 *     clear    frozen, a new successor    the successor's    both
 *     enable   recording                  stays so           as before
 *     disable  busy, recording on         stops              records on
 *     merge    sources' bits set by       added              dropped
 */
#include "model.h"

#include "base/bytes.h"
#include "bitmap/dirty_bitmap.h"

/* --- Actions, at the instant -------------------------------------------------- */

static void forget_bits(const struct disk *disk, struct bitmap_model *bitmap)
{
    memset(&bitmap->must, 0, sizeof(bitmap->must));
    memset(&bitmap->may, 0, sizeof(bitmap->may));
    if (bitmap->enabled) {
        model_add_writes_inside(disk, &bitmap->may, bitmap->granularity);
    }
}

static uint64_t default_granularity(const struct disk *disk)
{
    uint64_t cluster_bytes = disk->over_raw ? 0 : disk->cluster_bytes;

    if (cluster_bytes == 0) {
        return 64 * KIB;
    }
    return min_u64(max_u64(cluster_bytes, 4 * KIB), 64 * KIB);
}

static void add(struct disk *disk,
                struct bitmap_model *bitmap,
                const struct json_value *data)
{
    if (bitmap->exists) {
        violation("a bitmap of %s was added twice", disk->name);
    }
    bitmap->exists = true;
    bitmap->engine = NULL;
    bitmap->loose = disk->is_target;
    bitmap->frozen_by = NOBODY;
    bitmap->change = CHANGE_NONE;
    bitmap->enabled = !json_dict_bool(data, "disabled", false);
    bitmap->granularity = json_dict_uint(data, "granularity", 0);
    if (bitmap->granularity == 0) {
        bitmap->granularity = default_granularity(disk);
    }
    forget_bits(disk, bitmap);
}

static void merge_one(struct world *world,
                      struct disk *disk,
                      struct bitmap_model *target,
                      const struct json_value *source,
                      struct group_model *group)
{
    struct disk *other = disk;
    const struct bitmap_model *bitmap;
    bool later = target->change == CHANGE_MERGE;
    struct block_set *must = later ? &target->spare_must : &target->must;
    struct block_set *may = later ? &target->spare_may : &target->may;

    if (json_type_of(source) == JSON_STRING) {
        bitmap = model_bitmap(disk, json_get_string(source));
    } else {
        other = world_disk(world, json_dict_string(source, "node", ""));
        bitmap = model_bitmap(other, json_dict_string(source, "name", ""));
    }
    if (bitmap != target) {
        model_check_free(other, bitmap, group);
    }
    *(later ? &target->spare_loose : &target->loose) |= bitmap->loose;
    block_set_merge(must, &bitmap->must, disk->word_count);
    for (unsigned int i = 0; i < disk->block_count; i++) {
        if (block_set_has(&bitmap->may, i)) {
            block_set_add_range(may, i * BLOCK_BYTES, BLOCK_BYTES,
                                target->granularity, disk->block_count);
        }
    }
}

/* The group's end will decide it. False: it is new, and goes with the group. */
static bool change_later(struct world *world,
                         struct bitmap_model *bitmap,
                         enum change change,
                         struct group_model *group)
{
    if (group == NULL || bitmap->change == CHANGE_ADD) {
        return false;
    }
    world->change_count++;
    bitmap->change = change;
    bitmap->change_group = group;
    return true;
}

static void merge(struct world *world,
                  struct disk *disk,
                  const struct json_value *data,
                  struct group_model *group)
{
    struct bitmap_model *target =
        model_bitmap(disk, json_dict_string(data, "target", ""));
    const struct json_value *list = json_dict_get(data, "bitmaps");

    model_check_free(disk, target, group);
    if (change_later(world, target, CHANGE_MERGE, group)) {
        memset(&target->spare_must, 0, sizeof(target->spare_must));
        memset(&target->spare_may, 0, sizeof(target->spare_may));
        target->spare_loose = false;
    }
    for (size_t i = 0; i < json_list_length(list); i++) {
        merge_one(world, disk, target, json_list_get(list, i), group);
    }
}

static void set_enabled(const struct disk *disk,
                        struct bitmap_model *bitmap,
                        bool enabled)
{
    bitmap->enabled = enabled;
    if (enabled) {
        model_add_writes_inside(disk, &bitmap->may, bitmap->granularity);
    }
}

static void change(struct world *world,
                   struct disk *disk,
                   struct bitmap_model *bitmap,
                   const char *verb,
                   struct group_model *group)
{
    model_check_free(disk, bitmap, group);
    if (strcmp(verb, "clear") == 0) {
        if (change_later(world, bitmap, CHANGE_CLEAR, group)) {
            bitmap->frozen_by = A_GROUP;
            model_begin_successor(disk, bitmap);
        } else {
            forget_bits(disk, bitmap);
        }
    } else if (strcmp(verb, "remove") == 0) {
        if (bitmap->change == CHANGE_ADD) {
            violation("a bitmap was added and removed in one group");
        }
        if (!change_later(world, bitmap, CHANGE_REMOVE, group)) {
            bitmap->exists = false;
            bitmap->engine = NULL;
        }
    } else if (strcmp(verb, "enable") == 0) {
        bitmap->was_enabled = bitmap->enabled;
        (void)change_later(world, bitmap, CHANGE_ENABLE, group);
        set_enabled(disk, bitmap, true);
    } else if (!change_later(world, bitmap, CHANGE_DISABLE, group)) {
        set_enabled(disk, bitmap, false);
    }
}

void model_bitmap_action(struct world *world,
                         const char *type,
                         const struct json_value *data,
                         struct group_model *group)
{
    struct disk *disk = world_disk(world, json_dict_string(data, "node", ""));
    const char *verb = type + strlen("block-dirty-bitmap-");
    struct bitmap_model *bitmap;

    if (disk == NULL || disk->node == NULL) {
        violation("%s took effect on a node that does not exist", type);
    }
    if (disk->writes_inside > 0) {
        violation("%s is fenced while it is being written to", disk->name);
    }
    if (strcmp(verb, "merge") == 0) {
        merge(world, disk, data, group);
        return;
    }
    bitmap = model_bitmap(disk, json_dict_string(data, "name", ""));
    if (strcmp(verb, "add") == 0) {
        add(disk, bitmap, data);
        (void)change_later(world, bitmap, CHANGE_ADD, group);
        return;
    }
    change(world, disk, bitmap, verb, group);
}

/* --- Deciding, when a group ends -------------------------------------------- */

static void keep_change(const struct disk *disk, struct bitmap_model *bitmap)
{
    switch (bitmap->change) {
    case CHANGE_REMOVE: bitmap->exists = false; break;
    case CHANGE_CLEAR:
        bitmap->must = bitmap->next_must;
        bitmap->may = bitmap->next_may;
        break;
    case CHANGE_DISABLE: bitmap->enabled = false; break;
    case CHANGE_MERGE:
        block_set_merge(&bitmap->must, &bitmap->spare_must, disk->word_count);
        block_set_merge(&bitmap->may, &bitmap->spare_may, disk->word_count);
        bitmap->loose |= bitmap->spare_loose;
        break;
    case CHANGE_ADD:
    case CHANGE_ENABLE:
    case CHANGE_NONE: break;
    }
}

static void undo_change(const struct disk *disk, struct bitmap_model *bitmap)
{
    switch (bitmap->change) {
    case CHANGE_ADD: bitmap->exists = false; break;
    case CHANGE_CLEAR:
        block_set_merge(&bitmap->must, &bitmap->next_must, disk->word_count);
        block_set_merge(&bitmap->may, &bitmap->next_may, disk->word_count);
        break;
    case CHANGE_ENABLE: bitmap->enabled = bitmap->was_enabled; break;
    case CHANGE_REMOVE:
    case CHANGE_DISABLE:
    case CHANGE_MERGE:
    case CHANGE_NONE: break;
    }
}

static void decide(struct world *world,
                   struct disk *disk,
                   struct bitmap_model *bitmap)
{
    int outcome = model_group_outcome(world, bitmap->change_group);
    uint64_t *buckets = world->histogram->buckets;

    if (outcome == 0) {
        violation("b%d of %s was decided while its group is at work",
                  (int)(bitmap - disk->bitmaps), disk->name);
    }
    model_pass_verdict(bitmap->change_group, "a bitmap action", outcome);
    if (outcome > 0) {
        buckets[CHANGE_KEPT_ADD + bitmap->change - CHANGE_ADD]++;
        keep_change(disk, bitmap);
    } else {
        buckets[CHANGE_UNDONE_ADD + bitmap->change - CHANGE_ADD]++;
        undo_change(disk, bitmap);
    }
    bitmap->change = CHANGE_NONE;
    if (bitmap->frozen_by == A_GROUP) {
        bitmap->frozen_by = NOBODY;
    }
    bitmap->engine = NULL;
    world->change_count--;
}

void model_watch_changes(struct world *world)
{
    for (unsigned int i = 0;
         i < world->disk_count * BITMAPS_PER_DISK && world->change_count > 0;
         i++) {
        struct disk *disk = &world->disks[i / BITMAPS_PER_DISK];
        struct bitmap_model *bitmap = &disk->bitmaps[i % BITMAPS_PER_DISK];
        struct dirty_bitmap *engine;
        char name[8];

        if (!bitmap->exists || bitmap->change == CHANGE_NONE) {
            continue;
        }
        g_snprintf(name, sizeof(name), "b%u", i % BITMAPS_PER_DISK);
        engine = dirty_bitmap_find(disk->node, name);
        if (engine == NULL || !dirty_bitmap_is_busy(engine)) {
            decide(world, disk, bitmap);
        }
    }
}
