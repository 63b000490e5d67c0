/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Putting a node above another, in its place for all who use it.
 *
 *     prepare ── drain the block_replacement_nodes() ── commit ── undrain
 *        └────── cancel
 *
 * From prepare on permissions are those of afterwards: who comes to either node
 * is measured against users that have moved. Commit moves them, in memory: who
 * has requests of its own accord is told (struct block_user), parents get their
 * paths, and a write that was about to enter the old node enters the new one.
 * Bitmaps and other hooks stay where they are.
 *
 * Main thread, graph locked.
 */
#ifndef BLOCK_REPLACE_H
#define BLOCK_REPLACE_H

#include "block/node.h"

struct block_replacement;

enum block_replacement_kind {
    /* The new node gets the old one as its backing node, and goes its own way:
     * a snapshot. Jobs on the old one are in the way. */
    BLOCK_REPLACE_BY_OVERLAY,
    /* The new node lies on the old one already and passes everything through:
     * whoever does not move may stay. */
    BLOCK_REPLACE_BY_FILTER,
};

/* `to` is used by nobody and on the same home as `from` (co_block_join()); for
 * an overlay it can have a backing node and has none, and its size is that of
 * `from`. Else, and when permissions clash: an error, nothing is changed. */
int block_replacement_prepare(struct block_node *from,
                              struct block_node *to,
                              enum block_replacement_kind kind,
                              struct block_replacement **ret_replacement,
                              GError **err);
/* All nodes to be drained for commit, borrowed: `from` and its parents. */
const GPtrArray *block_replacement_nodes(
    const struct block_replacement *replacement);
/* Either ends the replacement, and frees it. */
void block_replacement_commit(struct block_replacement *replacement);
void block_replacement_cancel(struct block_replacement *replacement);

/* The way back: takes a filter away from above its child `role`. Drains it
 * first; -ETIMEDOUT, and nothing is changed, if that takes longer than
 * `timeout_ns`. Then the filter has no users and can be deleted. */
int co_block_filter_remove(struct block_node *filter,
                           const char *role,
                           uint64_t timeout_ns,
                           GError **err);

#endif
