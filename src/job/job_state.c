/* SPDX-License-Identifier: BSD-3-Clause */
#include "job/job_state.h"

#include <errno.h>

#include "base/error.h"

#define TO(state) (1u << (state))

const char *const job_state_names[] = {
    "undefined", "created", "running",  "paused",    "ready", "standby",
    "waiting",   "pending", "aborting", "concluded", "null",  NULL,
};

G_STATIC_ASSERT(G_N_ELEMENTS(job_state_names) == JOB_STATE_COUNT + 1);

/* Where each state may go; everything else is a mistake of ours. */
static const unsigned int moves[JOB_STATE_COUNT] = {
    [JOB_UNDEFINED] = TO(JOB_CREATED),
    [JOB_CREATED] = TO(JOB_RUNNING) | TO(JOB_ABORTING) | TO(JOB_NULL),
    [JOB_RUNNING] =
        TO(JOB_PAUSED) | TO(JOB_READY) | TO(JOB_WAITING) | TO(JOB_ABORTING),
    [JOB_PAUSED] = TO(JOB_RUNNING),
    [JOB_READY] = TO(JOB_STANDBY) | TO(JOB_WAITING) | TO(JOB_ABORTING),
    [JOB_STANDBY] = TO(JOB_READY),
    [JOB_WAITING] = TO(JOB_PENDING) | TO(JOB_ABORTING),
    [JOB_PENDING] = TO(JOB_ABORTING) | TO(JOB_CONCLUDED),
    [JOB_ABORTING] = TO(JOB_ABORTING) | TO(JOB_CONCLUDED),
    [JOB_CONCLUDED] = TO(JOB_NULL),
    [JOB_NULL] = 0,
};

#define WHILE_WORKING                                                  \
 (TO(JOB_CREATED) | TO(JOB_RUNNING) | TO(JOB_PAUSED) | TO(JOB_READY) | \
  TO(JOB_STANDBY))

/* In which states each verb is allowed, and what a person calls it. */
static const struct {
    const char *name;
    const char *past_participle;
    unsigned int states;
} verbs[JOB_VERB_COUNT] = {
    [JOB_VERB_CANCEL] = { "cancel", "cancelled",
                          WHILE_WORKING | TO(JOB_WAITING) | TO(JOB_PENDING) },
    [JOB_VERB_PAUSE] = { "pause", "paused", WHILE_WORKING },
    [JOB_VERB_RESUME] = { "resume", "resumed", WHILE_WORKING },
    [JOB_VERB_SET_SPEED] = { "set-speed", "given another speed",
                             WHILE_WORKING },
    [JOB_VERB_CHANGE] = { "change", "changed", WHILE_WORKING },
    [JOB_VERB_COMPLETE] = { "complete", "completed",
                            TO(JOB_READY) | TO(JOB_STANDBY) },
    [JOB_VERB_FINALIZE] = { "finalize", "finalized", TO(JOB_PENDING) },
    [JOB_VERB_DISMISS] = { "dismiss", "dismissed", TO(JOB_CONCLUDED) },
};

const char *job_state_name(enum job_state state)
{
    return job_state_names[state];
}

const char *job_verb_name(enum job_verb verb)
{
    return verbs[verb].name;
}

bool job_state_may_move(enum job_state from, enum job_state to)
{
    return (moves[from] & TO(to)) != 0;
}

int job_state_check_verb(enum job_state state,
                         enum job_verb verb,
                         const char *id,
                         GError **err)
{
    if ((verbs[verb].states & TO(state)) != 0) {
        return 0;
    }
    return error_set(err, -EPERM, "Job '%s' cannot be %s: it is in state '%s'",
                     id, verbs[verb].past_participle, job_state_names[state]);
}
