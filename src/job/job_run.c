/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A job at work: one coroutine that begins on the home thread, in co_run, and
 * ends on the main thread, where its result goes to the group.
 *
 *     home:  pause point ── co_run ──┐      ┌── nudge: wake sleepers,
 *                                    │      │   ops->cancel, ops->set_speed
 *     main:  start ──> [verbs: set an atomic, nudge] ──> result to the group
 *
 * A pause is the same coroutine, moved to the main thread and waiting there.
 * Cancelling before co_run has begun skips it. After co_run has returned no
 * nudge is sent any more, and the coroutine makes sure that the last one has
 * run before anyone may free the job.
 */
#include "job/job.h"

#include <errno.h>

#include "job/job_priv.h"

/* Home thread. Looks at everything that may have changed. */
static void run_nudge(struct loop_message *message)
{
    struct job *job = LIST_ENTRY(message, struct job, nudge);

    /* First this, then the looking: what is set later nudges anew. */
    atomic_store(&job->nudge_posted, false);
    co_queue_wake_all(&job->sleepers);
    if (!job->inside) {
        return;
    }
    if (atomic_load(&job->cancelled) && !job->cancel_told) {
        job->cancel_told = true;
        if (job->ops->cancel != NULL) {
            job->ops->cancel(job);
        }
    }
    uint64_t speed = atomic_load(&job->speed);
    if (speed != job->speed_told) {
        job->speed_told = speed;
        job->ops->set_speed(job, speed);
    }
}

void job_nudge(struct job *job)
{
    if (!job->working) {
        return;
    }
    job->nudged = true;
    if (!atomic_exchange(&job->nudge_posted, true)) {
        loop_post(job->home, &job->nudge);
    }
}

/* Main thread, no nudge is sent any more. Seen on the home thread, a message
 * that is not posted has also returned. */
static void co_settle_nudge(struct job *job)
{
    bool posted = job->nudged;

    while (posted) {
        co_move(job->home);
        posted = atomic_load(&job->nudge_posted);
        if (posted) {
            co_reschedule();
        }
        co_move(job->main);
    }
}

static void co_job_run(void *opaque)
{
    struct job *job = opaque;
    GError *err = NULL;
    int result = -ECANCELED;

    if (!co_job_pause_point(job)) {
        job->inside = true;
        result = job->ops->co_run(job, &err);
        job->inside = false;
    }
    co_move(job->main);
    job->working = false;
    co_settle_nudge(job);
    atomic_store(&job->pause_reason, JOB_PAUSE_NONE);
    job_txn_member_ended(job, result, err); /* its end may be told from now */
}

void job_start(struct job *job)
{
    job->started = true;
    job->working = true;
    job->nudge.run = run_nudge;
    job_move(job, JOB_RUNNING);
    co_spawn(job->home, co_job_run, job);
}

/*
 * Pausing.
 */

static bool shall_pause(struct job *job)
{
    return atomic_load(&job->pause_reason) != JOB_PAUSE_NONE &&
           !atomic_load(&job->cancelled);
}

bool co_job_pause_point(struct job *job)
{
    if (shall_pause(job)) {
        struct loop *home = loop_current();
        co_move(job->main);
        while (shall_pause(job)) {
            if (job->state == JOB_RUNNING) {
                job_move(job, JOB_PAUSED);
            }
            co_queue_wait(&job->resumed);
        }
        co_move(home);
    }
    return atomic_load(&job->cancelled);
}

void job_unpause(struct job *job)
{
    atomic_store(&job->pause_reason, JOB_PAUSE_NONE);
    if (job->state == JOB_PAUSED) {
        job_move(job, JOB_RUNNING);
    }
    co_queue_wake_all(&job->resumed);
}

void job_flag_cancelled(struct job *job)
{
    if (atomic_exchange(&job->cancelled, true)) {
        return;
    }
    job_unpause(job);
    job_nudge(job);
}

bool job_is_cancelled(const struct job *job)
{
    return atomic_load(&job->cancelled);
}

void co_job_sleep_until(struct job *job, uint64_t deadline_ns)
{
    if (!atomic_load(&job->cancelled) && !shall_pause(job)) {
        (void)co_queue_wait_until(&job->sleepers, deadline_ns);
    }
}

void job_wake(struct job *job)
{
    co_queue_wake_all(&job->sleepers);
}

void job_stop_on_error(struct job *job, int error)
{
    atomic_store(&job->pause_reason,
                 error == -ENOSPC ? JOB_PAUSE_NO_SPACE : JOB_PAUSE_FAILED);
    co_queue_wake_all(&job->sleepers);
}

/*
 * Progress.
 */

void job_progress_set_total(struct job *job, uint64_t bytes)
{
    atomic_store(&job->total, bytes);
}

void job_progress_add_total(struct job *job, uint64_t bytes)
{
    atomic_fetch_add(&job->total, bytes);
}

void job_progress_add_done(struct job *job, uint64_t bytes)
{
    atomic_fetch_add(&job->done, bytes);
}
