/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs: long work with a state that clients can see and steer.
 *
 * A job belongs to a job transaction, alone or with others (job_txn.h); a job
 * alone is a group of one, there is one code path. Its states and their legal
 * transitions are a table (job_state.h).
 *
 *     job_new() ... job_txn_add() ... job_txn_start() ──> ops->co_run() on the
 *     home thread ──> waiting ──> pending ──> ops->co_prepare, ops->commit or
 *     ops->abort, ops->co_clean ──> concluded ──> null (freed)
 *
 * Jobs belong to the main thread: all functions are for its coroutines and
 * callbacks, except where a comment names the home thread. `co_run` is the only
 * part of a driver that runs elsewhere.
 */
#ifndef JOB_JOB_H
#define JOB_JOB_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "job/job_state.h"
#include "loop/loop.h"

struct job;
struct job_list; /* all jobs of a daemon */
struct job_txn;

/* What a kind of job does. A driver with no group code of its own is safe in a
 * group: it puts what must be all or nothing into prepare, commit and abort. */
struct job_ops {
    const char *type;  /* JobType: "backup" */
    bool is_block_job; /* shown by query-block-jobs, BLOCK_JOB_* events */
    /* The work, on the job's home loop, in a coroutine. Returns 0, or a
     * negative errno with err set (may be left unset). Calls
     * co_job_pause_point() between steps. */
    int (*co_run)(struct job *job, GError **err);
    /* Main thread, all members are pending: last point to fail (flush). */
    int (*co_prepare)(struct job *job, GError **err);
    /* Main thread; exactly one of these, cannot fail. The job's nodes are
     * fenced when they need to be: that is the driver's to do. A transaction
     * may be holding fences meanwhile and change hooks and bitmaps from the
     * main thread, so a started job takes the graph's lock while it changes
     * them (co_job_discard() is called with the lock held). */
    void (*co_commit)(struct job *job);
    void (*co_abort)(struct job *job);
    /* Main thread, last: release nodes, hooks, memory of `opaque`. */
    void (*co_clean)(struct job *job);
    /* Home thread: a cancel has been asked for; make co_run return soon (wake
     * whatever it waits on). NULL: pause points suffice. */
    void (*cancel)(struct job *job);
    /* Home thread: the speed limit has changed. NULL: has none. */
    void (*set_speed)(struct job *job, uint64_t bytes_per_second);
};

struct job_options {
    const char *id; /* legal and free, checked by job_new() */
    bool auto_finalize;
    bool auto_dismiss;
    uint64_t speed; /* bytes/s, 0: no limit */
};

/* Where events go: JOB_STATUS_CHANGE and BLOCK_JOB_*. `data` is consumed. */
typedef void (*job_event_fn)(void *opaque,
                             const char *event,
                             struct json_value *data);

struct job_list *job_list_new(job_event_fn event, void *opaque);
void job_list_free(struct job_list *list); /* empty */
struct job *job_find(struct job_list *list, const char *id);
/* Newest first; NULL to begin, NULL at the end. */
struct job *job_next(struct job_list *list, struct job *job);

/* A job in state `created`, not in a group yet. Refused: id ill-formed or
 * taken. `opaque` is the driver's; `home` may be changed by job_set_home()
 * until it starts. */
struct job *job_new(struct job_list *list,
                    const struct job_ops *ops,
                    const struct job_options *options,
                    struct loop *home,
                    void *opaque,
                    GError **err);
/* Ends a job that never started: events aborting, concluded, null; ops->co_abort
 * and ops->co_clean run. The job is gone after. */
void co_job_discard(struct job *job);

const char *job_id(const struct job *job);
const char *job_type(const struct job *job);
bool job_is_block_job(const struct job *job);
enum job_state job_state_of(const struct job *job);
struct job_list *job_list_of(const struct job *job);
void *job_opaque(const struct job *job);
void job_set_home(struct job *job, struct loop *home);
uint64_t job_speed(const struct job *job); /* any thread */
/* How it failed, a negative errno (-ECANCELED also for a peer's failure); 0: it
 * has not. For co_abort and co_clean. */
int job_result(const struct job *job);

/* Verbs. Refused with a sentence that names the state when the state does not
 * allow the verb. They return at once; what they cause is told by events.
 * `force` false: refuse a job that is paused (block-job-cancel). */
int job_pause(struct job *job, GError **err);
int job_resume(struct job *job, GError **err);
int job_cancel(struct job *job, bool force, GError **err);
int job_set_speed(struct job *job, int64_t bytes_per_second, GError **err);
int job_finalize(struct job *job, GError **err);
int job_dismiss(struct job *job, GError **err);

/* Cancels every job and returns when all have ended (shut-down). */
void co_job_cancel_all(struct job_list *list);

/* query-jobs and query-block-jobs: one element each, a new dict. */
struct json_value *job_info(const struct job *job);
struct json_value *block_job_info(const struct job *job);

/* Progress, home thread (any thread may read it). `total` may shrink or grow;
 * `done` never falls. */
void job_progress_set_total(struct job *job, uint64_t bytes);
void job_progress_add_total(struct job *job, uint64_t bytes);
void job_progress_add_done(struct job *job, uint64_t bytes);

/* Home thread. Returns true when the job shall stop (cancelled); waits here
 * while it is paused. */
bool co_job_pause_point(struct job *job);
bool job_is_cancelled(const struct job *job);
/* Home thread: sleeps at most until `deadline_ns`; wakes early when the job is
 * cancelled, paused or its speed changes. */
void co_job_sleep_until(struct job *job, uint64_t deadline_ns);
/* Home thread: ends such a sleep early. */
void job_wake(struct job *job);

/* Home thread, error policy "stop": sets the io-status ("nospace" for -ENOSPC,
 * else "failed") and asks for a pause as if the user had; the next pause point
 * waits. Resuming clears the io-status. */
void job_stop_on_error(struct job *job, int error);

/* Home thread: BLOCK_JOB_ERROR on its way to the clients. `operation` is
 * "read" or "write", `action` "report", "ignore" or "stop". */
void job_report_error(struct job *job,
                      const char *operation,
                      const char *action);

#endif
