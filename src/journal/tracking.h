/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trackers for a whole daemon: nodes that are opened get the tracker that their
 * tracking file asks for; nodes that are closed are closed cleanly; and a node
 * whose first persistent bitmap is added gets one.
 *
 * A tracking file belongs to the node that its bitmaps were added to, known by its
 * driver: one made for a raw node is not opened by the file node below it.
 *
 * Main thread's coroutines.
 */
#ifndef JOURNAL_TRACKING_H
#define JOURNAL_TRACKING_H

#include "block/node.h"
#include "journal/tracker.h"
#include "journal/tracking_settings.h"

/* Embedded by the daemon. */
struct tracking {
    struct block_watcher watcher; /* for block_graph_set_watcher() */
    struct storage *storage;
    char *state_directory; /* owned; NULL: none */
    struct tracker_outcomes *outcomes;
    struct tracking_settings defaults;
    struct loop *main;
    uint64_t region_bytes; /* as in struct tracker_options; 0 at first */
    /* As in struct tracker_options, but on the main thread. `node` is a name. */
    void (*on_trouble)(void *opaque,
                       const char *node,
                       const char *reason,
                       bool is_durable);
    void *opaque;
};

/* All pointers are borrowed except `state_directory` and `defaults`, which are
 * copied. */
void tracking_init(struct tracking *tracking,
                   struct storage *storage,
                   const char *state_directory,
                   const struct tracking_settings *defaults,
                   struct tracker_outcomes *outcomes,
                   struct loop *main);
void tracking_release(struct tracking *tracking);

/* Makes sure that the node has a tracker, or says why it cannot. */
int co_tracking_ensure(struct tracking *tracking,
                       struct block_node *node,
                       GError **err);

#endif
