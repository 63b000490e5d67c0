/* SPDX-License-Identifier: BSD-3-Clause */
/* Someone who changes bitmaps and sizes while all this goes on. */
#include "mixed/world.h"

static const char *const names[] = { "loose", "other", "one", "two" };

/* Mostly those that no repository uses. */
static const char *random_name(struct world *world)
{
    return names[random_below(&world->random,
                              random_once_in(&world->random, 5) ? 4 : 2)];
}

static struct disk *random_disk(struct world *world)
{
    return &world->disks[random_below(&world->random, DISKS)];
}

static struct json_value *name_bitmap(const struct disk *disk,
                                      const char *key,
                                      const char *name)
{
    struct json_value *arguments = json_dict_new();

    json_dict_set_string(arguments, "node", disk->name);
    json_dict_set_string(arguments, key, name);
    return arguments;
}

/* The verb that makes sense for a bitmap, and its arguments. */
static struct json_value *choose(struct world *world,
                                 const struct disk *disk,
                                 const char *name,
                                 const char **ret_verb)
{
    struct random *random = &world->random;
    const struct dirty_bitmap *bitmap = dirty_bitmap_find(disk->node, name);
    struct json_value *arguments = NULL;
    struct json_value *list;
    uint64_t chance = random_below(random, 10);

    if (bitmap == NULL) {
        *ret_verb = "block-dirty-bitmap-add";
        arguments = name_bitmap(disk, "name", name);
        json_dict_set_bool(arguments, "persistent", true);
        json_dict_set_uint(arguments, "granularity",
                           UINT64_C(512) << random_below(random, 4));
        json_dict_set_bool(arguments, "disabled", random_once_in(random, 5));
        return arguments;
    }
    if (chance < 3) {
        *ret_verb = "block-dirty-bitmap-merge";
        arguments = name_bitmap(disk, "target", name);
        list = json_list_new();
        json_list_append(list, json_string_new(names[random_below(random, 4)]));
        json_dict_set(arguments, "bitmaps", list);
        return arguments;
    }
    *ret_verb = chance < 5                        ? "block-dirty-bitmap-clear"
                : chance < 6                      ? "block-dirty-bitmap-remove"
                : dirty_bitmap_is_enabled(bitmap) ? "block-dirty-bitmap-disable"
                                                  : "block-dirty-bitmap-enable";
    return name_bitmap(disk, "name", name);
}

static void co_verb(struct world *world)
{
    struct disk *disk = random_disk(world);
    const char *verb;
    struct json_value *arguments;

    if (disk->node == NULL) {
        return;
    }
    arguments = choose(world, disk, random_name(world), &verb);
    if (co_world_command(world, verb, arguments, NULL, NULL)) {
        world_count(world, g_str_has_suffix(verb, "merge") ? WORLD_MERGES
                                                           : WORLD_VERBS);
    }
}

/* One transaction on all disks that are there. */
static void co_change_several(struct world *world)
{
    struct json_value *arguments = json_dict_new();
    struct json_value *actions = json_list_new();

    for (unsigned int i = 0; i < DISKS; i++) {
        struct disk *disk = &world->disks[i];
        struct json_value *action;
        const char *verb;

        if (disk->node == NULL) {
            continue;
        }
        action = json_dict_new();
        json_dict_set(action, "data",
                      choose(world, disk, random_name(world), &verb));
        json_dict_set_string(action, "type", verb);
        json_list_append(actions, action);
    }
    json_dict_set(arguments, "actions", actions);
    if (co_world_command(world, "transaction", arguments, NULL, NULL)) {
        world_count(world, WORLD_CHANGES);
    }
}

static void co_resize(struct world *world)
{
    struct disk *disk = &world->disks[random_below(&world->random, QCOW2_DISK)];
    struct json_value *arguments = json_dict_new();

    json_dict_set_string(arguments, "node-name", disk->name);
    json_dict_set_uint(
        arguments, "size",
        DISK_BYTES / 2 + random_below(&world->random, DISK_BYTES / 512) * 512);
    if (disk->node == NULL) {
        json_free(arguments);
    } else if (co_world_command(world, "block_resize", arguments, NULL, NULL)) {
        world_count(world, WORLD_RESIZES);
    }
}

void co_world_verbs(void *opaque)
{
    struct world *world = opaque;

    while (!world->stopping && !world_is_dead(world) &&
           world->problem == NULL) {
        uint64_t chance = random_below(&world->random, 8);

        if (chance < 4) {
            co_verb(world);
        } else if (chance < 6) {
            co_change_several(world);
        } else if (chance < 7) {
            co_resize(world);
        }
        co_world_pause(world, 400000);
    }
    world->verbs_run = false;
}
