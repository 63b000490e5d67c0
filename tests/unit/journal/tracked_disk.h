/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One disk with its tracker, on a storage in memory that crashes. A life opens
 * the node and its tracking file, does what the test says, and ends with a clean
 * close, a kill or a power cut.
 *
 * All runs in one loop with a virtual clock, from a seed.
 */
#ifndef TESTS_UNIT_JOURNAL_TRACKED_DISK_H
#define TESTS_UNIT_JOURNAL_TRACKED_DISK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/node.h"
#include "journal/storage_memory.h"
#include "journal/tracker.h"
#include "loop/scheduler.h"

#define DISK_BYTES         (UINT64_C(512) * 1024)
#define DISK_REGION_BYTES  (UINT64_C(16) * 1024)
#define DISK_TRACKING_PATH "/disk.raw.cbt"
#define DISK_STATE_PATH    "/state"

enum disk_end {
    DISK_CLOSED,
    DISK_KILLED,
    DISK_POWER_CUT,
};

struct tracked_disk {
    struct random random;
    struct scheduler scheduler;
    struct storage_memory *memory;
    enum tracker_durability durability;
    bool stop_on_error;
    struct tracker_outcomes *outcomes; /* borrowed; NULL: all are unknown */
    /* Told by the tracker; the last one. */
    unsigned int troubles;
    bool trouble_is_durable;
    /* One life; NULL between two. */
    struct loop *loop;
    struct block_graph *graph;
    struct block_node *node;
    struct tracker *tracker;
};

/* A disk of zeroes that nobody tracks. */
struct tracked_disk *tracked_disk_new(uint64_t seed);
void tracked_disk_free(struct tracked_disk *disk);

/* A life. A disk without tracking file gets a tracker without bitmaps. Planted
 * failures end with it. */
void tracked_disk_live(struct tracked_disk *disk,
                       void (*co_run)(struct tracked_disk *disk),
                       enum disk_end end);

/* A life that ends with a power cut at a crash point of its opening, or after. */
void tracked_disk_die_opening(struct tracked_disk *disk, uint64_t point);

/* --- In a life -------------------------------------------------------------- */

/* Verbs, each from begin to end. */
int co_disk_add(struct tracked_disk *disk, const char *name);
int co_disk_remove(struct tracked_disk *disk, const char *name);
int co_disk_enable(struct tracked_disk *disk, const char *name, bool enable);
/* One sector of something. */
int co_disk_write(struct tracked_disk *disk, uint64_t offset);
/* "": clean; "dirty"; or why it is inconsistent. */
const char *disk_bit(struct tracked_disk *disk,
                     const char *name,
                     uint64_t offset);

#endif
