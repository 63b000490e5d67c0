/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The coordinator: bitmaps of several tracking files change together or not at
 * all, whatever dies when. Two phases, presumed abort.
 *
 *     group = group_commit_new(coordinator, client_id);
 *     group_commit_add(group, &member) for each persistent bitmap
 *     co_group_commit_begin()     before the instant: BEGIN is durable
 *     ... the instant, the jobs' work, everything flushed ...
 *     co_group_commit_prepare()   each tracking file durably says "prepared"
 *     co_group_commit_decide()    COMMIT is durable: this is the moment
 *     ... bitmaps abdicate or reclaim ...
 *     co_group_commit_end()       tells the members, which acknowledge later
 *
 *                   ┌─> prepared ──> committed
 *     begun ────────┤      │ │
 *                   │      │ └─> in doubt ──> aborted     COMMIT failed; ABORT
 *                   └──────┴───────────────> aborted     is durable first
 *
 * A group decides and then ends; until it has ended it keeps its members'
 * bitmaps from being prepared again. A transaction that no durable bitmap takes
 * part in has no group here, and costs no I/O.
 *
 * Main thread's coroutines.
 */
#ifndef JOURNAL_GROUP_COMMIT_H
#define JOURNAL_GROUP_COMMIT_H

#include "base/json.h"
#include "journal/commit_log.h"
#include "journal/outcome.h"

struct coordinator;  /* one per daemon */
struct group_commit; /* one transaction */

/* One bitmap of one tracked disk, as the group sees it. Functions run on the main
 * thread. */
struct group_member_ops {
    /* (P, S, txid, segment) becomes durable as prepared. */
    int (*co_prepare)(void *opaque,
                      const struct journal_id *txid,
                      const struct log_segment *segment,
                      GError **err);
};

struct group_member {
    const struct group_member_ops *ops;
    void *opaque;
    struct journal_id disk;
    struct bitmap_base old_base;
    bool gets_base; /* as in struct commit_member */
    bool keeps_base;
    const char *node; /* borrowed during group_commit_add(), as are these */
    const char *job;  /* "": changed by no job */
    const char *bitmap;
};

enum group_state {
    GROUP_RUNNING, /* begun */
    GROUP_PENDING, /* its jobs have done their work */
    GROUP_IN_DOUBT,
    GROUP_COMMITTED,
    GROUP_ABORTED,
};

/* Told on the main thread; `data` is consumed. */
typedef void (*coordinator_event_fn)(void *opaque,
                                     const char *event,
                                     struct json_value *data);

struct coordinator_options {
    struct storage *storage; /* borrowed */
    /* Where the state directory is; NULL: nowhere, `path_error` says why. It is
     * made when the first transaction needs it. Copied. */
    const char *path;
    const GError *path_error;
    bool is_process; /* durability=process */
    coordinator_event_fn event;
    void *opaque;
};

/* Touches no disk. */
struct coordinator *coordinator_new(const struct coordinator_options *options);
/* No group may be left. What this run has to tell is sealed, as of a dead one.
 * NULL is fine. */
void co_coordinator_close(struct coordinator *coordinator);

/* What a tracking file's outcome source asks, of this run and of others. */
int co_coordinator_look_up(struct coordinator *coordinator,
                           const struct log_segment *segment_or_null,
                           const struct journal_id *txid,
                           enum outcome *ret_outcome,
                           char **ret_reason,
                           GError **err);
/* The tracking file of `disk` is durably settled as to `txid`; NULL: as to all
 * transactions of runs that are dead (an opener's word). Cannot fail: what could
 * not be noted now is asked for again at the next opening. */
void co_coordinator_settled(struct coordinator *coordinator,
                            const struct journal_id *disk,
                            const struct journal_id *txid);

/* A transaction with a txid of its own; owned by the caller until
 * co_group_commit_end(). `client_id` "": the client asks nothing. */
struct group_commit *group_commit_new(struct coordinator *coordinator,
                                      const char *client_id);
const struct journal_id *group_commit_txid(const struct group_commit *group);
void group_commit_add(struct group_commit *group,
                      const struct group_member *member);

/* BEGIN. On failure there is no transaction; end it. */
int co_group_commit_begin(struct group_commit *group, GError **err);
/* All jobs have done their work: queries say `pending` from now on. */
void group_commit_set_pending(struct group_commit *group);
/* All members, in order; the first failure ends it. The group is to be decided
 * by co_group_commit_abort() then. */
int co_group_commit_prepare(struct group_commit *group, GError **err);

/* Called when a group gets into doubt. False: do not wait, let go at once. */
typedef bool (*group_doubt_fn)(void *opaque, const GError *why);

/* COMMIT. 0: committed. A negative errno with err set: aborted, durably. While
 * neither can be made durable the call waits, and tries again to abort at growing
 * intervals; -EINPROGRESS: it is still in doubt, and `doubt` or the shut-down said
 * to let go. Cannot be cancelled. */
int co_group_commit_decide(struct group_commit *group,
                           group_doubt_fn doubt,
                           void *opaque,
                           GError **err);
/* Instead: the group has failed before. Touches no disk. */
void group_commit_abort(struct group_commit *group);

/* The bitmaps have abdicated or reclaimed in memory. Frees the group; what must
 * be told later stays with the coordinator. */
void co_group_commit_end(struct group_commit **group);

/* Waits until no group is left. */
void co_coordinator_drain(struct coordinator *coordinator);
/* Shut-down: groups in doubt wait no longer; they stay undecided on disk. */
void coordinator_let_go(struct coordinator *coordinator);

/* Makes sure that there is a state directory where outcomes can be written down,
 * or says why there is none. */
int co_coordinator_ensure(struct coordinator *coordinator, GError **err);

/* x-cohort-query-transactions: all, latest first, or those of a client's id, or
 * the one with a txid (text). A new list of TransactionInfo. */
int co_coordinator_query(struct coordinator *coordinator,
                         const char *client_id_or_null,
                         const struct journal_id *txid_or_null,
                         struct json_value **ret_list,
                         GError **err);

/* x-cohort-acknowledge: the client has taken note of all decided transactions of
 * that id (or the one of that txid); or (`forget` not none) an operator forgets a
 * disk that never comes back, in those transactions or in all. -ENOENT if there
 * is none; -EBUSY if the only ones are not decided. */
int co_coordinator_acknowledge(struct coordinator *coordinator,
                               const char *client_id_or_null,
                               const struct journal_id *txid_or_null,
                               const struct journal_id *forget_or_null,
                               GError **err);

#endif
