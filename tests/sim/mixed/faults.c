/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What fails while the machine lives on: copying; and a sync or a write of COMMIT
 * and ABORT. Of a copy that is to fail so much is known:
 *
 *     piece 1     arrives on the target
 *     piece 2     its write fails; or the source can no longer be read
 *
 * so the job has to tell what it has copied from what it has not. With one piece
 * less it fails before anything is copied.
 *
 * With COMMIT the log's disk fails for good, in some lives, and a group is in doubt.
 * Then either all wait till the disk is well again, ABORT is durable, and life goes
 * on; or the daemon is shut down in doubt, and what its log holds decides.
 */
#include <errno.h>
#include <string.h>

#include "mixed/world.h"

#define DOUBT_NS UINT64_C(5000000000)

/*
 * Copying.
 */

void faults_plan_copy(struct repository *repository)
{
    struct world *world = repository->world;
    struct random *random = &world->random;
    struct copy_fault *fault = &repository->fault;

    *fault = (struct copy_fault){
        .is_planned = random_once_in(random, 4),
        .in_pieces = random_once_in(random, 2),
    };
    if (fault->is_planned) {
        fault->in_pieces = true;
        fault->disk = (unsigned int)random_below(random, DISKS);
        fault->goes_on = random_once_in(random, 6) ? 0 : 1;
        /* Guests read what the qcow2 image says of itself. */
        fault->is_source =
            fault->disk < QCOW2_DISK && random_once_in(random, 2);
    }
}

void faults_end_copy(struct repository *repository)
{
    struct world *world = repository->world;

    repository->fault.is_planned = false;
    storage_memory_fail_reads(world->memory, NULL, 0);
}

void faults_choose_pieces(const struct repository *repository,
                          struct json_value *performance)
{
    if (repository->fault.in_pieces) {
        json_dict_set_uint(performance, "max-chunk", COPY_PIECE_BYTES);
        json_dict_set_uint(performance, "max-workers", 1);
    }
}

/* Does the write bring a piece to a target that is to fail? */
static bool is_piece(const struct repository *repository,
                     const struct storage_step *step)
{
    const struct copy_fault *fault = &repository->fault;
    g_autofree char *path = NULL;

    if (!fault->is_copying || step->kind != STORAGE_STEP_WRITE ||
        !g_str_has_prefix(step->path, repository->folder)) {
        return false;
    }
    path = repository_data_path(repository, repository->number, fault->disk);
    return strcmp(step->path, path) == 0;
}

static bool fails_copy(struct repository *repository,
                       const struct storage_step *step)
{
    struct world *world = repository->world;
    struct copy_fault *fault = &repository->fault;

    if (!fault->is_planned || !is_piece(repository, step)) {
        return false;
    }
    if (fault->pieces++ < fault->goes_on) {
        if (fault->is_source && fault->pieces == fault->goes_on) {
            storage_memory_fail_reads(world->memory,
                                      world->disks[fault->disk].path, -EIO);
        }
        return false;
    }
    return !fault->is_source;
}

void faults_settled(struct disk *disk, const struct fate *fate)
{
    static const enum world_count counts[] = {
        [TRACKER_ON_SUCCESS] = WORLD_PARTLY,
        [TRACKER_NEVER] = WORLD_NEVER_PARTLY,
        [TRACKER_ALWAYS] = WORLD_ALWAYS_PARTLY,
    };
    struct world *world = disk->world;
    const struct repository *client = fate->client;
    GBytes *cut = fate->cut[disk->index];
    g_autofree char *path = NULL;
    const uint8_t *data;
    uint64_t bytes = 0;

    if (client == NULL || !client->fault.is_planned || cut == NULL ||
        client->fault.disk != disk->index || client->fault.goes_on == 0 ||
        client->fault.pieces == 0) {
        return;
    }
    path = repository_data_path(client, client->number, disk->index);
    data = storage_memory_peek(world->memory, path, &bytes);
    if (data == NULL || bytes != g_bytes_get_size(cut) ||
        memcmp(data, g_bytes_get_data(cut, NULL), bytes) != 0) {
        world_count(world, counts[fate->modes[disk->index]]);
    }
}

/*
 * The log.
 */

void faults_plan(struct world *world)
{
    /* Where to die when a group has been in doubt; mostly not at all. */
    static const int aims[] = {
        -1, -1, -1, AT_ABORT, AT_CLOSE_IMAGE, AT_CLOSE_TRACKING, AT_CLOSE_LOG,
    };
    struct random *random = &world->random;

    world->doubt = (struct doubt){ .plan = DOUBT_BY_CHANCE };
    world->has_faults = random_once_in(random, 3) || world->aim == AT_ABORT;
    if (world->power_follows || !random_once_in(random, 6)) {
        return;
    }
    world->doubt.plan = random_once_in(random, 2) ? DOUBT_WAITS : DOUBT_LETS_GO;
    world->has_faults = false;
    world->crash_at = 0;
    world->aim = aims[random_below(random, G_N_ELEMENTS(aims))];
    world->aim_count = random_between(random, 1, 4);
}

void faults_release(struct world *world)
{
    g_clear_pointer(&world->doubt.failed_part, g_free);
}

void faults_tell_doubt(struct world *world)
{
    struct doubt *doubt = &world->doubt;

    if (!doubt->is_told && !world_is_dead(world)) {
        world_count(world, WORLD_DOUBT_TOLD);
        doubt->is_told = true;
        doubt->mends_ns =
            loop_now_ns() + random_below(&world->random, DOUBT_NS);
    }
}

bool faults_are_waited_for(const struct world *world)
{
    return world->doubt.is_told && world->doubt.plan == DOUBT_WAITS;
}

static bool co_is_any_in_doubt(struct world *world)
{
    g_autoptr(json_value) list = NULL;

    if (!co_world_command(world, "x-cohort-query-transactions", json_dict_new(),
                          &list, NULL)) {
        return !world_is_dead(world);
    }
    for (size_t i = 0; i < json_list_length(list); i++) {
        if (strcmp(json_dict_string(json_list_get(list, i), "outcome", ""),
                   "in-doubt") == 0) {
            return true;
        }
    }
    return false;
}

void co_faults_attend(struct world *world, uint64_t *end_ns)
{
    struct doubt *doubt = &world->doubt;

    if (!faults_are_waited_for(world)) {
        return;
    }
    *end_ns = UINT64_MAX;
    if (loop_now_ns() >= doubt->mends_ns) {
        doubt->lasts = false;
    }
    if (!doubt->lasts && !co_is_any_in_doubt(world)) {
        world_count(world, WORLD_DOUBT_ENDED);
        doubt->is_told = false;
        doubt->plan = DOUBT_BY_CHANCE;
        *end_ns = loop_now_ns() + random_below(&world->random, WORLD_LIFE_NS);
    }
}

/* The disk is well again, or not before the next daemon; and what the part whose
 * sync failed is said to hold, the cache has forgotten, or not yet. */
void faults_shut_down(struct world *world)
{
    struct doubt *doubt = &world->doubt;

    if (doubt->lasts && !world_is_dead(world)) {
        doubt->lasts = random_once_in(&world->random, 2);
        if (doubt->failed_part != NULL && random_once_in(&world->random, 2)) {
            storage_memory_drop_suspect_cache(world->memory,
                                              doubt->failed_part);
        }
    }
}

void faults_let_go(struct world *world, struct fate *fate)
{
    if (!fate->is_let_go && !world_is_dead(world)) {
        world_count(world, WORLD_LET_GO);
        fate->is_let_go = true;
        world->doubt.is_let_go = true;
    }
}

/* The first COMMIT, and then everything. */
static bool begins_doubt(struct world *world,
                         const struct storage_step *step,
                         uint64_t places)
{
    struct doubt *doubt = &world->doubt;

    if (doubt->is_told || (places & PLACE_BIT(AT_COMMIT)) == 0 ||
        (step->kind == STORAGE_STEP_WRITE &&
         !random_once_in(&world->random, 4))) {
        return false;
    }
    if (step->kind == STORAGE_STEP_SYNC) {
        g_free(doubt->failed_part);
        doubt->failed_part = g_strdup(step->path);
    }
    doubt->lasts = true;
    world_count(world, WORLD_DOUBT);
    return true;
}

/* The log's disk has trouble with a COMMIT. */
static bool fails_log(struct world *world,
                      const struct storage_step *step,
                      uint64_t places)
{
    if (world->doubt.lasts) {
        return strstr(step->path, "/commit") != NULL;
    }
    if (world->doubt.plan != DOUBT_BY_CHANCE) {
        return begins_doubt(world, step, places);
    }
    if (!world->has_faults) {
        return false;
    }
    if ((places & PLACE_BIT(AT_COMMIT)) != 0 &&
        random_once_in(&world->random, 4)) {
        world_count(world, WORLD_DOUBT);
        return true;
    }
    return (places & PLACE_BIT(AT_ABORT)) != 0 &&
           random_once_in(&world->random, 4);
}

bool faults_decide(struct world *world,
                   const struct storage_step *step,
                   uint64_t places)
{
    if (step->kind != STORAGE_STEP_SYNC && step->kind != STORAGE_STEP_WRITE) {
        return false;
    }
    for (int i = 0; i < REPOSITORIES; i++) {
        if (fails_copy(&world->repositories[i], step)) {
            return true;
        }
    }
    return fails_log(world, step, places);
}
