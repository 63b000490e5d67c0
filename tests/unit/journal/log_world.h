/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A world for the commit log: a storage in memory that crashes, three disks whose
 * tracking files are one sector each, and a daemon that runs one transaction over
 * them or recovers.
 *
 * All runs in one loop with a virtual clock, from a seed.
 */
#ifndef TESTS_UNIT_JOURNAL_LOG_WORLD_H
#define TESTS_UNIT_JOURNAL_LOG_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "journal/group_commit.h"
#include "journal/storage_memory.h"
#include "loop/coroutine.h"
#include "loop/scheduler.h"

#define DISKS      3
#define STATE_PATH "/state"
#define LABEL      "backup-7"

enum told {
    TOLD_NOTHING,
    TOLD_COMMITTED,
    TOLD_FAILED,
};

struct log_world {
    struct random random;
    struct scheduler scheduler;
    struct loop *loop;
    struct storage_memory *memory;
    struct coordinator *coordinator;
    enum told told;
    struct journal_id txid; /* of the latest attempt */
    unsigned int doubts;    /* how often the daemon was told of one */
    /* Called when it is in doubt; NULL: the daemon lets go. */
    void (*on_doubt)(struct log_world *world);
    /* Called when all are prepared; may be NULL. */
    void (*co_before_decision)(struct log_world *world);
    unsigned int absent;  /* bits: disks that are not opened */
    int fail_prepare;     /* of this disk, counted from 1; 0: none */
    bool aborts;          /* when all are prepared */
    unsigned int lagging; /* bits: disks that are not settled in this life */
    const char *client_id;
    bool is_process;
};

/* What a disk's tracking file says. */
struct disk_state {
    bool is_prepared;
    struct journal_id base; /* none, or a txid */
    struct journal_id txid; /* prepared */
    struct log_segment segment;
};

/* Three disks without base; nothing in the state directory. */
struct log_world *log_world_new(uint64_t seed);
void log_world_free(struct log_world *world);

/* Runs a coroutine of the world until nothing more can happen. */
void log_world_run(struct log_world *world,
                   void (*co_run)(struct log_world *world));
/* As above, dying at crash point `point` (0: not). True: it died; the machine is
 * up again, with what is left. */
bool log_world_run_until(struct log_world *world,
                         void (*co_run)(struct log_world *world),
                         uint64_t point,
                         enum storage_crash crash);

/* A daemon's life: one transaction over all disks; `told` says what a client
 * heard while the daemon was alive. */
void co_attempt(struct log_world *world);
/* One transaction in a life that has begun: `coordinator` is there. */
void co_transact(struct log_world *world);
/* Another: opens all disks but the absent ones, and settles them. */
void co_recover(struct log_world *world);
/* One that recovers, and whose client then acknowledges. */
void co_recover_and_acknowledge(struct log_world *world);

struct coordinator *log_world_coordinator(struct log_world *world);
struct disk_state log_world_disk(struct log_world *world, int disk);
struct journal_id log_world_disk_id(int disk);
void co_settle_disk(struct log_world *world,
                    struct coordinator *coordinator,
                    int disk);

/* The next COMMIT cannot be synced. */
void fail_commit(struct log_world *world);
/* None is prepared; all have the new base or none has; and that is what was
 * told. */
void assert_alike(struct log_world *world);
/* How many files of the state directory have names that end so. */
size_t count_state_files(struct log_world *world, const char *suffix);
/* The outcome of the only transaction of LABEL; "" if there is none. */
char *co_outcome_text(struct coordinator *coordinator);

#endif
