/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands: their instant, their reply, and what a job's state allows. */
#include "model.h"

#include <errno.h>

#include "job/transaction_fence.h"

void model_instant(struct world *world)
{
    struct command *command = &world->command;
    struct group_model *group = NULL;
    unsigned int backups = 0;

    if (command->name == NULL || command->instants++ > 0) {
        violation("an instant without a command, or a second one");
    }
    model_after_turn(world);
    for (unsigned int i = 0; i < command->action_count; i++) {
        backups += strcmp(command->types[i], "blockdev-backup") == 0;
    }
    if (command->grouped && backups > 0) {
        group = model_new_group(world);
    }
    for (unsigned int i = 0; i < command->action_count; i++) {
        const char *type = command->types[i];

        if (strcmp(type, "abort") == 0) {
            violation("a transaction with an abort in it took effect");
        }
        if (strcmp(type, "blockdev-backup") != 0) {
            model_bitmap_action(world, type, command->data[i], group);
        } else {
            model_begin_backup(world, command->data[i],
                               group != NULL ? group : model_new_group(world));
        }
    }
}

/*
 * The linker puts this in the place of the transaction engine's call (see
 * meson.build). Once the fences have closed nothing yields until all actions
 * have committed: the model changes at exactly the instant.
 */
int __real_co_fence_set_close(struct fence_set *set,
                              uint64_t timeout_ns,
                              GError **err);
int __wrap_co_fence_set_close(struct fence_set *set,
                              uint64_t timeout_ns,
                              GError **err);

int __wrap_co_fence_set_close(struct fence_set *set,
                              uint64_t timeout_ns,
                              GError **err)
{
    struct world *world = world_current();
    int ret = __real_co_fence_set_close(set, timeout_ns, err);

    if (ret == 0) {
        model_instant(world);
    } else if (ret == -ETIMEDOUT) {
        world->command.timed_out = true;
    }
    return ret;
}

static void note_transaction(struct world *world, bool ok)
{
    const struct command *command = &world->command;
    uint64_t *buckets = world->histogram->buckets;
    unsigned int backups = 0;

    for (unsigned int i = 0; i < command->action_count; i++) {
        backups += strcmp(command->types[i], "blockdev-backup") == 0;
    }
    if (ok) {
        buckets[TRANSACTION_OK]++;
        buckets[TRANSACTION_MIXED] +=
            backups > 0 && backups < command->action_count;
        buckets[TRANSACTION_GROUPED] += command->grouped && backups > 1;
    } else {
        buckets[TRANSACTION_UNDONE] += command->backups_created > 0;
        buckets[FENCE_TIMEOUT] += command->timed_out;
        buckets[FENCE_TIMEOUT_BACKUP] +=
            command->timed_out && command->backups_created > 0;
    }
}

void model_command_ended(struct world *world, bool ok)
{
    struct command *command = &world->command;

    world->histogram->buckets[ok ? VERB_OK : VERB_REFUSED]++;
    if (command->action_count > 0) {
        if (ok != (command->instants == 1)) {
            violation("%s %s, and its fences have %s", command->name,
                      ok ? "succeeded" : "failed",
                      ok ? "never closed" : "closed");
        }
        note_transaction(world, ok);
    }
    for (unsigned int i = 0; i < world->disk_count; i++) {
        model_check_bitmaps(&world->disks[i]);
    }
    *command = (struct command){ .name = NULL };
}

/* --- Verbs of jobs ------------------------------------------------------------ */

static bool verb_is_legal(enum sim_verb verb, enum job_state state)
{
    switch (verb) {
    case VERB_PAUSE:
    case VERB_RESUME:
    case VERB_SET_SPEED: return state == JOB_RUNNING || state == JOB_PAUSED;
    case VERB_CANCEL:
        return state == JOB_RUNNING || state == JOB_PAUSED ||
               state == JOB_WAITING || state == JOB_PENDING;
    case VERB_CANCEL_SOFT:
        return state == JOB_RUNNING || state == JOB_WAITING ||
               state == JOB_PENDING;
    case VERB_FINALIZE:
    case VERB_EXTENTS: return state == JOB_PENDING;
    case VERB_DISMISS: return state == JOB_CONCLUDED;
    case VERB_COMPLETE:
    case SIM_VERBS: break;
    }
    return false;
}

/* Must it be accepted, as far as the model can tell? */
static bool verb_is_due(const struct job_model *job,
                        enum sim_verb verb,
                        enum job_state state)
{
    bool waits_for_client = state == JOB_PENDING && job->group->manual &&
                            !job->group->finalized && !job->group->cancelled &&
                            job->group->verdict == 0;

    switch (verb) {
    case VERB_PAUSE:
        return state == JOB_RUNNING && !job->user_paused &&
               !job->group->cancelled && !job->stops;
    case VERB_RESUME: return state == JOB_PAUSED;
    case VERB_CANCEL: return state != JOB_PENDING || waits_for_client;
    case VERB_FINALIZE: return waits_for_client;
    case VERB_DISMISS:
    case VERB_SET_SPEED: return true;
    case VERB_CANCEL_SOFT:
    case VERB_COMPLETE:
    case VERB_EXTENTS:
    case SIM_VERBS: break;
    }
    return false;
}

void model_cancelled(struct world *world, struct group_model *group)
{
    if (!group->cancelled) {
        group->cancelled = true;
        group->cancelled_ns = world->scheduler.now_ns;
    }
}

static void note_cancel(struct world *world,
                        const struct job_model *job,
                        enum job_state state,
                        bool ok)
{
    uint64_t *buckets = world->histogram->buckets;
    bool waits = job->group->manual && !job->group->finalized;

    if (state == JOB_PENDING && !waits) {
        buckets[ok ? CANCEL_IN_PREPARE : CANCEL_SEALED]++;
    }
}

void model_verb_ended(struct world *world,
                      enum sim_verb verb,
                      const char *id,
                      enum job_state state,
                      bool ok)
{
    struct job_model *job = model_job(world, id);
    bool legal = verb_is_legal(verb, state);

    world->histogram->verbs[verb][state]++;
    if (ok && !legal) {
        violation("%s was accepted for job '%s' while %s", sim_verb_names[verb],
                  id, job_state_name(state));
    }
    if (!legal) {
        return;
    }
    if (job == NULL) { /* dismissed */
        return;
    }
    if (!ok && verb_is_due(job, verb, state)) {
        violation("%s was refused for job '%s' while %s", sim_verb_names[verb],
                  id, job_state_name(state));
    }
    if (verb == VERB_CANCEL || verb == VERB_CANCEL_SOFT) {
        note_cancel(world, job, state, ok);
        if (ok) {
            model_cancel_begins(world, job->group);
        }
        if (ok) {
            model_cancelled(world, job->group);
        }
    } else if (verb == VERB_FINALIZE) {
        job->group->finalized |= ok;
    } else if (verb == VERB_PAUSE) {
        job->user_paused |= ok;
    } else if (verb == VERB_RESUME && ok) {
        job->user_paused = false;
    }
}
