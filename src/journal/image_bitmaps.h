/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bitmaps that a node's image stores itself (qcow2), and the node's tracking file.
 *
 * While the node is open the tracking file is the truth; in the image its bitmaps
 * are in_use. At a clean close they are stored in the image, too, for whoever opens
 * it next. Which of the two counts when the node is opened, the stamp in the image
 * tells (docs/reference/tracking-file.md, "The stamp"):
 *
 *     stamp     tracking file   in the image   what counts
 *     known     there           any            tracking file
 *     unknown   there           any            nothing: inconsistent
 *     any       none            any            nothing: inconsistent
 *     none      any             not in_use     image; base none
 *     none      any             in_use         nothing: inconsistent
 *
 * A bitmap that the tracking file has, and the image has not, is inconsistent when
 * the stamp is gone. For nodes of other drivers these functions do what those of
 * tracker.h do.
 *
 * Coroutines of the node's home thread.
 */
#ifndef JOURNAL_IMAGE_BITMAPS_H
#define JOURNAL_IMAGE_BITMAPS_H

#include "journal/tracker.h"

/* As co_tracker_open(), and puts what the image stores on the node. A tracker is
 * made if there are bitmaps to be tracked; where that is not possible (no space)
 * they are stored at a clean close, and a crash makes them inconsistent. `options`
 * NULL: the node cannot have a tracking file. */
int co_image_bitmaps_open(struct block_node *node,
                          const struct tracker_options *options,
                          struct tracker **ret_tracker,
                          GError **err);
/* As co_tracker_create(). */
int co_image_bitmaps_create(struct block_node *node,
                            const struct tracker_options *options,
                            struct tracker **ret_tracker,
                            GError **err);
/* A node that is read-only: its image's bitmaps are put on it, and cannot be
 * changed. Others than those of a qcow2 image are not looked for. What cannot be
 * read comes as inconsistent. */
void co_image_bitmaps_show(struct block_node *node);

/* Stores the node's persistent bitmaps in its image. The node has no requests.
 * On failure nothing has changed, and they are in_use in the image still; the
 * node may go on. */
int co_image_bitmaps_store(struct block_node *node, GError **err);
/* After that: the image is written out whole, so that the tracker can be closed
 * and remember how it looked. Only reads after. */
void co_image_bitmaps_finish(struct block_node *node);

/* Can the node's image take one more such bitmap? 0 for other drivers. */
int image_bitmaps_check_new(struct block_node *node,
                            const char *name,
                            uint64_t granularity_bytes,
                            GError **err);
/* A persistent bitmap was removed: from the image, too, at once. */
int co_image_bitmaps_forget(struct block_node *node,
                            const char *name,
                            GError **err);

#endif
