/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What became of the transactions of dead runs: sealing, asking, acknowledging.
 *
 * Nothing is kept in memory: each call looks at the state directory, under its
 * lock, and first seals the runs it finds dead (docs/reference/commit-log.md,
 * "The outcome of a transaction in a dead run's log"). So daemons that share a
 * directory always agree, and what is told is durable.
 *
 * Coroutines of any loop.
 */
#ifndef JOURNAL_OUTCOME_H
#define JOURNAL_OUTCOME_H

#include "journal/commit_log_format.h"
#include "journal/state_directory.h"

enum outcome {
    OUTCOME_COMMITTED,
    OUTCOME_ABORTED,
    OUTCOME_UNKNOWN, /* nobody can tell, ever: keep both */
    OUTCOME_PENDING, /* its run lives, in this daemon or in another: ask later */
};

/* What a tracking file asks about the transaction that it names. `segment` NULL: it
 * does not say which run decided; then every run is looked at, and what no
 * sealed run has is aborted. 0 with the outcome; for OUTCOME_UNKNOWN
 * `*ret_reason` (owned by the caller, may be NULL) is a sentence for people.
 * Fails only if the directory itself cannot be used (nothing may be concluded
 * from that). */
int co_outcome_look_up(struct state_directory *directory,
                       const struct log_segment *segment_or_null,
                       const struct journal_id *txid,
                       enum outcome *ret_outcome,
                       char **ret_reason,
                       GError **err);

/* All transactions of sealed runs that are still kept, latest first: struct
 * commit_transaction, owned by the array, with what has been acknowledged. */
int co_outcome_list(struct state_directory *directory,
                    GPtrArray **ret_transactions,
                    GError **err);

/* Who acknowledges what; txid NULL: all transactions. */
struct outcome_acknowledgement {
    const struct journal_id *txid;
    const struct journal_id *disk; /* NULL: the client does */
};

/* Notes it durably, in all sealed runs, and purges what nobody will ask for any
 * more. A disk acknowledges what it has taken part in only when its tracking
 * file is durably settled. `*ret_count` (may be NULL): how many transactions it
 * was new for. */
int co_outcome_acknowledge(struct state_directory *directory,
                           const struct outcome_acknowledgement *who,
                           uint64_t *ret_count,
                           GError **err);

#endif
