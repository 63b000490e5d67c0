/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulated world: the real engine on simulated disks, and beside it a
 * plain model of what must hold.
 *
 *     scheduler ── loops ── engine (block, bitmap, job, backup, qmp)
 *                              │ requests            ^ verbs, guests' I/O
 *                              v                     │
 *     simdisk ── content ──> model <── events ── verbs.c, guest.c
 *
 * One seed is one world: built, run for a number of operations, wound down
 * without faults, and taken apart to the last byte. Everything is in one
 * thread, so all may look at everything.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "block/node.h"
#include "job/job.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "qmp/engine.h"

#include "blocks.h"
#include "histogram.h"
#include "loop/scheduler.h"
#include "random.h"

#define DISKS_MAX        14 /* sources and targets */
#define GUESTS_PER_DISK  3
#define BITMAPS_PER_DISK 4
#define JOBS_MAX         40
#define NOBODY           (-1)
#define A_GROUP          (-2)

struct world;
struct disk;

/* One connection of a guest: a coroutine that sends request after request. */
struct guest {
    struct disk *disk;
    bool runs;              /* or is about to */
    struct coroutine *self; /* while it runs */
    uint8_t *buffer;
    bool writing; /* a write, zeroing or discard of this range is under way */
    uint64_t offset;
    uint64_t bytes;
    int injected;      /* the error that its disk answered this request with */
    uint64_t begun_ns; /* when the request under way began; 0: none */
    bool pays;         /* a job may make it fail (on-cbw-error) */
};

/* What a block holds as the guests of the disk know it. */
struct expectation {
    uint64_t stamp;
    uint32_t generation; /* of writes begun */
    uint16_t writers;    /* under way */
    bool unclear; /* writers overlapped: any of them may have come last */
};

/* What a group will do to a bitmap, or take back, when it ends. */
enum change {
    CHANGE_NONE,
    CHANGE_ADD,
    CHANGE_REMOVE,
    CHANGE_CLEAR,
    CHANGE_ENABLE,
    CHANGE_DISABLE,
    CHANGE_MERGE,
};

/* A dirty bitmap as it must be: must <= bits <= may. `next`: the successor. */
struct bitmap_model {
    bool exists;
    bool enabled;
    bool loose;    /* who else writes is not known: no upper bound */
    int frozen_by; /* index of the job, or A_GROUP, or NOBODY */
    enum change change;
    struct group_model *change_group; /* whose end decides it */
    bool was_enabled;
    bool spare_loose;
    uint64_t granularity;
    struct dirty_bitmap *engine; /* borrowed; looked up when first needed */
    struct block_set must;
    struct block_set may;
    struct block_set next_must;
    struct block_set next_may;
    struct block_set spare_must; /* CHANGE_MERGE: what the sources held */
    struct block_set spare_may;
};

/* How the disk behaves: one in so many requests; 0: never. */
struct faults {
    uint64_t error_one_in;
    uint64_t hang_one_in;
    unsigned int instant_percent; /* requests that take no time at all */
};

struct disk {
    struct world *world;
    char name[8];
    unsigned int index;
    bool is_target;
    bool over_raw;           /* the node is a `raw` one over the disk */
    struct block_node *node; /* NULL while it is deleted */
    uint64_t size_bytes;
    unsigned int block_count;
    unsigned int word_count;
    uint32_t alignment_bytes;
    uint32_t cluster_bytes;
    bool is_sparse; /* zeroes are not allocated */
    bool zeroes_by_driver;
    struct faults faults;

    uint64_t stamps[BLOCKS_MAX]; /* the content */
    unsigned int writes_inside;  /* the driver */
    uint64_t writes_applied;     /* since the beginning */
    uint64_t writes_durable;     /* how many of these a flush has covered */
    uint64_t fault_count;        /* injected so far */
    struct list reads_inside;    /* struct disk_read, not by guests */
    struct bitmap_model bitmaps[BITMAPS_PER_DISK];

    /* The guests, attached as an export is. */
    struct block_user user;
    unsigned int guest_count;
    unsigned int guests_running;
    unsigned int hot_block; /* where guests like to meet */
    bool quiescing;
    bool closing;
    struct co_queue stopped;
    struct guest guests[GUESTS_PER_DISK];
    struct expectation expected[BLOCKS_MAX];
};

/* What jobs of one group share. */
struct group_model {
    unsigned int members; /* not told the end of yet */
    unsigned int size;
    bool manual;    /* a member wants job-finalize */
    bool finalized; /* job-finalize was accepted */
    bool cancelled; /* a cancel was accepted */
    uint64_t cancelled_ns;
    bool failed; /* a member has reported a failure of its own */
    int verdict; /* 0: not known, 1: success, -1: failure */
};

struct job_model {
    bool used;
    char id[8];
    enum job_state state;
    bool begun; /* its instant has been */
    bool told;  /* COMPLETED or CANCELLED has come */
    bool error_told;
    bool was_waiting;
    bool user_paused;
    struct group_model *group;
    struct disk *source;
    struct disk *target;
    int bitmap; /* index on the source, or NOBODY */
    const char *mode;
    bool full;
    bool top;       /* full, without what is not allocated */
    bool none;      /* copies only what guests overwrite */
    bool pays;      /* break-guest-write: guests pay, not the job */
    bool saves_all; /* sync none: `must` has been overwritten, and saved */
    bool victim;    /* another job lets those pay who write to its target */
    bool stops;     /* an error may pause it */
    uint64_t cluster_bytes;
    uint64_t faults_at_instant;
    uint64_t source_writes_at_instant;
    struct block_set must; /* what it copies at least */
    uint64_t snapshot[BLOCKS_MAX];
    uint64_t target_before[BLOCKS_MAX];
};

#define ACTIONS_MAX 8

/* The command under way, as far as it is a transaction. */
struct command {
    const char *name; /* NULL: none */
    unsigned int action_count;
    const char *types[ACTIONS_MAX];
    const struct json_value *data[ACTIONS_MAX]; /* borrowed */
    bool grouped;
    unsigned int instants;        /* how often its fences have closed */
    unsigned int backups_created; /* jobs made for it */
    bool timed_out;               /* its fences have not closed in time */
};

struct world {
    uint64_t seed;
    bool trace;
    struct random random;
    struct scheduler scheduler;
    struct histogram *histogram; /* borrowed; of all worlds */
    uint64_t operations;
    uint64_t operations_wanted;
    bool faults_on;
    bool client_stops;
    /* All jobs, as a daemon that ends does; 0: not yet. */
    uint64_t cancelling_since_ns;
    bool client_running;
    uint64_t client_pace_ns; /* at most this long between two commands */
    bool over;

    struct engine engine;
    struct co_mutex commands; /* one at a time */
    unsigned int source_count;
    unsigned int disk_count;
    struct disk disks[DISKS_MAX];
    uint64_t stamps_given;
    unsigned int frozen_count; /* by jobs */
    unsigned int change_count;

    struct command command;
    uint64_t command_begun_ns; /* 0: none is under way */
    struct job_model jobs[JOBS_MAX];
    struct group_model groups[JOBS_MAX];
};

/* The world that runs. */
struct world *world_current(void);

/* Builds, runs and takes apart the world of `seed`; returns its operations. A
 * violation ends the process. */
uint64_t world_run(uint64_t seed,
                   uint64_t operations,
                   bool trace,
                   struct histogram *histogram);

/* Ends the process: something that must hold does not. */
void violation(const char *format, ...) __attribute__((noreturn))
__attribute__((format(printf, 1, 2)));

/* A line of the story of a run, with --trace. */
void trace(struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* By name; NULL: no such disk. */
struct disk *world_disk(struct world *world, const char *name);

#endif
