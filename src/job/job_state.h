/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The states of a job, the moves between them and the verbs each allows.
 *
 *             created ───────────────┐
 *                │                   │
 *     paused <─> running <─> ready <─> standby
 *                │   │        │
 *                │   └────────┴──> aborting <─┐
 *                ▼                   │        │
 *             waiting ──> pending ───┼────────┘
 *                            │       ▼
 *                            └──> concluded ──> null
 *
 * Names are QAPI's JobStatus. Pure.
 */
#ifndef JOB_JOB_STATE_H
#define JOB_JOB_STATE_H

#include <glib.h>
#include <stdbool.h>

enum job_state {
    JOB_UNDEFINED,
    JOB_CREATED,
    JOB_RUNNING,
    JOB_PAUSED,
    JOB_READY,
    JOB_STANDBY,
    JOB_WAITING,
    JOB_PENDING,
    JOB_ABORTING,
    JOB_CONCLUDED,
    JOB_NULL,
    JOB_STATE_COUNT,
};

enum job_verb {
    JOB_VERB_CANCEL,
    JOB_VERB_PAUSE,
    JOB_VERB_RESUME,
    JOB_VERB_SET_SPEED,
    JOB_VERB_CHANGE,
    JOB_VERB_COMPLETE,
    JOB_VERB_FINALIZE,
    JOB_VERB_DISMISS,
    JOB_VERB_COUNT,
};

const char *job_state_name(enum job_state state);
const char *job_verb_name(enum job_verb verb);
bool job_state_may_move(enum job_state from, enum job_state to);
/* 0, or -EPERM with a sentence naming job, verb and state. */
int job_state_check_verb(enum job_state state,
                         enum job_verb verb,
                         const char *id,
                         GError **err);

/* JobStatus as a NULL-terminated list, for the schema. */
extern const char *const job_state_names[];

#endif
