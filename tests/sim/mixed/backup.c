/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A backup command: settle, started, one grouped transaction, prepared, finalize,
 * published. It follows the steps of docs/internals/repository-protocol.md, and
 * may die between any two of them; the next one settles.
 */
#include <string.h>

#include "mixed/repository.h"

struct attempt {
    struct repository *repository;
    struct manifest manifest;
    unsigned int members;
    struct repository_scan scan;
};

static char *job_name(const struct attempt *attempt, unsigned int disk)
{
    return g_strdup_printf("repo%u-job%u", attempt->repository->index, disk);
}

static char *target_name(const struct attempt *attempt, unsigned int disk)
{
    return g_strdup_printf("target%u-%u", attempt->repository->index, disk);
}

/*
 * What each member needs.
 */

static struct json_value *name_bitmap(const struct disk *disk, const char *name)
{
    struct json_value *arguments = json_dict_new();

    json_dict_set_string(arguments, "node", disk->name);
    json_dict_set_string(arguments, "name", name);
    return arguments;
}

/* A full backup consumes a bitmap, too. */
static void co_make_bitmap(struct attempt *attempt, struct disk *disk)
{
    struct repository *repository = attempt->repository;
    struct world *world = repository->world;
    struct dirty_bitmap *bitmap =
        dirty_bitmap_find(disk->node, repository->bitmap);
    struct json_value *arguments = name_bitmap(disk, repository->bitmap);

    if (bitmap == NULL) {
        json_dict_set_uint(arguments, "granularity",
                           UINT64_C(512) << random_below(&world->random, 4));
        json_dict_set_bool(arguments, "persistent", true);
        (void)co_world_command(world, "block-dirty-bitmap-add", arguments, NULL,
                               NULL);
    } else if (!dirty_bitmap_is_enabled(bitmap)) {
        (void)co_world_command(world, "block-dirty-bitmap-enable", arguments,
                               NULL, NULL);
    } else {
        json_free(arguments);
    }
}

/* The bitmap is a difference to the point, so far. */
static bool builds_on(const struct attempt *attempt,
                      const struct disk *disk,
                      const struct manifest *point)
{
    struct dirty_bitmap *bitmap =
        dirty_bitmap_find(disk->node, attempt->repository->bitmap);
    struct bitmap_base base = { .kind = BITMAP_BASE_NONE };

    if (point == NULL || bitmap == NULL || tracker_of(disk->node) == NULL ||
        !dirty_bitmap_is_enabled(bitmap)) {
        return false;
    }
    (void)tracker_base(tracker_of(disk->node), bitmap, &base);
    return (base.kind != BITMAP_BASE_NONE &&
            journal_id_equal(&base.points[0].txid, &point->txid)) ||
           (base.kind == BITMAP_BASE_EITHER &&
            journal_id_equal(&base.points[1].txid, &point->txid));
}

/* The point to go on from, NULL: none. With mode never it is not the newest. */
static const struct manifest *find_base(const struct attempt *attempt,
                                        const struct disk *disk)
{
    const struct manifest *newest =
        repository_newest(&attempt->scan, disk->index);

    if (builds_on(attempt, disk, newest)) {
        return newest;
    }
    for (guint i = attempt->scan.points->len;
         world_has_modes(disk->world) && i-- > 0;) {
        const struct manifest *point =
            &g_array_index(attempt->scan.points, struct manifest, i);

        if (point->members[disk->index].is_in &&
            builds_on(attempt, disk, point)) {
            world_count(disk->world, WORLD_DIFFERENTIAL);
            return point;
        }
    }
    return NULL;
}

static bool co_add_target(struct attempt *attempt,
                          unsigned int disk,
                          const char *path)
{
    struct world *world = attempt->repository->world;
    g_autoptr(json_value) options = json_dict_new();
    g_autofree char *name = target_name(attempt, disk);
    int ret;

    json_dict_set_string(options, "driver", "file");
    json_dict_set_string(options, "node-name", name);
    json_dict_set_string(options, "path", path);
    co_block_graph_lock(world->engine.graph);
    ret = co_block_add(world->engine.graph, options, true, NULL, NULL);
    block_graph_unlock(world->engine.graph);
    return ret == 0;
}

static struct json_value *demand(const struct manifest *point,
                                 unsigned int disk)
{
    struct json_value *base = json_dict_new();
    char text[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&point->txid, text);
    json_dict_set_string(base, "txid", text);
    journal_id_format(&point->members[disk].disk, text);
    json_dict_set_string(base, "disk", text);
    return base;
}

static struct json_value *backup_options(struct attempt *attempt,
                                         struct disk *disk,
                                         const struct manifest *point)
{
    struct json_value *data = json_dict_new();
    struct json_value *performance = json_dict_new();
    g_autofree char *job = job_name(attempt, disk->index);
    g_autofree char *target = target_name(attempt, disk->index);

    json_dict_set_string(data, "job-id", job);
    json_dict_set_string(data, "device", disk->name);
    json_dict_set_string(data, "target", target);
    json_dict_set_string(data, "bitmap", attempt->repository->bitmap);
    json_dict_set_bool(data, "auto-finalize", false);
    json_dict_set_bool(data, "auto-dismiss", false);
    json_dict_set_uint(performance, "min-cluster-size", 4096);
    faults_choose_pieces(attempt->repository, performance);
    json_dict_set(data, "x-perf", performance);
    modes_choose(attempt->repository->world, point == NULL, data);
    if (point != NULL) {
        json_dict_set(data, "x-cohort-base", demand(point, disk->index));
    }
    return data;
}

/* Who has lost the bitmap begins anew. */
static void check_full(const struct attempt *attempt,
                       struct disk *disk,
                       const struct manifest *point)
{
    bool *must_be_full = &disk->must_be_full[attempt->repository->index];

    if (*must_be_full && point != NULL) {
        world_fail(disk->world, "%s has lost its bitmap, and goes on from it",
                   disk->name);
    } else if (*must_be_full) {
        world_count(disk->world, WORLD_PROCESS_FULL);
        *must_be_full = false;
    }
}

/* Its action, or NULL: it cannot take part. */
static struct json_value *co_plan(struct attempt *attempt, struct disk *disk)
{
    struct repository *repository = attempt->repository;
    const struct manifest *point = find_base(attempt, disk);
    g_autofree char *path =
        repository_data_path(repository, attempt->manifest.number, disk->index);
    g_autofree char *parent = NULL;
    struct manifest_member *member = &attempt->manifest.members[disk->index];

    if (point == NULL) {
        co_make_bitmap(attempt, disk);
    } else {
        parent = repository_data_path(repository, point->number, disk->index);
    }
    if (world_is_dead(repository->world) ||
        !co_repository_make_data(repository, path, parent,
                                 block_size(disk->node)) ||
        !co_add_target(attempt, disk->index, path) ||
        tracker_of(disk->node) == NULL) {
        return NULL;
    }
    member->is_in = 1;
    member->is_full = point == NULL;
    check_full(attempt, disk, point);
    member->disk = *tracker_disk_id(tracker_of(disk->node));
    world_count(repository->world,
                point == NULL ? WORLD_FULL : WORLD_INCREMENTAL);
    return backup_options(attempt, disk, point);
}

/*
 * The transaction.
 */

static struct json_value *co_plan_all(struct attempt *attempt)
{
    struct world *world = attempt->repository->world;
    struct json_value *actions = json_list_new();
    bool single = random_once_in(&world->random, 5);

    for (unsigned int i = 0; i < DISKS; i++) {
        unsigned int index =
            single ? (unsigned int)random_below(&world->random, DISKS) : i;
        struct disk *disk = &world->disks[index];
        struct json_value *action, *data;

        if (disk->node == NULL || attempt->manifest.members[index].is_in ||
            (!single && random_once_in(&world->random, 8))) {
            continue;
        }
        data = co_plan(attempt, disk);
        if (data == NULL) {
            break;
        }
        action = json_dict_new();
        json_dict_set_string(action, "type", "blockdev-backup");
        json_dict_set(action, "data", data);
        json_list_append(actions, action);
        attempt->members++;
        if (single) {
            break;
        }
    }
    return actions;
}

static bool co_begin(struct attempt *attempt)
{
    struct repository *repository = attempt->repository;
    struct world *world = repository->world;
    g_autofree char *label =
        repository_label(repository, attempt->manifest.number);
    struct json_value *actions = co_plan_all(attempt);
    struct json_value *arguments = json_dict_new();
    struct json_value *properties = json_dict_new();
    g_autofree char *error = NULL;
    bool ok = attempt->members > 0 && repository_lives(repository);

    json_dict_set(arguments, "actions", actions);
    json_dict_set_string(properties, "completion-mode", "grouped");
    json_dict_set_string(properties, "x-cohort-transaction-id", label);
    json_dict_set(arguments, "properties", properties);
    if (!ok) {
        json_free(arguments);
        return false;
    }
    repository->fault.is_copying = true;
    ok = co_world_command(world, "transaction", arguments, NULL, &error);
    if (!ok) {
        world_count(world, strstr(error, "x-cohort-base") != NULL
                               ? WORLD_BASE_REFUSED
                               : WORLD_REFUSED);
        return false;
    }
    world_count(world, attempt->members > 1 ? WORLD_GROUPS : WORLD_SINGLES);
    return true;
}

/* Until all jobs are in that state; false: some job is over, or we are. */
static bool co_wait(struct attempt *attempt, enum job_state state)
{
    struct repository *repository = attempt->repository;
    struct world *world = repository->world;

    for (;;) {
        bool all = true;

        for (unsigned int i = 0; i < DISKS; i++) {
            g_autofree char *name = job_name(attempt, i);
            const struct job *job = job_find(world->engine.jobs, name);

            if (!attempt->manifest.members[i].is_in) {
                continue;
            }
            if (job == NULL || (state != JOB_CONCLUDED &&
                                job_state_of(job) == JOB_CONCLUDED)) {
                return false;
            }
            all &= job_state_of(job) == state;
        }
        if (all) {
            return repository_lives(repository);
        }
        if (world_is_dead(world) || world->stopping) {
            return false;
        }
        co_world_pause(world, 40000);
    }
}

/* Its txid, from the log. */
static bool co_learn_txid(struct attempt *attempt)
{
    struct repository *repository = attempt->repository;
    g_autofree char *label =
        repository_label(repository, attempt->manifest.number);
    struct json_value *arguments = json_dict_new();
    g_autoptr(json_value) list = NULL;
    struct fate *fate;

    json_dict_set_string(arguments, "id", label);
    if (!co_world_command(repository->world, "x-cohort-query-transactions",
                          arguments, &list, NULL) ||
        world_is_dead(repository->world)) {
        return false;
    }
    fate =
        world_find_fate(repository->world,
                        json_dict_string(json_list_get(list, 0), "txid", ""));
    if (fate == NULL) {
        world_fail(repository->world, "the log does not know %s", label);
        return false;
    }
    fate->repository = (int)repository->index;
    attempt->manifest.txid = fate->txid;
    return repository_lives(repository);
}

static bool co_finalize(struct attempt *attempt)
{
    struct world *world = attempt->repository->world;
    struct json_value *arguments = json_dict_new();
    unsigned int first = 0;
    g_autofree char *name = NULL;

    while (!attempt->manifest.members[first].is_in) {
        first++;
    }
    name = job_name(attempt, first);
    json_dict_set_string(arguments, "id", name);
    return co_world_command(world, "job-finalize", arguments, NULL, NULL) &&
           repository_lives(attempt->repository);
}

/* What the client is told is final. */
static bool note_result(struct attempt *attempt)
{
    struct world *world = attempt->repository->world;
    struct fate *fate = world_fate(world, &attempt->manifest.txid);
    unsigned int failed = 0;

    for (unsigned int i = 0; i < DISKS; i++) {
        g_autofree char *name = job_name(attempt, i);
        const struct job *job = job_find(world->engine.jobs, name);

        if (attempt->manifest.members[i].is_in) {
            failed += job == NULL || job_result(job) < 0;
        }
    }
    if (failed > 0 && failed < attempt->members) {
        world_fail(world, "some jobs of a group have failed, others not");
    }
    world_decide(world, fate, failed > 0 ? FATE_ABORTED : FATE_COMMITTED,
                 "its client");
    return failed == 0;
}

static bool co_conclude(struct attempt *attempt)
{
    struct world *world = attempt->repository->world;
    bool ok;

    world->coverage.phase.finalizing++;
    ok = co_finalize(attempt) && co_wait(attempt, JOB_CONCLUDED);
    world->coverage.phase.finalizing -= world->coverage.phase.finalizing > 0;
    return ok && !world_is_dead(world) && note_result(attempt);
}

static bool co_back_up(struct attempt *attempt)
{
    struct repository *repository = attempt->repository;

    attempt->manifest.number = attempt->scan.newest + 1;
    repository->number = attempt->manifest.number;
    return co_repository_write(repository, "started", &attempt->manifest) &&
           repository_lives(repository) && co_begin(attempt) &&
           co_wait(attempt, JOB_PENDING) && co_learn_txid(attempt) &&
           co_repository_write(repository, "prepared", &attempt->manifest) &&
           repository_lives(repository) && co_conclude(attempt) &&
           repository_lives(repository) &&
           co_repository_publish(repository, attempt->manifest.number);
}

static void co_attempt(struct repository *repository)
{
    struct attempt attempt = { .repository = repository };
    struct random *random = &repository->world->random;

    repository->dies_in =
        random_once_in(random, 3) ? random_between(random, 1, 14) : 0;
    if (!co_settle(repository) ||
        !co_repository_scan(repository, &attempt.scan)) {
        return;
    }
    faults_plan_copy(repository);
    if (co_back_up(&attempt)) {
        world_count(repository->world, WORLD_PUBLISHED);
    }
    faults_end_copy(repository);
    repository_scan_release(&attempt.scan);
}

void co_repository_command(void *opaque)
{
    struct repository *repository = opaque;
    struct world *world = repository->world;

    while (!world->stopping && !world_is_dead(world) &&
           world->problem == NULL) {
        co_attempt(repository);
        co_world_pause(world, 500000);
    }
    repository->is_running = false;
}
