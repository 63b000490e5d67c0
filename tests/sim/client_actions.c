/* SPDX-License-Identifier: BSD-3-Clause */
/* Arguments for bitmap actions and backups: mostly such as make sense. */
#include "client.h"

#include "base/bytes.h"

#include "model.h"

static struct disk *random_source(struct world *world)
{
    unsigned int count = random_once_in(&world->random, 12)
                             ? world->disk_count
                             : world->source_count;

    return &world->disks[random_below(&world->random, count)];
}

/* One that exists and is not busy, if a few tries find one. */
static unsigned int random_bitmap(struct disk *disk)
{
    struct random *random = &disk->world->random;
    unsigned int index = 0;

    for (unsigned int tries = 0; tries < 6; tries++) {
        index = (unsigned int)random_below(random, BITMAPS_PER_DISK);
        if (disk->bitmaps[index].exists &&
            disk->bitmaps[index].frozen_by == NOBODY) {
            break;
        }
    }
    return index;
}

static void set_bitmap_name(struct json_value *data,
                            const char *key,
                            unsigned int index)
{
    char name[8];

    g_snprintf(name, sizeof(name), "b%u", index);
    json_dict_set_string(data, key, name);
}

/* Does an action of the command that is being put together say so, too? */
static bool is_taken(const struct world *world,
                     const char *key,
                     const char *value)
{
    const struct command *command = &world->command;

    for (unsigned int i = 0; i < command->action_count; i++) {
        if (strcmp(json_dict_string(command->data[i], key, ""), value) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_target_in_use(const struct world *world,
                             const struct disk *target)
{
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *job = &world->jobs[i];

        if (job->used && job->begun && !job->told && job->target == target) {
            return true;
        }
    }
    return is_taken(world, "target", target->name);
}

/* A free disk of the source's size, if a few tries find one. */
static const struct disk *random_target(struct world *world,
                                        const struct disk *source)
{
    const struct disk *target = NULL;

    for (unsigned int tries = 0; tries < 12; tries++) {
        target = &world->disks[random_between(
            &world->random, world->source_count, world->disk_count - 1)];
        if (target != source && target->size_bytes == source->size_bytes &&
            target->node != NULL && !is_target_in_use(world, target)) {
            break;
        }
    }
    if (random_once_in(&world->random, 60)) {
        target = random_source(world);
    }
    return target;
}

static void set_job_id(struct world *world, struct json_value *data)
{
    char id[8];

    for (unsigned int tries = 0; tries < 6; tries++) {
        g_snprintf(id, sizeof(id), "j%u",
                   (unsigned int)random_below(&world->random, 24));
        if (model_job(world, id) == NULL && !is_taken(world, "job-id", id)) {
            break;
        }
    }
    json_dict_set_string(data, "job-id", id);
}

/* In one transaction mostly other sources than so far. */
static struct disk *source_for_backup(struct world *world)
{
    struct disk *source = random_source(world);

    for (unsigned int tries = 0;
         tries < 4 && is_taken(world, "device", source->name); tries++) {
        source = random_source(world);
    }
    return source;
}

static void add_sync(struct json_value *data,
                     struct world *world,
                     struct disk *source)
{
    static const char *const modes[] = { "on-success", "never", "always" };
    struct random *random = &world->random;
    uint64_t kind = random_below(random, 100);

    if (kind < 25) {
        json_dict_set_string(data, "sync",
                             kind < 16   ? "full"
                             : kind < 22 ? "top"
                                         : "none");
        return;
    }
    set_bitmap_name(data, "bitmap", random_bitmap(source));
    if (kind < 60) {
        json_dict_set_string(data, "sync", "incremental");
        return;
    }
    json_dict_set_string(data, "sync",
                         kind < 70   ? "full"
                         : kind < 75 ? "top"
                                     : "bitmap");
    json_dict_set_string(data, "bitmap-mode", modes[random_below(random, 3)]);
}

static void add_policies(struct json_value *data, struct random *random)
{
    static const char *const policies[] = { "report", "ignore", "enospc",
                                            "stop", "auto" };

    if (random_once_in(random, 3)) {
        json_dict_set_string(data, "on-source-error",
                             policies[random_below(random, 5)]);
    }
    if (random_once_in(random, 3)) {
        json_dict_set_string(data, "on-target-error",
                             policies[random_below(random, 5)]);
    }
    if (random_once_in(random, 3)) {
        json_dict_set_string(data, "on-cbw-error", "break-guest-write");
    }
    if (random_once_in(random, 5)) {
        json_dict_set_int(data, "x-cohort-cbw-timeout",
                          (int64_t)random_below(random, 3));
    }
}

static void add_performance(struct json_value *data, struct random *random)
{
    struct json_value *perf = json_dict_new();

    if (random_once_in(random, 2)) {
        json_dict_set_int(perf, "max-workers",
                          (int64_t)random_between(random, 1, 3));
    }
    if (random_once_in(random, 2)) {
        json_dict_set_int(perf, "max-chunk",
                          (int64_t)random_between(random, 1, 5) * 64 * 1024);
    }
    if (random_once_in(random, 4)) {
        json_dict_set_int(perf, "min-cluster-size",
                          (int64_t)(64 * KIB << random_below(random, 4)));
    }
    json_dict_set(data, "x-perf", perf);
}

struct json_value *random_backup(struct world *world)
{
    struct random *random = &world->random;
    struct json_value *data = json_dict_new();
    struct disk *source = source_for_backup(world);

    set_job_id(world, data);
    json_dict_set_string(data, "device", source->name);
    json_dict_set_string(data, "target", random_target(world, source)->name);
    add_sync(data, world, source);
    if (random_once_in(random, 3)) {
        json_dict_set_int(data, "speed",
                          (int64_t)random_between(random, 128 * KIB, 8 * MIB));
    }
    add_policies(data, random);
    if (random_once_in(random, 4)) {
        add_performance(data, random);
    }
    if (random_once_in(random, 4)) {
        json_dict_set_bool(data, "auto-finalize", false);
    }
    if (random_once_in(random, 4)) {
        json_dict_set_bool(data, "auto-dismiss", false);
    }
    return data;
}

static struct json_value *add_arguments(struct world *world)
{
    static const uint64_t sizes[] = { 512,      4 * KIB,  8 * KIB,  16 * KIB,
                                      32 * KIB, 64 * KIB, 128 * KIB };
    struct random *random = &world->random;
    struct json_value *data = json_dict_new();

    json_dict_set_string(data, "node", random_source(world)->name);
    set_bitmap_name(data, "name",
                    (unsigned int)random_below(random, BITMAPS_PER_DISK));
    if (!random_once_in(random, 4)) {
        json_dict_set_uint(data, "granularity",
                           sizes[random_below(random, G_N_ELEMENTS(sizes))]);
    }
    if (random_once_in(random, 8)) {
        json_dict_set_bool(data, "disabled", true);
    }
    if (random_once_in(random, 60)) {
        json_dict_set_bool(data, "persistent", true);
    }
    return data;
}

static struct json_value *random_merge_source(struct world *world,
                                              struct disk *disk)
{
    struct disk *other = random_source(world);
    struct json_value *source;
    char name[8];

    if (random_once_in(&world->random, 2)) {
        g_snprintf(name, sizeof(name), "b%u", random_bitmap(disk));
        return json_string_new(name);
    }
    source = json_dict_new();
    json_dict_set_string(source, "node", other->name);
    set_bitmap_name(source, "name", random_bitmap(other));
    return source;
}

static struct json_value *merge_arguments(struct world *world)
{
    struct disk *disk = random_source(world);
    struct json_value *data = json_dict_new();
    struct json_value *list = json_list_new();

    json_dict_set_string(data, "node", disk->name);
    set_bitmap_name(data, "target", random_bitmap(disk));
    do {
        json_list_append(list, random_merge_source(world, disk));
    } while (random_once_in(&world->random, 3));
    json_dict_set(data, "bitmaps", list);
    return data;
}

struct json_value *random_bitmap_action(struct world *world, const char **type)
{
    static const char *const others[] = {
        "block-dirty-bitmap-remove",
        "block-dirty-bitmap-clear",
        "block-dirty-bitmap-enable",
        "block-dirty-bitmap-disable",
    };
    uint64_t kind = random_below(&world->random, 100);
    struct json_value *data;
    struct disk *disk;

    if (kind < 35) {
        *type = "block-dirty-bitmap-add";
        return add_arguments(world);
    }
    if (kind < 55) {
        *type = "block-dirty-bitmap-merge";
        return merge_arguments(world);
    }
    disk = random_source(world);
    *type = kind < 72   ? "block-dirty-bitmap-enable"
            : kind < 82 ? "block-dirty-bitmap-clear"
                        : others[random_below(&world->random, 4)];
    data = json_dict_new();
    json_dict_set_string(data, "node", disk->name);
    set_bitmap_name(data, "name", random_bitmap(disk));
    return data;
}
