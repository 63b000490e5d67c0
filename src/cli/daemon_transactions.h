/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the daemon says became of our transactions: those whose id starts with a
 * prefix. It remembers them over restarts, until they are acknowledged.
 * One thread; blocking.
 */
#ifndef CLI_DAEMON_TRANSACTIONS_H
#define CLI_DAEMON_TRANSACTIONS_H

#include <glib.h>

#include "cli/qmp_client.h"

enum daemon_outcome {
    DAEMON_OUTCOME_UNKNOWN, /* nobody can tell */
    DAEMON_OUTCOME_OPEN,    /* its jobs are at work, or have done it */
    DAEMON_OUTCOME_IN_DOUBT,
    DAEMON_OUTCOME_COMMITTED,
    DAEMON_OUTCOME_ABORTED,
};

struct daemon_member {
    char *job;  /* NULL: changed by no job */
    char *disk; /* the disk's id */
};

struct daemon_transaction {
    char *id;   /* ours: a point's label */
    char *txid; /* the daemon's */
    enum daemon_outcome outcome;
    char *reason;       /* why it is in doubt; NULL: not told */
    GPtrArray *members; /* struct daemon_member * */
};

/* struct daemon_transaction *, owned by the caller, the latest first. */
int daemon_transactions_query(struct qmp_client *client,
                              const char *prefix,
                              GPtrArray **ret_transactions,
                              GError **err);

/* The latest of this id; borrowed, NULL when there is none. `txid`: that one
 * only; NULL: any. */
struct daemon_transaction *daemon_transactions_find(
    const GPtrArray *transactions,
    const char *id,
    const char *txid);

/* The disk id of the member that has this job; borrowed, NULL when it has no
 * such member. */
const char *daemon_transaction_disk(
    const struct daemon_transaction *transaction,
    const char *job);

/* The record of it may go. */
int daemon_transactions_acknowledge(struct qmp_client *client,
                                    const char *txid,
                                    GError **err);

#endif
