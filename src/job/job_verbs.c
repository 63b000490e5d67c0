/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a client may do to a job. Each verb checks the state's table first, then
 * what the table cannot say, and returns before its effect is complete.
 */
#include "job/job.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "job/job_priv.h"

static bool is_pausing(const struct job *job)
{
    return atomic_load(&job->pause_reason) != JOB_PAUSE_NONE;
}

int job_pause(struct job *job, GError **err)
{
    int result = job_state_check_verb(job->state, JOB_VERB_PAUSE, job->id, err);
    int none = JOB_PAUSE_NONE;

    if (result < 0) {
        return result;
    }
    if (!atomic_compare_exchange_strong(&job->pause_reason, &none,
                                        JOB_PAUSE_USER)) {
        return error_set(err, -EALREADY, "Job '%s' is paused already", job->id);
    }
    job_nudge(job);
    return 0;
}

int job_resume(struct job *job, GError **err)
{
    if (!is_pausing(job)) {
        return error_set(err, -EINVAL,
                         "Job '%s' cannot be resumed: it is not paused",
                         job->id);
    }
    int result =
        job_state_check_verb(job->state, JOB_VERB_RESUME, job->id, err);
    if (result == 0) {
        job_unpause(job);
    }
    return result;
}

static int refuse_sealed(const struct job *job, GError **err)
{
    if (job->txn != NULL && job->txn->doubt != NULL) {
        return error_set(err, -EBUSY,
                         "Job '%s' cannot be cancelled: whether its group was "
                         "committed is in doubt, and it ends as soon as that "
                         "can be settled (%s)",
                         job->id, job->txn->doubt->message);
    }
    return error_set(err, -EBUSY,
                     "Job '%s' cannot be cancelled: it has succeeded and is "
                     "being finalized",
                     job->id);
}

int job_cancel(struct job *job, bool force, GError **err)
{
    int result =
        job_state_check_verb(job->state, JOB_VERB_CANCEL, job->id, err);

    if (result < 0) {
        return result;
    }
    if (job->sealed) {
        return refuse_sealed(job, err);
    }
    if (!force && is_pausing(job)) {
        return error_set(err, -EBUSY,
                         "Job '%s' cannot be cancelled while it is paused; "
                         "resume it first, or cancel it with 'force'",
                         job->id);
    }
    if (job->txn != NULL) {
        job_txn_abort(job->txn, job);
    } else {
        job_flag_cancelled(job);
    }
    return 0;
}

int job_set_speed(struct job *job, int64_t bytes_per_second, GError **err)
{
    int result =
        job_state_check_verb(job->state, JOB_VERB_SET_SPEED, job->id, err);

    if (result < 0) {
        return result;
    }
    if (job->ops->set_speed == NULL) {
        return error_set(err, -ENOTSUP,
                         "Job '%s' is of type '%s', which has no speed limit",
                         job->id, job->ops->type);
    }
    if (bytes_per_second < 0) {
        return error_set(err, -EINVAL,
                         "The speed of job '%s' cannot be negative (%" PRId64
                         "); 0 means no limit",
                         job->id, bytes_per_second);
    }
    atomic_store(&job->speed, (uint64_t)bytes_per_second);
    job_nudge(job);
    return 0;
}

int job_finalize(struct job *job, GError **err)
{
    int result =
        job_state_check_verb(job->state, JOB_VERB_FINALIZE, job->id, err);

    if (result < 0) {
        return result;
    }
    if (job->txn == NULL || job->txn->finalize || job->txn->aborting) {
        return error_set(err, -EALREADY,
                         "Job '%s' is being finalized or cancelled already",
                         job->id);
    }
    job_txn_finalize(job->txn);
    return 0;
}
