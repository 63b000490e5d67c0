/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One coroutine per group, on the main thread, from start to end:
 *
 *     gather ──> finalize ──> prepare all ──> decide ──> commit all ──┐
 *        │          │             │             │                      ├──> clean
 *        └──────────┴─────────────┴─────────────┴──> abort all ────────┘  and tell
 *                                                                         each
 *
 * The first failure or cancel flags the group and all its members, once, and
 * nudges those at work; the coroutine then waits until the last co_run has
 * returned. Until the group is sealed (all are prepared, none flagged) a cancel
 * wins; after that only the decider says what becomes of it, and without one it
 * commits. A member's end is told
 * (COMPLETED or CANCELLED, concluded, null) after the fate of all is known, and
 * member by member.
 */
#include "job/job_txn.h"

#include <errno.h>

#include "base/trace.h"
#include "job/job_priv.h"

static struct job *member_of(struct list *link)
{
    return LIST_ENTRY(link, struct job, txn_link);
}

struct job_txn *job_txn_new(void)
{
    struct job_txn *txn = g_new0(struct job_txn, 1);

    list_init(&txn->members);
    list_init(&txn->companions);
    co_queue_init(&txn->changed);
    return txn;
}

void job_txn_set_origin(struct job_txn *txn,
                        const struct job_txn_origin *origin)
{
    txn->origin = *origin;
}

void job_txn_add(struct job_txn *txn, struct job *job)
{
    g_assert(job->txn == NULL && job->state == JOB_CREATED);
    job->txn = txn;
    list_append(&txn->members, &job->txn_link);
}

void job_txn_add_companion(struct job_txn *txn,
                           struct job_txn_companion *companion)
{
    list_append(&txn->companions, &companion->link);
}

void job_txn_set_decider(struct job_txn *txn, struct job_txn_decider *decider)
{
    g_assert(txn->decider == NULL);
    txn->decider = decider;
}

void job_txn_set_doubt(struct job_txn *txn, const GError *why)
{
    g_clear_error(&txn->doubt);
    txn->doubt = g_error_copy(why);
}

static void co_commit_companions(struct job_txn *txn)
{
    struct list *link;

    while ((link = list_take_first(&txn->companions)) != NULL) {
        struct job_txn_companion *companion =
            LIST_ENTRY(link, struct job_txn_companion, link);
        companion->co_commit(companion);
    }
}

static void co_abort_companions(struct job_txn *txn)
{
    while (!list_is_empty(&txn->companions)) {
        struct job_txn_companion *companion = LIST_ENTRY(
            txn->companions.previous, struct job_txn_companion, link);
        list_remove(&companion->link);
        companion->co_abort(companion);
    }
}

void co_job_txn_discard(struct job_txn **txn)
{
    struct job_txn *discarded = g_steal_pointer(txn);

    while (!list_is_empty(&discarded->members)) {
        co_job_discard(member_of(discarded->members.next));
    }
    co_abort_companions(discarded);
    g_free(discarded);
}

void job_txn_abort(struct job_txn *txn, const struct job *culprit)
{
    if (txn->aborting) {
        return;
    }
    txn->aborting = true;
    txn->culprit = culprit;
    txn->culprit_failed = culprit->result < 0;
    job_txn_trace_abort(txn);
    LIST_FOREACH(link, &txn->members) {
        struct job *job = member_of(link);
        /* A member that has failed by itself is no cancelled one. */
        if (job->state != JOB_ABORTING) {
            job_flag_cancelled(job);
        }
    }
    co_queue_wake_all(&txn->changed);
}

void job_txn_finalize(struct job_txn *txn)
{
    txn->finalize = true;
    co_queue_wake_all(&txn->changed);
}

/* A member has failed by itself, or because it was flagged. */
static void fail_member(struct job_txn *txn,
                        struct job *job,
                        int result,
                        GError *error)
{
    job_set_result(job, result, error);
    job_move(job, JOB_ABORTING);
    job_txn_abort(txn, job);
}

void job_txn_member_ended(struct job *job, int result, GError *error)
{
    struct job_txn *txn = job->txn;

    txn->working--;
    trace_group_member_end(job_txn_label(txn), job->id, result, txn->working);
    if (result < 0 || job_is_cancelled(job)) {
        fail_member(txn, job, result < 0 ? result : -ECANCELED, error);
    } else {
        g_clear_error(&error);
        job_move(job, JOB_WAITING);
    }
    co_queue_wake_all(&txn->changed);
}

/* Each step returns false when the group has to abort. */
static bool co_gather(struct job_txn *txn)
{
    while (txn->working > 0 && !txn->aborting) {
        co_queue_wait(&txn->changed);
    }
    if (txn->aborting) {
        return false;
    }
    if (txn->decider != NULL) {
        txn->decider->pending(txn->decider);
    }
    LIST_FOREACH(link, &txn->members) {
        struct job *job = member_of(link);
        job_move(job, JOB_PENDING);
        if (!job->auto_finalize) {
            job_emit_pending(job);
        }
    }
    return !txn->aborting;
}

static bool co_wait_for_finalize(struct job_txn *txn)
{
    bool manual = false;

    LIST_FOREACH(link, &txn->members) {
        manual |= !member_of(link)->auto_finalize;
    }
    while (manual && !txn->finalize && !txn->aborting) {
        co_queue_wait(&txn->changed);
    }
    txn->finalize = true;
    return !txn->aborting;
}

static int co_prepare_members(struct job_txn *txn)
{
    LIST_FOREACH(link, &txn->members) {
        struct job *job = member_of(link);
        GError *error = NULL;
        int result = job->ops->co_prepare == NULL
                         ? 0
                         : job->ops->co_prepare(job, &error);
        if (result < 0) {
            fail_member(txn, job, result, error);
            return result;
        }
        if (txn->aborting) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* What the decider fails with is told as its first member's failure. */
static void fail_first(struct job_txn *txn, int result, GError *error)
{
    fail_member(txn, member_of(txn->members.next), result, error);
}

static int co_prepare_decider(struct job_txn *txn)
{
    GError *error = NULL;
    int result = txn->decider->co_prepare(txn->decider, &error);

    if (result < 0) {
        fail_first(txn, result, error);
    }
    return txn->aborting ? -ECANCELED : 0;
}

static bool co_prepare(struct job_txn *txn)
{
    trace_group_prepare_begin(job_txn_label(txn));
    int result = co_prepare_members(txn);
    if (result == 0 && txn->decider != NULL) {
        result = co_prepare_decider(txn);
    }
    trace_group_prepare_end(job_txn_label(txn), result);
    return result == 0;
}

static void set_sealed(struct job_txn *txn, bool sealed)
{
    LIST_FOREACH(link, &txn->members) {
        member_of(link)->sealed = sealed;
    }
}

/* From here on no cancel comes through, until the verdict is abort. */
static enum job_txn_verdict co_decide(struct job_txn *txn)
{
    enum job_txn_verdict verdict = JOB_TXN_COMMIT;
    GError *error = NULL;

    set_sealed(txn, true);
    if (txn->decider != NULL) {
        verdict = txn->decider->co_decide(txn->decider, txn, &error);
    }
    if (verdict == JOB_TXN_ABORT) {
        set_sealed(txn, false);
        fail_first(txn, -EIO, error);
    } else {
        g_clear_error(&error);
    }
    return verdict;
}

static void co_settle(struct job_txn *txn, enum job_txn_verdict verdict)
{
    if (txn->decider != NULL) {
        txn->decider->co_settle(txn->decider, verdict);
    }
}

static void co_commit(struct job_txn *txn)
{
    trace_group_commit_begin(job_txn_label(txn));
    co_settle(txn, JOB_TXN_COMMIT);
    LIST_FOREACH(link, &txn->members) {
        struct job *job = member_of(link);
        if (job->ops->co_commit != NULL) {
            job->ops->co_commit(job);
        }
    }
    co_commit_companions(txn);
    trace_group_commit_end(job_txn_label(txn));
}

static void co_abort_members(struct job_txn *txn)
{
    LIST_FOREACH(link, &txn->members) {
        struct job *job = member_of(link);
        if (job->ops->co_abort != NULL) {
            job->ops->co_abort(job);
        }
    }
    co_abort_companions(txn);
}

static void co_abort(struct job_txn *txn)
{
    while (txn->working > 0) {
        co_queue_wait(&txn->changed);
    }
    trace_group_abort_begin(job_txn_label(txn));
    LIST_FOREACH(link, &txn->members) {
        struct job *job = member_of(link);
        if (job->state != JOB_ABORTING) {
            job_set_result(job, -ECANCELED, NULL);
            job_move(job, JOB_ABORTING);
        }
    }
    co_settle(txn, JOB_TXN_ABORT);
    co_abort_members(txn);
    trace_group_abort_end(job_txn_label(txn));
}

/* Undecided: the members go, and nobody hears of an end that is none. */
static void co_let_go(struct job_txn *txn)
{
    co_settle(txn, JOB_TXN_LET_GO);
    co_abort_members(txn);
    while (!list_is_empty(&txn->members)) {
        struct job *job = member_of(txn->members.next);
        if (job->ops->co_clean != NULL) {
            job->ops->co_clean(job);
        }
        list_remove(&job->txn_link);
        job->txn = NULL;
        job_vanish(job);
    }
}

static void co_clean_and_tell(struct job_txn *txn)
{
    while (!list_is_empty(&txn->members)) {
        struct job *job = member_of(txn->members.next);
        if (job->ops->co_clean != NULL) {
            job->ops->co_clean(job);
        }
        list_remove(&job->txn_link);
        job->txn = NULL;
        job_emit_end(job);
        job_conclude(job, job->auto_dismiss);
    }
}

static enum job_txn_verdict co_find_verdict(struct job_txn *txn)
{
    if (co_gather(txn) && co_wait_for_finalize(txn) && co_prepare(txn)) {
        return co_decide(txn);
    }
    return JOB_TXN_ABORT;
}

static void co_end_decider(struct job_txn *txn)
{
    if (txn->decider != NULL) {
        txn->decider->co_end(txn->decider);
    }
}

static void co_run_group(void *opaque)
{
    struct job_txn *txn = opaque;

    switch (co_find_verdict(txn)) {
    case JOB_TXN_COMMIT: co_commit(txn); break;
    case JOB_TXN_ABORT: co_abort(txn); break;
    case JOB_TXN_LET_GO: co_let_go(txn); break;
    }
    co_end_decider(txn);
    if (!list_is_empty(&txn->members)) {
        job_txn_trace_end(txn);
    }
    co_clean_and_tell(txn);
    g_clear_error(&txn->doubt);
    g_free(txn);
}

void job_txn_start(struct job_txn **txn)
{
    struct job_txn *started = g_steal_pointer(txn);

    if (list_is_empty(&started->members)) {
        g_free(started);
        return;
    }
    job_txn_trace_start(started);
    LIST_FOREACH(link, &started->members) {
        started->working++;
        job_start(member_of(link));
    }
    co_spawn(loop_current(), co_run_group, started);
}
