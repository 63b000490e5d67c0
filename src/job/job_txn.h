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
/* Starts every member, in order. Cannot fail. */
void job_txn_start(struct job_txn **txn);
/* Ends a group that never started: co_job_discard() for each member, and
 * co_abort for the companions. */
void co_job_txn_discard(struct job_txn **txn);

#endif
