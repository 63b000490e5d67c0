/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The image of a snapshot that is named by a file: blockdev-snapshot-sync makes
 * it, or takes one that is there, and opens it without a backing file.
 *
 * Main thread, graph lock held.
 */
#ifndef QMP_SNAPSHOT_IMAGE_H
#define QMP_SNAPSHOT_IMAGE_H

#include "base/json.h"
#include "block/node.h"

/* Opens the image that `data`, the arguments of blockdev-snapshot-sync, asks
 * for above `node`: as a node of the user's, with the cache mode of `node`. An
 * image that was made stays when this fails later, or what follows does. */
int co_snapshot_image_open(struct block_node *node,
                           const struct json_value *data,
                           struct block_node **ret_overlay,
                           GError **err);

#endif
