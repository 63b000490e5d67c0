/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of jobs and job transactions, for the files of this folder.
 *
 * Who touches what of a job:
 *
 *     main thread                 both (atomic)            home thread
 *     state, group, error   --->  cancelled, pause   --->  sleepers, working
 *                           <---  progress           <---
 *
 * The main thread sets an atomic and posts the job's one message, the nudge,
 * which looks at all of them on the home thread. A job that pauses, and one that
 * has done its work, comes over to the main thread as a coroutine; so every
 * change of state happens there.
 */
#ifndef JOB_JOB_PRIV_H
#define JOB_JOB_PRIV_H

#include <stdatomic.h>

#include "job/job.h"
#include "job/job_txn.h"
#include "loop/co_lock.h"

/* Why a job shall pause. One resume ends it, whatever the reason. */
enum job_pause_reason {
    JOB_PAUSE_NONE,
    JOB_PAUSE_USER,
    JOB_PAUSE_FAILED,   /* error policy; io-status "failed" */
    JOB_PAUSE_NO_SPACE, /* error policy; io-status "nospace" */
};

struct job_list {
    struct list jobs; /* newest first */
    GHashTable *by_id;
    job_event_fn event;
    void *opaque;
    struct co_queue ended; /* woken when a job concludes or goes */
};

struct job {
    struct list link; /* job_list.jobs */
    struct job_list *list;
    struct list txn_link; /* job_txn.members */
    struct job_txn *txn;  /* NULL: in none yet, or over */
    const struct job_ops *ops;
    void *opaque;
    char *id;
    struct loop *main;
    struct loop *home;

    /* Main thread. */
    enum job_state state;
    bool auto_finalize;
    bool auto_dismiss;
    bool started;
    bool working; /* co_run has not been seen to return */
    bool nudged;  /* a nudge was sent at least once */
    bool sealed;  /* the group is being decided: too late to cancel */
    int result;
    GError *error;           /* set when result < 0 */
    struct co_queue resumed; /* waits while paused */

    /* Any thread. */
    atomic_bool cancelled;
    atomic_bool nudge_posted;
    atomic_int pause_reason; /* enum job_pause_reason */
    atomic_uint_fast64_t speed;
    atomic_uint_fast64_t total;
    atomic_uint_fast64_t done;

    /* Home thread. */
    struct loop_message nudge;
    struct co_queue sleepers;
    bool inside; /* co_run is running */
    bool cancel_told;
    uint64_t speed_told;
};

struct job_txn {
    struct list members;
    struct list companions;
    size_t working; /* members whose co_run has not returned */
    bool aborting;
    bool finalize;           /* job-finalize has come, or none is needed */
    struct co_queue changed; /* any of the above has */
    struct job_txn_origin origin;
    struct job_txn_decider *decider; /* NULL: prepared by all is decided */
    GError *doubt;                   /* why it is in doubt; NULL: it is not */
    /* Who brought it down: by failing, or by being cancelled. NULL: nobody. */
    const struct job *culprit;
    bool culprit_failed;
};

/* job.c. The one function that changes a state; emits JOB_STATUS_CHANGE. */
void job_move(struct job *job, enum job_state state);
/* To concluded, and on to null unless the job is to be dismissed by hand; frees
 * it then. Its final event has been sent. */
void job_conclude(struct job *job, bool dismiss);
/* Frees it without a word to anyone. */
void job_vanish(struct job *job);
/* Notes a failure; takes `error`, NULL: the text of the errno. */
void job_set_result(struct job *job, int result, GError *error);

/* job_run.c. */
void job_start(struct job *job);
void job_nudge(struct job *job);
/* Ends a pause of whatever reason: back to running. */
void job_unpause(struct job *job);
/* Flags the job; its co_run returns soon. */
void job_flag_cancelled(struct job *job);

/* job_txn.c. */
/* A member's co_run has returned; takes `error`, which may be NULL. */
void job_txn_member_ended(struct job *job, int result, GError *error);
/* Cancels every member that has not failed by itself; because of `culprit`, which
 * has failed (its result is set) or has been cancelled. */
void job_txn_abort(struct job_txn *txn, const struct job *culprit);
void job_txn_finalize(struct job_txn *txn);

/* job_txn_trace.c: what the log tells of a group. */
const char *job_txn_label(const struct job_txn *txn); /* first member's id */
void job_txn_trace_start(const struct job_txn *txn);
void job_txn_trace_abort(const struct job_txn *txn);
/* Its fate is sealed, its members are still there. */
void job_txn_trace_end(const struct job_txn *txn);

/* job_info.c: events; BLOCK_JOB_* for block jobs only. */
void job_emit(struct job *job, const char *event, struct json_value *data);
void job_emit_end(struct job *job); /* COMPLETED or CANCELLED */
void job_emit_pending(struct job *job);

#endif
