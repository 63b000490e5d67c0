/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a bitmap is a difference to: a backup that a transaction made of a disk.
 * Plain values.
 */
#ifndef JOURNAL_BITMAP_BASE_H
#define JOURNAL_BITMAP_BASE_H

#include "journal/journal_id.h"

/* Both none: no backup that anyone knows. */
struct bitmap_point {
    struct journal_id txid;
    struct journal_id disk;
};

enum bitmap_base_kind {
    BITMAP_BASE_NONE,
    BITMAP_BASE_ONE,    /* points[0] */
    BITMAP_BASE_EITHER, /* the outcome is unknown: points[0] (old, perhaps
                           none) or points[1] (new); the bitmap is a superset
                           of the difference to each */
};

struct bitmap_base {
    enum bitmap_base_kind kind;
    struct bitmap_point points[2];
};

/* Where the record of a transaction is to be found: a segment of the log. */
struct log_segment {
    struct journal_id run;
    uint32_t part;
};

#endif
