/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The change of one persistent bitmap that is a command by itself: its tracking
 * file alone decides it, and no record is needed.
 *
 *     co_action_tracking_begin()   from the action's prepare
 *     action_tracking_tell()       from its commit, at the instant
 *     co_action_tracking_end()     after the transaction, before the reply
 *
 * Main thread.
 */
#ifndef QMP_ACTION_TRACKING_H
#define QMP_ACTION_TRACKING_H

#include "qmp/actions.h"

/* Is a change of this bitmap to be made durable so? */
bool action_tracking_takes(const struct action_context *context,
                           const struct bitmap_view_entry *entry);
/* Checkpoints and other verbs wait from now on. `new_granularity_bytes` not 0: a
 * bitmap will be added, for which the tracking file gets room. */
int co_action_tracking_begin(struct action_context *context,
                             struct block_node *node,
                             uint64_t new_granularity_bytes,
                             GError **err);
/* The node is fenced. */
void action_tracking_tell(struct action_context *context,
                          struct dirty_bitmap *bitmap,
                          enum tracker_change change);
/* Makes it durable if the transaction was carried out. Without a beginning it
 * does nothing. */
int co_action_tracking_end(struct action_context *context,
                           bool carried_out,
                           GError **err);

#endif
