/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bitmaps that an open qcow2 image stores, for who keeps bitmaps on its node.
 * Source: docs/interop/qcow2.txt, "Bitmaps extension" to "Bitmap data".
 *
 *     co_qcow2_bitmaps_list()    what the file has, as it was found
 *     co_qcow2_bitmap_load()     the bits of one
 *     co_qcow2_bitmaps_begin()   before the first write: those that are kept up
 *                                from now on are in_use in the file; the stamp
 *     ...                        writes
 *     co_qcow2_bitmap_remove()   one goes, at once
 *     co_qcow2_bitmaps_store()   before the node is closed: not in_use
 *     co_qcow2_finish()          nothing is written after
 *
 * Who opens an image and does none of this changes it, too: then the driver
 * begins by itself, before the first write, and takes the stamp away. So what is
 * in the file and is not in_use is right, and a stamp that is there is that of the
 * last one who wrote.
 *
 * The autoclear bit stands as long as the directory is valid. Bitmaps that are not
 * understood (another type, extra data that is not said to be compatible), and
 * those that were in_use when they were found, are left as they are.
 *
 * Coroutines of the node's home thread; the node's driver is qcow2.
 */
#ifndef DRIVERS_QCOW2_BITMAPS_H
#define DRIVERS_QCOW2_BITMAPS_H

#include "drivers/qcow2/bitmap_directory.h"

/* Limits of QEMU, which refuses images that pass them. */
#define QCOW2_BITMAP_GRANULARITY_BITS_MIN 9
#define QCOW2_BITMAP_GRANULARITY_BITS_MAX 31
#define QCOW2_BITMAP_BYTES_MAX            (UINT64_C(512) << 20)

/* Is it the driver of these functions? */
bool qcow2_is_node(struct block_node *node);

/* Can the image store bitmaps and carry a stamp (version 3)? */
bool qcow2_can_store(struct block_node *node);
/* What was found at open and has not been removed since: struct
 * qcow2_stored_bitmap, borrowed until the next call that changes bitmaps. Empty
 * for a node that shows a snapshot. */
const GPtrArray *qcow2_bitmaps_list(struct block_node *node);
/* Why a stored bitmap cannot be used; NULL: it can. A constant sentence. */
const char *qcow2_bitmap_problem(struct block_node *node,
                                 const struct qcow2_stored_bitmap *bitmap);
/* The stamp as it was found, or last set; false: there is none. */
bool qcow2_stamp(struct block_node *node, uint8_t ret_stamp[QCOW2_STAMP_BYTES]);

/* Bits of a stored bitmap without problem: `take` gets those that may be set, in
 * order; all others are clear. Bit n of the disk is bit n % 64 of word n / 64; bits
 * behind the end of the disk mean nothing. -EINVAL: what the image says is not
 * valid. */
int co_qcow2_bitmap_load(struct block_node *node,
                         const struct qcow2_stored_bitmap *bitmap,
                         void (*take)(void *opaque,
                                      uint64_t first_word,
                                      const uint64_t *words,
                                      uint64_t word_count),
                         void *opaque,
                         GError **err);

/* Can a bitmap be stored in this image at all? For who adds one. -ENOTSUP (the
 * image is of version 2), -EFBIG (limits). */
int qcow2_bitmap_check_new(struct block_node *node,
                           const char *name,
                           uint64_t granularity_bytes,
                           GError **err);

/* No write has been made yet. The stamp becomes `stamp`, then all stored bitmaps
 * without problem become in_use; durably. NULL: they become in_use, then there is
 * no stamp any more. Again with another stamp at any time. -ENOTSUP: a stamp, and
 * the image is of version 2. */
int co_qcow2_bitmaps_begin(struct block_node *node,
                           const uint8_t *stamp,
                           GError **err);
/* A stored bitmap, also one with a problem, is somebody's who will store it anew:
 * it does not keep the disk from being resized. */
void qcow2_bitmap_adopt(struct block_node *node, const char *name);

/* Takes one out of the file, at once and durably; 0 also if there is none. */
int co_qcow2_bitmap_remove(struct block_node *node,
                           const char *name,
                           GError **err);

struct qcow2_bitmap_content {
    const char *name;
    unsigned int granularity_bits;
    bool enabled;
    const uint64_t *words; /* of the disk's present size */
    uint64_t word_count;
};

/* Stores bitmaps in the place of those of the same names, durably and all at once.
 * No writes to the node meanwhile. On failure (-ENOSPC, -EFBIG, -ENOTSUP, -EIO) the
 * file has what it had; it may be tried again, unless flushes fail. */
int co_qcow2_bitmaps_store(struct block_node *node,
                           const struct qcow2_bitmap_content *contents,
                           size_t count,
                           GError **err);

/* All that is in memory is written, and nothing is from now on: the file will not
 * change any more. No requests but reads after. Closing the node does this by
 * itself. */
int co_qcow2_finish(struct block_node *node);

/*
 * For the driver itself.
 */
struct qcow2_image;

/* After the header. `bitmaps` of the header is forgotten if it is not valid. */
int co_qcow2_bitmaps_open(struct qcow2_image *image, GError **err);
void qcow2_bitmaps_close(struct qcow2_image *image);
/* Before the first change of the disk (image->untouched). */
int co_qcow2_touch(struct qcow2_image *image);
/* Refuses while there are bitmaps that nobody has adopted. */
int qcow2_bitmaps_check_resize(const struct qcow2_image *image, GError **err);

#endif
