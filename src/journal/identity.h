/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who else wrote? What an image looked like when we last had it, and whether
 * it still is that image; and the same of what lies below it.
 *
 * Taken at a clean close, when all is durable; compared at the next open.
 * What a stranger writes after a crash of ours, before we are back, cannot be
 * told from our own last writes on a regular file, and is not noticed.
 *
 * A format that can carry a mark of ours in the image (qcow2) adds a *stamp*:
 * see struct identity_stamps.
 *
 * Home thread, coroutines.
 */
#ifndef JOURNAL_IDENTITY_H
#define JOURNAL_IDENTITY_H

#include <glib.h>

#include "block/node.h"
#include "journal/journal_id.h"
#include "journal/storage.h"

#define IDENTITY_SAMPLE_BYTES 32
#define IDENTITY_SAMPLES      32 /* blocks, evenly over the image, and its ends */

enum identity_kind {
    IDENTITY_NONE,
    IDENTITY_FILE,
    IDENTITY_DEVICE,
};

struct identity {
    enum identity_kind kind;
    uint64_t size_bytes;
    int64_t modified_ns;
    int64_t changed_ns;
    uint64_t device;
    uint64_t inode;
    int64_t born_ns;
    uint64_t sectors_written;
    /* The image is not older than this when it is what it was. INT64_MIN:
     * unknown. */
    int64_t durable_modified_ns;
    uint8_t samples[IDENTITY_SAMPLE_BYTES]; /* SHA-256; all zeroes: not taken */
    uint32_t below;                         /* co_identity_below() */
};

/* Stamps of formats that carry one: which nonces the image may bear. Both none:
 * the format has none. During a change of stamp both are named, before the image
 * is changed. Owned by the format's glue; the tracker only keeps them. */
struct identity_stamps {
    struct journal_id old_nonce;
    struct journal_id new_nonce;
};

/* Looks at the image. Samples are read through the node, if `node` is not NULL:
 * when nothing writes to it. */
int co_identity_take(struct storage *storage,
                     const char *image_path,
                     struct block_node *node,
                     struct identity *ret_identity,
                     GError **err);

/* Is what is found now the image that was closed cleanly? 0, or -ESTALE with a
 * sentence why not. `same_boot`: counters of block devices may be compared. */
int identity_check_clean(const struct identity *kept,
                         const struct identity *found,
                         bool same_boot,
                         GError **err);
/* The same after a crash, as far as it can be told. `kept` was taken when the
 * image was opened; sizes are the tracker's business. */
int identity_check_crashed(const struct identity *kept,
                           const struct identity *found,
                           GError **err);

/* The files that a disk is made of beside its image: a checksum of the sizes and
 * modification times (of block devices: samples) of those in its backing chain and,
 * `with_data`, of its external data file, which only a clean close leaves as it is.
 * 0: there are none, or one in the chain is open for writing here. */
int co_identity_below(struct storage *storage,
                      struct block_node *node,
                      bool with_data,
                      uint32_t *ret_below,
                      GError **err);

/* Where the tracking file of an image belongs: beside it, NAME.cbt; or, for a
 * block device, or with `by_option`, in the state directory by stable id. New
 * string; NULL with err set when a state directory is needed and NULL. */
char *co_tracking_path(struct storage *storage,
                       const char *image_path,
                       const char *state_directory,
                       bool by_option,
                       GError **err);

#endif
