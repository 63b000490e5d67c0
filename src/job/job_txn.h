/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Job transactions: jobs that complete together or fail together.
 *
 *     txn = job_txn_new(); job_txn_add(txn, a); job_txn_add(txn, b);
 *     job_txn_start(txn);            (consumes the creator's reference)
 *
 * A member that has done its work waits, cancellable, holding everything it
 * holds. When the last one is there: pending; then (unless a member wants
 * job-finalize) co_prepare of all; all well: co_commit of all; else, or as soon
 * as any member fails or is cancelled: the others are cancelled and co_abort of
 * all. co_clean of all. Nobody's end is told before the group's fate is sealed,
 * and no wait holds up the main loop.
 *
 * A group whose fate must survive a crash has a decider, which makes it durable
 * between the last co_prepare and the first co_commit.
 *
 * Main thread.
 */
#ifndef JOB_JOB_TXN_H
#define JOB_JOB_TXN_H

#include "job/job.h"

/* A change outside of any job that shares the group's fate. Embedded by its
 * owner; exactly one of the two is called, once, and may free it. */
struct job_txn_companion {
    struct list link;
    void (*co_commit)(struct job_txn_companion *companion);
    void (*co_abort)(struct job_txn_companion *companion);
};

enum job_txn_verdict {
    JOB_TXN_COMMIT,
    JOB_TXN_ABORT,
    /* Nobody knows, and the daemon is shutting down: the members end without a
     * word, as in a crash. */
    JOB_TXN_LET_GO,
};

/* Decides a group. Embedded by its owner; main thread's coroutines. */
struct job_txn_decider {
    /* All members have done their work. */
    void (*pending)(struct job_txn_decider *decider);
    /* After co_prepare of all members. A failure aborts the group; so does a
     * cancel that comes meanwhile. */
    int (*co_prepare)(struct job_txn_decider *decider, GError **err);
    /* Nobody can cancel any more. With JOB_TXN_ABORT and _LET_GO err is set.
     * May take as long as it must; calls job_txn_set_doubt() if that is long. */
    enum job_txn_verdict (*co_decide)(struct job_txn_decider *decider,
                                      struct job_txn *txn,
                                      GError **err);
    /* Always, and once; also of a group that never came to a decision. Before the
     * members' co_commit or co_abort, all of which have stopped working. */
    void (*co_settle)(struct job_txn_decider *decider,
                      enum job_txn_verdict verdict);
    /* Last, before any end is told; frees it. */
    void (*co_end)(struct job_txn_decider *decider);
};

/* Where a group comes from, for the log. */
struct job_txn_origin {
    uint64_t transaction; /* number of the command; 0: none */
    uint64_t instant_ns;  /* how long its instant held guests' writes */
};

struct job_txn *job_txn_new(void);
/* Before the start. */
void job_txn_set_origin(struct job_txn *txn,
                        const struct job_txn_origin *origin);
void job_txn_add(struct job_txn *txn, struct job *job);
/* Committed in order, after the members; aborted in reverse, after them. */
void job_txn_add_companion(struct job_txn *txn,
                           struct job_txn_companion *companion);
/* Before the start; at most one. */
void job_txn_set_decider(struct job_txn *txn, struct job_txn_decider *decider);
/* From co_decide: why it cannot be decided yet; who tries to cancel hears it.
 * Copied. */
void job_txn_set_doubt(struct job_txn *txn, const GError *why);
/* Starts every member, in order. Cannot fail. */
void job_txn_start(struct job_txn **txn);
/* Ends a group that never started: co_job_discard() for each member, and
 * co_abort for the companions. It has no decider yet. */
void co_job_txn_discard(struct job_txn **txn);

#endif
