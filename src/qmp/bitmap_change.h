/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A change of a bitmap that shares the fate of a group of jobs.
 *
 * It is made at the transaction's instant, in such a way that it can be undone:
 *
 *              at the instant             group succeeds     group fails
 *     add      attached, recording        stays              removed
 *     remove   out of bounds              removed            as it was
 *     clear    frozen, successor empty    abdicates          reclaims
 *     enable   recording                  stays              as it was
 *     disable  out of bounds, recording   stops recording    as it was
 *     merge    the sources' bits set by   added              dropped
 *
 * Until then the bitmap is busy and its node cannot be deleted. A bitmap that
 * is being disabled may hold some writes from after the instant: more than it
 * must, never less.
 *
 * Main thread, except where a function says otherwise.
 */
#ifndef QMP_BITMAP_CHANGE_H
#define QMP_BITMAP_CHANGE_H

#include <glib.h>

#include "bitmap/dirty_bitmap.h"
#include "job/durable_group.h"
#include "job/job_txn.h"

typedef struct bitmap_change bitmap_change;
struct bitmap_change;

enum bitmap_change_kind {
    BITMAP_CHANGE_ADD,
    BITMAP_CHANGE_REMOVE,
    BITMAP_CHANGE_CLEAR,
    BITMAP_CHANGE_ENABLE,
    BITMAP_CHANGE_DISABLE,
    BITMAP_CHANGE_MERGE,
};

/* A bitmap was taken off its node for good: it goes from the image, too. Main
 * thread; a failure is warned of, and the image shows it as inconsistent next
 * time. */
void co_bitmap_forget(struct block_node *node,
                      const struct dirty_bitmap *bitmap);

/* All that may fail; holds the node. `holder` says in errors who keeps the
 * bitmap busy; copied. NULL with err set: no memory, or the node is taken. */
struct bitmap_change *bitmap_change_new(enum bitmap_change_kind kind,
                                        struct block_node *node,
                                        uint64_t granularity_bytes,
                                        const char *holder,
                                        GError **err);
/* One that has not been made. NULL is fine. */
void bitmap_change_free(struct bitmap_change *change);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(bitmap_change, bitmap_change_free)

/* The bitmap is persistent, and the change is decided by a record: with this part,
 * which settles it. Before the instant. */
struct durable_part *bitmap_change_make_durable(struct bitmap_change *change,
                                                const struct journal_id *txid);

/* The instant: the node and those of the sources are fenced. `bitmap` is on
 * the node. `sources` (of struct dirty_bitmap): for MERGE, else NULL. */
void bitmap_change_make(struct bitmap_change *change,
                        struct dirty_bitmap *bitmap,
                        const GPtrArray *sources);

/* Once made: what decides it (unless its part has) and then frees it. */
struct job_txn_companion *bitmap_change_companion(struct bitmap_change *change);

#endif
