/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bitmaps that an image stores: its bitmap directory as values. Source:
 * docs/interop/qcow2.txt, "Bitmaps extension" and "Bitmap directory".
 *
 * Parsing and formatting need no I/O; any thread.
 */
#ifndef DRIVERS_QCOW2_BITMAP_DIRECTORY_H
#define DRIVERS_QCOW2_BITMAP_DIRECTORY_H

#include "block/node.h"
#include "drivers/qcow2/header.h"

enum qcow2_bitmap_flags {
    QCOW2_BITMAP_IN_USE = 1 << 0, /* not stored since it was last in use */
    QCOW2_BITMAP_AUTO = 1 << 1,   /* records by itself: enabled */
    QCOW2_BITMAP_EXTRA_DATA_COMPATIBLE = 1 << 2,
    QCOW2_BITMAP_FLAGS_KNOWN = (1 << 3) - 1,
};

#define QCOW2_BITMAP_TYPE_DIRTY_TRACKING 1

struct qcow2_stored_bitmap {
    char *name; /* owned; 1 to LIMIT_BITMAP_NAME_BYTES bytes, perhaps no
                   UTF-8; unique in the image */
    uint64_t table_offset; /* of a cluster, below 2^56 */
    uint32_t table_count;  /* entries */
    uint32_t flags;        /* enum qcow2_bitmap_flags; may be unknown ones */
    uint8_t type;
    uint8_t granularity_bits; /* at most 63 */
    GBytes *extra_data;       /* NULL: none */
    /* Of an open image (bitmaps.h). */
    bool is_marked;  /* in_use was set in the file since */
    bool is_adopted; /* somebody has it, and will store it anew */
};

void qcow2_stored_bitmap_free(struct qcow2_stored_bitmap *bitmap);

/* Takes a directory of `count` bitmaps apart. NULL with err set (-EINVAL in the
 * end) if it is not exactly that. The array frees its elements. `name`: of the
 * image, for sentences. */
GPtrArray *qcow2_bitmaps_parse(const uint8_t *bytes,
                               size_t length,
                               uint32_t count,
                               unsigned int cluster_bits,
                               const char *name,
                               GError **err);

/* Puts it together again. `flags` (NULL: those of the bitmap) gives the flags. */
GByteArray *qcow2_bitmaps_format(
    const GPtrArray *bitmaps,
    uint32_t (*flags)(const struct qcow2_stored_bitmap *bitmap));
/* An empty array, which frees its elements. */
GPtrArray *qcow2_stored_bitmaps_new(void);

/* Reads the directory that `header` tells of, whether or not the autoclear bit
 * says that it is valid; an empty array if there is none. Coroutines of the
 * home of `file`. */
int co_qcow2_bitmaps_load(struct block_node *file,
                          const struct qcow2_header *header,
                          const char *name,
                          GPtrArray **ret_bitmaps,
                          GError **err);

#endif
