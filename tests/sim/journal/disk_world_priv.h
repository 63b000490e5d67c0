/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of a disk's world. */
#ifndef SIM_JOURNAL_DISK_WORLD_PRIV_H
#define SIM_JOURNAL_DISK_WORLD_PRIV_H

#include "base/bytes.h"
#include "block/fence.h"
#include "block/request.h"
#include "journal/disk_world.h"
#include "journal/oracle.h"
#include "loop/co_lock.h"
#include "loop/scheduler.h"

#define IMAGE_PATH    "/disk.raw"
#define TRACKING_PATH "/disk.raw.cbt"
#define SIZE_BYTES    (UINT64_C(512) * 1024)
#define REGION_BYTES  (UINT64_C(16) * 1024)
#define GUESTS        3
#define BITMAPS       3

/* What the log of the world says; durable as soon as it is said. */
struct verdict {
    struct journal_id txid;
    enum tracker_outcome outcome;
    bool told;         /* it is decided */
    bool acknowledged; /* the disk never asks again */
};

struct world {
    const struct world_options *options;
    struct world_result *result;
    struct random random;
    struct scheduler scheduler;
    struct storage_memory *memory;
    struct oracle oracle;
    struct tracker_outcomes outcomes;
    GArray *verdicts;
    guint dead_verdicts; /* how many of them are of earlier lives */
    uint64_t stamp;      /* of the next write */
    uint64_t clock_ns;   /* when the last life ended */
    bool may_fail;       /* faults were planted: tracking may be lost */
    bool is_lost;        /* ... and was; said again until there is a new file */

    bool killed;        /* that is how the last life ended */
    bool power_follows; /* ... and this one ends with a power cut */

    /* One life. */
    struct loop *loop;
    struct block_graph *graph;
    struct block_node *node;
    struct tracker *tracker;
    unsigned int guests;
    bool guests_stop;
    struct co_queue guests_gone;
    bool over;
};

/* disk_world.c */
void world_count(struct world *world, enum world_count what);
/* The first problem ends the run; `problem` is consumed. */
void world_fail(struct world *world, char *problem);
/* What the image holds, as it is seen. */
GBytes *world_content(struct world *world);
/* NULL: there is none. */
struct verdict *world_verdict(struct world *world,
                              const struct journal_id *txid);
void co_world_guest(void *opaque);

/* disk_world_verbs.c: one of them, by chance. */
void co_world_verb(struct world *world);
void co_world_resize(struct world *world);

/* disk_world_jobs.c */
void co_world_job(struct world *world);
/* The name of a bitmap, by chance. */
const char *world_bitmap_name(struct world *world);

/* disk_world_undecided.c */
void co_world_undecided(struct world *world);

#endif
