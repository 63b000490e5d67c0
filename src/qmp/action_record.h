/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What of a transaction is decided by durable records: its jobs that read
 * persistent bitmaps, each by itself or all as one group, and its changes of
 * persistent bitmaps, unless one is all there is (action_tracking.h).
 *
 * Main thread; while the transaction prepares.
 */
#ifndef QMP_ACTION_RECORD_H
#define QMP_ACTION_RECORD_H

#include "backup/backup_job.h"
#include "qmp/actions.h"
#include "qmp/bitmap_change.h"

/* A job that freezes the entry's bitmap: what ends it, unless that is decided in
 * memory (`*ret_group` NULL). */
int action_record_job(struct action_context *context,
                      struct job *job,
                      const struct bitmap_view_entry *entry,
                      enum backup_bitmap_mode mode,
                      struct durable_group **ret_group,
                      GError **err);

/* Is a change of this bitmap decided by a record, in this transaction? */
bool action_record_takes(const struct action_context *context,
                         const struct bitmap_view_entry *entry);
/* Then: adds it. */
int action_record_change(struct action_context *context,
                         struct bitmap_change *change,
                         const struct bitmap_view_entry *entry,
                         enum bitmap_change_kind kind,
                         GError **err);

/* The action that stands last in each transaction: its prepare begins the records,
 * its clean lets the trackers go on. */
struct transaction_action *action_record_new(struct action_context *context);

#endif
