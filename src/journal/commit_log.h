/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A living run's own commit log: docs/reference/commit-log.md.
 *
 *     log = commit_log_new(directory);
 *     co_commit_log_begin(log, transaction, &segment, &err);
 *     ... segment goes into tracking files, as the place to ask ...
 *     co_commit_log_commit(log, transaction, &in_doubt, &err)
 *         0: it is committed. Else, and in doubt: the record may be on disk.
 *         Else it is aborted, as all that is not committed.
 *     co_commit_log_abort(log, txid, &err)
 *         0: it is aborted, for ever, also if it was in doubt. Else it still is.
 *
 * One frame is written at a time, and synced before the next; space for the
 * COMMITs of all transactions that began is kept beforehand, so a full disk fails
 * BEGIN and not COMMIT. A part in which a write or a sync failed is never written
 * again: what comes next opens a fresh part.
 *
 * Coroutines of one loop (the main thread's); calls wait for each other.
 */
#ifndef JOURNAL_COMMIT_LOG_H
#define JOURNAL_COMMIT_LOG_H

#include "journal/commit_log_format.h"
#include "journal/state_directory.h"

struct commit_log;

/* `directory` is borrowed. Touches no disk: the run's files are made by the first
 * begin. */
struct commit_log *commit_log_new(struct state_directory *directory);
/* Nobody may be waiting in it. What is there stays, for whoever finds the run
 * dead. NULL is fine. */
void co_commit_log_close(struct commit_log *log);

const struct journal_id *commit_log_run(const struct commit_log *log);

/* Makes BEGIN durable. `*ret_segment`: what tracking files name. Refused:
 * more than COMMIT_MEMBERS_MAX members or too many bytes (-E2BIG). */
int co_commit_log_begin(struct commit_log *log,
                        const struct commit_transaction *transaction,
                        struct log_segment *ret_segment,
                        GError **err);

/* After a begin of the same members. `*ret_in_doubt` is set on failure. */
int co_commit_log_commit(struct commit_log *log,
                         const struct commit_transaction *transaction,
                         bool *ret_in_doubt,
                         GError **err);

/* Makes ABORT durable, in another part than the one that may hold the COMMIT.
 * Only needed after a commit that failed in doubt. */
int co_commit_log_abort(struct commit_log *log,
                        const struct commit_transaction *transaction,
                        GError **err);

/* Makes ACKNOWLEDGED records durable: a payload of such. */
int co_commit_log_acknowledge(struct commit_log *log,
                              const GByteArray *payload,
                              GError **err);

/* The space that is kept for a transaction's COMMIT is free again: it has been
 * aborted. */
void commit_log_release(struct commit_log *log,
                        const struct commit_transaction *transaction);

/* Is the current part so long that it is worth starting over? */
bool commit_log_is_long(const struct commit_log *log);
/* Fills in payloads of frames (GByteArray), none empty; does not yield. */
typedef void (*commit_log_fill_fn)(void *opaque, GPtrArray *payloads);

/* Starts a fresh part with what `fill` says, called when nothing is being written,
 * and drops all parts before. No transaction may be in doubt. On failure nothing
 * is lost. */
int co_commit_log_compact(struct commit_log *log,
                          commit_log_fill_fn fill,
                          void *opaque,
                          GError **err);

#endif
