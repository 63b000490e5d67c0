/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the log tells of a group as a whole. The text is put together whether or
 * not anyone reads it: a tracer may, and it is done once per group.
 */
#include "base/trace.h"
#include "job/job_priv.h"

static const struct job *member_of(struct list *link)
{
    return LIST_ENTRY(link, struct job, txn_link);
}

const char *job_txn_label(const struct job_txn *txn)
{
    return member_of(txn->members.next)->id;
}

void job_txn_trace_start(const struct job_txn *txn)
{
    uint64_t count = 0;

    LIST_FOREACH(link, &txn->members) {
        count++;
    }
    trace_group_start(job_txn_label(txn), txn->origin.transaction, count);
}

static const char *reason(const struct job_txn *txn)
{
    if (txn->culprit == NULL) {
        return NULL;
    }
    return txn->culprit_failed ? txn->culprit->error->message : "cancelled";
}

void job_txn_trace_abort(const struct job_txn *txn)
{
    trace_group_abort(job_txn_label(txn), txn->culprit->id, reason(txn));
}

static const char *outcome(const struct job_txn *txn)
{
    if (txn->culprit == NULL) {
        return "completed";
    }
    return txn->culprit_failed ? "failed" : "cancelled";
}

void job_txn_trace_end(const struct job_txn *txn)
{
    g_autoptr(GString) members = g_string_new(NULL);
    uint64_t bytes = 0;

    LIST_FOREACH(link, &txn->members) {
        const struct job *job = member_of(link);

        g_string_append_printf(members, "%s%s", members->len > 0 ? "," : "",
                               job->id);
        bytes += atomic_load(&job->done);
    }
    trace_group_end(txn->origin.transaction, members->str, outcome(txn),
                    txn->culprit == NULL ? NULL : txn->culprit->id, reason(txn),
                    txn->origin.instant_ns, bytes, job_txn_label(txn));
}
