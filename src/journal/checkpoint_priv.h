/* SPDX-License-Identifier: BSD-3-Clause */
/* What checkpoint.c makes durable, as checkpoint_capture.c has found it. */
#ifndef JOURNAL_CHECKPOINT_PRIV_H
#define JOURNAL_CHECKPOINT_PRIV_H

#include "journal/tracker_priv.h"

struct captured_page {
    struct tracked *entry;
    enum tracked_set set;
    uint64_t index;
    uint32_t number;
    uint8_t bytes[TRACKING_PAGE_BYTES];
};

struct capture {
    struct tracking_file *file; /* where it goes */
    struct tracking_superblock *superblock;
    GPtrArray *entries; /* struct tracked, as superblock->bitmaps */
    GPtrArray *pages;   /* struct captured_page, owned */
    uint64_t changes;   /* tracker->change_sequence */
    guint acknowledgements;
    bool flushes;
    uint32_t page_cursor; /* where to look for a free page */
};

/* Takes down what is in memory, with copies of the pages that differ from what is
 * durable in capture->file, and takes pages of it for them. Does not yield: one
 * instant of all bitmaps. A failure leaves pages taken. */
int capture_all(struct tracker *tracker, struct capture *capture, bool clean);
/* Also after a failure. */
void capture_release(struct capture *capture);

#endif
