/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs and groups: the table of moves, the order of events, the verdict of a
 * group, and what a backup that succeeded holds.
 */
#include "model.h"

#include <inttypes.h>

#include "base/bytes.h"

static int job_index(const struct world *world, const struct job_model *job)
{
    return (int)(job - world->jobs);
}

struct job_model *model_job(struct world *world, const char *id)
{
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        if (world->jobs[i].used && strcmp(world->jobs[i].id, id) == 0) {
            return &world->jobs[i];
        }
    }
    return NULL;
}

static struct job_model *need_job(struct world *world,
                                  const struct json_value *data,
                                  const char *key,
                                  const char *event)
{
    const char *id = json_dict_string(data, key, "");
    struct job_model *job = model_job(world, id);

    if (job == NULL) {
        violation("%s for a job '%s' that does not exist", event, id);
    }
    return job;
}

struct group_model *model_new_group(struct world *world)
{
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        if (world->groups[i].members == 0) {
            world->groups[i] = (struct group_model){ 0 };
            return &world->groups[i];
        }
    }
    violation("the simulator has too few groups");
}

static bool is_at_work(const struct job_model *job)
{
    return job->used && job->begun && !job->told;
}

/* --- The instant ----------------------------------------------------------- */

static void check_nodes(struct world *world,
                        const struct disk *source,
                        const struct disk *target,
                        const char *id)
{
    if (source == NULL || target == NULL || source->node == NULL ||
        target->node == NULL || source == target ||
        source->size_bytes != target->size_bytes || !target->is_target) {
        violation("job '%s' began with nodes that do not go together", id);
    }
    if (source->writes_inside > 0) {
        violation("%s is being written to at the instant of job '%s'",
                  source->name, id);
    }
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *other = &world->jobs[i];

        if (is_at_work(other) && other->target == target) {
            violation("jobs '%s' and '%s' write to %s", id, other->id,
                      target->name);
        }
    }
}

static void take_snapshot(struct job_model *job)
{
    const struct disk *source = job->source;
    size_t bytes = source->block_count * sizeof(uint64_t);

    memcpy(job->snapshot, source->stamps, bytes);
    memcpy(job->target_before, job->target->stamps, bytes);
    job->faults_at_instant = source->fault_count + job->target->fault_count;
    job->source_writes_at_instant = source->writes_applied;
}

/* The members that say what it copies, and who pays. */
static void read_options(struct job_model *job, const struct json_value *data)
{
    static const char *const modes[] = { "on-success", "never", "always" };
    const char *sync = json_dict_string(data, "sync", "");
    const char *mode = json_dict_string(data, "bitmap-mode", "on-success");
    const struct json_value *perf = json_dict_get(data, "x-perf");

    job->top = strcmp(sync, "top") == 0;
    job->none = strcmp(sync, "none") == 0;
    job->full = job->top || job->none || strcmp(sync, "full") == 0;
    job->pays = strcmp(json_dict_string(data, "on-cbw-error", ""),
                       "break-guest-write") == 0;
    job->stops = json_dict_get(data, "on-source-error") != NULL ||
                 json_dict_get(data, "on-target-error") != NULL;
    job->cluster_bytes = max_u64(CLUSTER_BYTES, job->target->cluster_bytes);
    if (perf != NULL) {
        job->cluster_bytes = max_u64(
            job->cluster_bytes, json_dict_uint(perf, "min-cluster-size", 0));
    }
    for (unsigned int i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (strcmp(mode, modes[i]) == 0) {
            job->mode = modes[i];
        }
    }
}

/* What it has to copy at least, apart from what a bitmap says. */
static void mark_all(struct job_model *job)
{
    memset(&job->must, 0, sizeof(job->must));
    for (unsigned int i = 0; i < job->source->block_count; i++) {
        if (!job->top || !job->source->is_sparse || job->snapshot[i] != 0) {
            block_set_add(&job->must, i);
        }
    }
}

/* Who writes to the source of a job that lets others pay: guests, and jobs
 * whose target it is. */
static void warn_writers(struct world *world, struct job_model *begun)
{
    struct disk *disk = begun->source;

    for (unsigned int i = 0; i < disk->guest_count && begun->pays; i++) {
        disk->guests[i].pays = true;
    }
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        struct job_model *job = &world->jobs[i];

        if (!is_at_work(job)) {
            continue;
        }
        job->victim |= begun->pays && job->target == disk;
        begun->victim |= job->pays && job->source == begun->target;
    }
}

void model_begin_backup(struct world *world,
                        const struct json_value *data,
                        struct group_model *group)
{
    const char *id = json_dict_string(data, "job-id", "");
    const char *bitmap = json_dict_string(data, "bitmap", NULL);
    struct job_model *job = model_job(world, id);

    if (job == NULL || job->state != JOB_CREATED || job->begun) {
        violation("job '%s' began without having been created", id);
    }
    job->source = world_disk(world, json_dict_string(data, "device", ""));
    job->target = world_disk(world, json_dict_string(data, "target", ""));
    check_nodes(world, job->source, job->target, id);
    read_options(job, data);
    job->begun = true;
    job->bitmap = NOBODY;
    job->group = group;
    group->members++;
    group->size++;
    group->manual |= !json_dict_bool(data, "auto-finalize", true);
    take_snapshot(job);
    if (bitmap != NULL) {
        job->bitmap =
            (int)(model_bitmap(job->source, bitmap) - job->source->bitmaps);
        model_freeze(job->source, job->bitmap, job_index(world, job));
    }
    if (job->full) {
        mark_all(job);
    } else {
        job->must = job->source->bitmaps[job->bitmap].must;
    }
    job->victim = job->saves_all = false;
    warn_writers(world, job);
}

/* --- The verdict ------------------------------------------------------------ */

void model_pass_verdict(struct group_model *group, const char *who, int verdict)
{
    if (group->verdict == -verdict) {
        violation("%s %s, another of its group %s", who,
                  verdict > 0 ? "succeeds" : "fails",
                  verdict > 0 ? "has failed" : "has succeeded");
    }
    group->verdict = verdict;
}

int model_group_outcome(const struct world *world,
                        const struct group_model *group)
{
    int outcome = 0;

    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *job = &world->jobs[i];

        if (!job->used || !job->begun || job->told || job->group != group) {
            continue;
        }
        if (job->state != JOB_PENDING && job->state != JOB_ABORTING) {
            return 0;
        }
        outcome = job->state == JOB_PENDING ? 1 : -1;
    }
    return outcome;
}

static void watch_frozen(struct world *world)
{
    for (unsigned int i = 0; i < JOBS_MAX && world->frozen_count > 0; i++) {
        struct job_model *job = &world->jobs[i];
        struct bitmap_model *bitmap;
        int outcome;

        if (!job->used || !job->begun || job->bitmap == NOBODY) {
            continue;
        }
        bitmap = &job->source->bitmaps[job->bitmap];
        if (bitmap->frozen_by != (int)i ||
            model_is_frozen_in_engine(job->source, bitmap)) {
            continue;
        }
        outcome = model_group_outcome(world, job->group);
        if (outcome == 0) {
            violation("job '%s' let its bitmap go while %s", job->id,
                      job_state_name(job->state));
        }
        model_pass_verdict(job->group, job->id, outcome);
        model_thaw(job->source, bitmap, job, outcome > 0);
    }
}

void model_after_turn(struct world *world)
{
    if (world->frozen_count > 0) {
        watch_frozen(world);
    }
    if (world->change_count > 0) {
        model_watch_changes(world);
    }
}

/* --- Events ------------------------------------------------------------------ */

/* The table of moves, as the protocol's description has it. */
static bool may_move(enum job_state from, enum job_state to)
{
    static const unsigned int moves[JOB_STATE_COUNT] = {
        [JOB_UNDEFINED] = 1u << JOB_CREATED,
        [JOB_CREATED] = 1u << JOB_RUNNING | 1u << JOB_ABORTING | 1u << JOB_NULL,
        [JOB_RUNNING] =
            1u << JOB_PAUSED | 1u << JOB_WAITING | 1u << JOB_ABORTING,
        [JOB_PAUSED] = 1u << JOB_RUNNING,
        [JOB_WAITING] = 1u << JOB_PENDING | 1u << JOB_ABORTING,
        [JOB_PENDING] = 1u << JOB_ABORTING | 1u << JOB_CONCLUDED,
        [JOB_ABORTING] = 1u << JOB_CONCLUDED,
        [JOB_CONCLUDED] = 1u << JOB_NULL,
    };

    return (moves[from] >> to & 1) != 0;
}

static enum job_state state_named(const char *name)
{
    for (unsigned int i = 0; i < JOB_STATE_COUNT; i++) {
        if (strcmp(job_state_name(i), name) == 0) {
            return i;
        }
    }
    violation("there is no job state '%s'", name);
}

static struct job_model *new_job(struct world *world, const char *id)
{
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        struct job_model *job = &world->jobs[i];

        if (!job->used) {
            job->used = true;
            g_strlcpy(job->id, id, sizeof(job->id));
            job->state = JOB_UNDEFINED;
            job->begun = job->told = job->error_told = false;
            job->was_waiting = job->user_paused = false;
            world->command.backups_created++;
            return job;
        }
    }
    violation("the simulator has too few jobs");
}

static void note_move(struct world *world,
                      struct job_model *job,
                      enum job_state to)
{
    uint64_t *buckets = world->histogram->buckets;

    if (to == JOB_ABORTING) {
        if (job->state == JOB_WAITING || job->state == JOB_PENDING) {
            buckets[MEMBER_DONE_UNDONE] += job->group->size > 1;
        }
        if (job->state == JOB_PENDING && !job->group->cancelled) {
            buckets[FAILED_IN_PREPARE]++;
        }
    }
}

static void status_changed(struct world *world, const struct json_value *data)
{
    const char *id = json_dict_string(data, "id", "");
    enum job_state to = state_named(json_dict_string(data, "status", ""));
    struct job_model *job = model_job(world, id);

    if (job == NULL && to == JOB_CREATED) {
        job = new_job(world, id);
    }
    if (job == NULL || !may_move(job->state, to)) {
        violation("job '%s' moved from '%s' to '%s'", id,
                  job != NULL ? job_state_name(job->state) : "nowhere",
                  job_state_name(to));
    }
    if (to == JOB_RUNNING && !job->begun) {
        violation("job '%s' runs, and had no instant", id);
    }
    if (to == JOB_CONCLUDED && job->begun && !job->told) {
        violation("job '%s' concluded before its end was told", id);
    }
    note_move(world, job, to);
    if (job->state == JOB_PAUSED || to == JOB_ABORTING) {
        job->user_paused = false;
    }
    job->state = to;
    if (to == JOB_NULL) {
        job->used = false;
    }
}

static void note_end(struct world *world,
                     const struct job_model *job,
                     bool success)
{
    uint64_t *buckets = world->histogram->buckets;
    const struct group_model *group = job->group;
    enum bucket bucket = END_PLAIN_SUCCESS;

    if (job->bitmap != NOBODY) {
        bucket = strcmp(job->mode, "on-success") == 0 ? END_ON_SUCCESS_SUCCESS
                 : strcmp(job->mode, "never") == 0    ? END_NEVER_SUCCESS
                                                      : END_ALWAYS_SUCCESS;
    }
    buckets[bucket + !success]++;
    buckets[END_TOP_SUCCESS] += job->top && success;
    buckets[END_NONE] += job->none;
    if (group->members == 0 && group->size > 1) {
        buckets[success            ? GROUP_SUCCESS
                : group->cancelled ? GROUP_CANCELLED
                                   : GROUP_FAILURE]++;
    }
    if (group->members == 0 && group->cancelled && group->failed) {
        buckets[CANCEL_AND_FAILURE]++;
    }
}

/* The target holds the source as of the instant, where it was to be copied,
 * and elsewhere that or what it held before. After a failure it may lack some,
 * but what it got is of the instant. */
static void check_copy(const struct job_model *job, bool success)
{
    const struct disk *target = job->target;

    for (unsigned int i = 0; i < target->block_count; i++) {
        if (target->stamps[i] == job->snapshot[i]) {
            continue;
        }
        if (success && block_set_has(&job->must, i)) {
            violation("job '%s' succeeded, but block %u of %s holds %" PRIx64
                      " where %s held %" PRIx64 " at the instant",
                      job->id, i, target->name, target->stamps[i],
                      job->source->name, job->snapshot[i]);
        }
        if (target->stamps[i] != job->target_before[i]) {
            violation("job '%s' wrote something strange to block %u of %s",
                      job->id, i, target->name);
        }
    }
}

static void check_success(struct job_model *job)
{
    struct group_model *group = job->group;

    if (job->state != JOB_PENDING) {
        violation("job '%s' succeeded while %s", job->id,
                  job_state_name(job->state));
    }
    if (group->cancelled && job->source->world->cancelling_since_ns == 0) {
        violation("job '%s' succeeded, though its group was cancelled",
                  job->id);
    }
    if (group->manual && !group->finalized) {
        violation("job '%s' succeeded, and nobody finalized it", job->id);
    }
    if (job->target->writes_durable < job->target->writes_applied) {
        violation("job '%s' succeeded with writes to %s not flushed", job->id,
                  job->target->name);
    }
    if (job->source->writes_durable < job->source_writes_at_instant) {
        violation("job '%s' succeeded with writes to %s not flushed", job->id,
                  job->source->name);
    }
    if (job->none) {
        violation("job '%s' succeeded, though it copies till it is cancelled",
                  job->id);
    }
    check_copy(job, true);
}

/* Has anything happened to it that it may fail for? */
static bool has_faults(const struct job_model *job)
{
    return job->victim || job->source->fault_count + job->target->fault_count !=
                              job->faults_at_instant;
}

void model_cancel_begins(struct world *world, const struct group_model *group)
{
    bool faults = false;

    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        faults |= is_at_work(&world->jobs[i]) &&
                  world->jobs[i].group == group && has_faults(&world->jobs[i]);
    }
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        struct job_model *job = &world->jobs[i];

        if (!is_at_work(job) || job->group != group || !job->none ||
            job->state != JOB_RUNNING || faults || group->cancelled) {
            continue;
        }
        job->saves_all = true;
        memset(&job->must, 0, sizeof(job->must));
        for (unsigned int k = 0; k < job->source->block_count; k++) {
            if (job->source->stamps[k] != job->snapshot[k]) {
                block_set_add(&job->must, k);
            }
        }
    }
}

static void check_failure(struct world *world, const struct job_model *job)
{
    const struct group_model *group = job->group;
    bool cause = group->cancelled || world->cancelling_since_ns != 0;

    if (job->state != JOB_ABORTING) {
        violation("job '%s' failed while %s", job->id,
                  job_state_name(job->state));
    }
    for (unsigned int i = 0; i < JOBS_MAX && !cause; i++) {
        const struct job_model *other = &world->jobs[i];

        cause = other->used && other->begun && other->group == group &&
                has_faults(other);
    }
    if (!cause && !group->failed) {
        violation("job '%s' failed without a cause", job->id);
    }
}

static void job_ended(struct world *world,
                      const char *event,
                      const struct json_value *data)
{
    struct job_model *job = need_job(world, data, "device", event);
    bool failed = json_dict_get(data, "error") != NULL;
    bool success = strcmp(event, "BLOCK_JOB_COMPLETED") == 0 && !failed;

    if (!job->begun || job->told) {
        violation("%s for job '%s', which %s", event, job->id,
                  job->told ? "had it already" : "never began");
    }
    if (job->bitmap != NOBODY &&
        job->source->bitmaps[job->bitmap].frozen_by == job_index(world, job)) {
        violation("job '%s' ended and kept its bitmap", job->id);
    }
    model_pass_verdict(job->group, job->id, success ? 1 : -1);
    if (success) {
        check_success(job);
        if (json_dict_int(data, "offset", -1) !=
            json_dict_int(data, "len", -2)) {
            violation("job '%s' succeeded with offset != len", job->id);
        }
        world->histogram->buckets[NOTHING_TO_COPY] +=
            json_dict_int(data, "len", 0) == 0;
    } else {
        check_failure(world, job);
        bool saved = job->saves_all && !failed && !has_faults(job);

        check_copy(job, saved);
        world->histogram->buckets[SAVED_TILL_CANCEL] += saved;
        job->group->failed |= failed;
        world->histogram->buckets[FAILED_UNTOLD] += failed && !job->error_told;
    }
    job->told = true;
    job->group->members--;
    note_end(world, job, success);
}

void model_event(struct world *world,
                 const char *event,
                 const struct json_value *data)
{
    struct job_model *job;

    /* A job at home on the main loop may do it all in one turn. */
    model_after_turn(world);
    trace(
        world, "%s %s%s %s", event, json_dict_string(data, "id", ""),
        json_dict_string(data, "device", ""),
        json_dict_string(data, "status", json_dict_string(data, "error", "")));
    if (strcmp(event, "JOB_STATUS_CHANGE") == 0) {
        status_changed(world, data);
    } else if (strcmp(event, "BLOCK_JOB_ERROR") == 0) {
        job = need_job(world, data, "device", event);
        job->error_told = true;
        world->histogram->buckets[STOPPED_ON_ERROR] +=
            strcmp(json_dict_string(data, "action", ""), "stop") == 0;
        world->histogram->buckets[RETRIED_ON_ERROR] +=
            strcmp(json_dict_string(data, "action", ""), "ignore") == 0;
        if (!job->begun || job->told) {
            violation("%s for job '%s' out of time", event, job->id);
        }
    } else if (strcmp(event, "BLOCK_JOB_PENDING") == 0) {
        job = need_job(world, data, "id", event);
        if (job->state != JOB_PENDING) {
            violation("%s for job '%s' while %s", event, job->id,
                      job_state_name(job->state));
        }
    } else {
        job_ended(world, event, data);
    }
}
