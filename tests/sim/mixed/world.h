/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Several disks, their repository, and crashes.
 *
 *     guests ──> disks (raw, raw over file, qcow2; one comes late)
 *     backup commands ──> repositories: started, prepared, published
 *     verbs ──> bitmaps               │
 *          └──── QMP ──> the engine <─┘      all of it on one storage that dies
 *
 * One seed is some lives of one machine. Each ends with a crash, at a step of the
 * storage, or with a clean shut-down, and the next begins by recovering.
 *
 * What must hold is told in bytes. At the instant of a transaction the world copies
 * the disks (the linker puts its functions before the tracker's, see instant.c).
 * After a crash each bitmap must be dirty wherever its disk is not what it was at
 * the instant that the bitmap is a difference to, and each published point must be
 * what its disk was then; and a transaction has happened to all of its bitmaps and
 * to its point, or to none.
 */
#ifndef SIM_MIXED_WORLD_H
#define SIM_MIXED_WORLD_H

#include "block/node.h"
#include "job/job.h"
#include "journal/image_disk.h"
#include "journal/oracle.h"
#include "journal/outcome_source.h"
#include "journal/storage_memory.h"
#include "journal/tracking.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/scheduler.h"
#include "mixed/counts.h"
#include "mixed/coverage.h"
#include "qmp/engine.h"

#define DISKS          COVERAGE_DISKS
#define QCOW2_DISK     2
#define REPOSITORIES   2
#define GUESTS         2 /* of a disk */
#define DISK_BYTES     (UINT64_C(96) * 1024)
#define DISK_BYTES_MAX (2 * DISK_BYTES)
#define SECTORS_MAX    (DISK_BYTES_MAX / 512)
#define WORLD_LIFE_NS \
 UINT64_C(3000000) /* at most, but for what is waited for */
/* What a job copies at once, at least. */
#define COPY_PIECE_BYTES (UINT64_C(64) * 1024)

/* What became of a transaction, as far as anyone was told, or recovery found. */
enum fate_verdict {
    FATE_OPEN,
    FATE_COMMITTED,
    FATE_ABORTED,
};

struct repository;

struct fate {
    struct journal_id txid;
    enum fate_verdict verdict;
    int repository;     /* -1: none has to do with it */
    GBytes *cut[DISKS]; /* of its jobs' disks at the instant; or NULL */
    enum tracker_mode modes[DISKS];  /* of its jobs */
    const struct repository *client; /* theirs; NULL: it has none */
    bool pruned;                     /* its point was dropped as an old one */
    bool is_process;                 /* of a daemon with durability=process */
    bool is_forgotten;               /* ... and then power was cut */
    bool is_let_go;                  /* in doubt, by a daemon that lived */
};

struct world;

/* What a power cut may have taken with it (durability.c). */
enum risk {
    RISK_NONE,
    RISK_MAYBE,
    RISK_CERTAIN,
};

struct disk {
    struct world *world;
    unsigned int index;
    char name[8];
    char path[16];
    struct block_node *node; /* NULL: it is not there */
    GByteArray *shadow;      /* qcow2: what guests see */
    struct oracle oracle;
    GHashTable *leftovers;  /* names: only the image has such a bitmap */
    bool busy[SECTORS_MAX]; /* a guest writes to it */
    unsigned int guests;
    struct block_user user; /* the guests' */
    bool is_process;        /* opened with durability=process */
    bool is_at_risk;        /* its tracking file may be of such a life */
    bool was_at_risk;       /* ... of an earlier one, before it was opened */
    bool was_open;          /* when all died: neither opening nor closing */
    enum risk risk;
    bool may_tell_loss;
    bool must_be_full[REPOSITORIES];
};

/* How a copy is to fail (faults.c). */
struct copy_fault {
    bool in_pieces;
    bool is_planned;
    bool is_copying;      /* the jobs have begun */
    unsigned int disk;    /* the job whose copy fails */
    bool is_source;       /* reading it fails; else writing its target */
    unsigned int goes_on; /* so many pieces arrive before */
    unsigned int pieces;  /* that came */
};

enum doubt_plan {
    DOUBT_BY_CHANCE, /* single faults of the log's disk */
    DOUBT_WAITS,     /* till its disk is well again */
    DOUBT_LETS_GO,   /* the daemon is shut down in doubt */
};

/* A COMMIT fails, and after it all that the log has to say (faults.c). */
struct doubt {
    enum doubt_plan plan;
    bool lasts;        /* the log's disk takes nothing */
    bool is_told;      /* a group is in doubt */
    bool is_let_go;    /* one was settled so */
    uint64_t mends_ns; /* when its disk is well again */
    char *failed_part; /* whose sync failed; owned, NULL: none did */
};

/* A repository, and the command that backs up to it. */
struct repository {
    struct world *world;
    unsigned int index;
    const char *bitmap; /* the one that it uses on each disk */
    const char *folder;
    bool is_running;
    uint64_t number;  /* of the attempt under way, or the last */
    uint64_t dies_in; /* steps; 0: it does not */
    struct copy_fault fault;
};

struct world {
    uint64_t seed;
    bool trace;
    struct random random;
    struct scheduler scheduler;
    struct storage_memory *memory;
    struct coverage coverage;
    uint64_t *counts; /* of all runs; borrowed */
    uint64_t clock_ns;
    uint64_t stamp; /* of the next write */
    unsigned int lives;
    GPtrArray *fates; /* struct fate, owned */
    struct disk disks[DISKS];
    struct repository repositories[REPOSITORIES];
    char *problem; /* NULL: all holds */

    /* How the last life ended, and this one will. */
    bool killed;
    bool died_opening;
    bool power_follows;
    int aim; /* enum coverage_place where it dies; -1: by chance */
    uint64_t aim_count;
    uint64_t crash_at; /* a crash point; 0: none */
    bool has_faults;
    struct doubt doubt;
    bool is_process; /* the daemon: durability=process */

    /* One life. */
    struct engine engine;
    struct tracking tracking;
    struct outcome_source outcomes;
    struct co_mutex commands;
    GPtrArray *told; /* struct oracle_bitmap: changed, not answered yet */
    bool making;
    bool stopping;
    bool verbs_run;
    bool over;
};

/* Runs a seed. NULL, or a sentence (owned): what does not hold. */
char *world_run(uint64_t seed,
                bool with_trace,
                struct coverage *totals,
                uint64_t *counts);

void world_count(struct world *world, enum world_count what);
bool world_is_dead(const struct world *world);
/* The first problem ends the run. */
void world_fail(struct world *world, const char *format, ...)
    G_GNUC_PRINTF(2, 3);
void world_trace(const struct world *world, const char *format, ...)
    G_GNUC_PRINTF(2, 3);
/* The world that runs. */
struct world *world_current(void);
/* Waits a while of virtual time. */
void co_world_pause(struct world *world, uint64_t most_ns);
/* Sends a command (`arguments` consumed) and returns whether it succeeded.
 * `ret_value`, `ret_error` may be NULL; owned by the caller. */
bool co_world_command(struct world *world,
                      const char *name,
                      struct json_value *arguments,
                      struct json_value **ret_value,
                      char **ret_error);

/* disk.c */
void disk_init(struct world *world, unsigned int index);
void disk_release(struct disk *disk);
/* Makes its image. */
void co_disk_make(struct disk *disk);
/* Opens it and compares what recovery found. */
void co_disk_open(struct disk *disk);
/* What guests see; exact while no write is under way. */
GBytes *disk_content(const struct disk *disk);
void disk_start_guests(struct disk *disk);

/* durability.c. Does durability=process occur in this world? */
bool world_has_process(const struct world *world);
/* Of the daemon and of each disk, for the next life. */
void world_choose_durability(struct world *world);
/* The disk is about to be opened; it was, and what was found is settled. */
void durability_opens(struct disk *disk);
void durability_opened(struct disk *disk);
/* The shut-down has closed it, if it was open. */
void durability_closed(struct disk *disk);
/* The storage dies; then power was cut (`clean`: after a clean shut-down). */
void world_note_death(struct world *world);
void world_power_is_cut(struct world *world, bool clean);
/* Were the disk's bitmaps lost, as they may have been? Then nothing else is to be
 * compared. */
bool durability_lost(struct disk *disk);

/* faults.c. Of a life: chosen when it is known where it is to die, and over. */
void faults_plan(struct world *world);
void faults_release(struct world *world);
/* A group is in doubt. Does everyone wait for its end? */
void faults_tell_doubt(struct world *world);
bool faults_are_waited_for(const struct world *world);
/* Someone looks after it, now and then; moves the end of the life. */
void co_faults_attend(struct world *world, uint64_t *end_ns);
/* The daemon is about to be shut down. */
void faults_shut_down(struct world *world);
/* Nobody knows how it ended. */
void faults_let_go(struct world *world, struct fate *fate);
/* Of the next transaction: chosen before it, and over. */
void faults_plan_copy(struct repository *repository);
void faults_end_copy(struct repository *repository);
/* `x-perf` of its jobs. */
void faults_choose_pieces(const struct repository *repository,
                          struct json_value *performance);
/* Does the step fail, and all lives on? */
bool faults_decide(struct world *world,
                   const struct storage_step *step,
                   uint64_t places);
/* A job was aborted: counts those that had copied a part. */
void faults_settled(struct disk *disk, const struct fate *fate);

/* fate.c */
struct fate *world_fate(struct world *world, const struct journal_id *txid);
struct fate *world_find_fate(struct world *world, const char *txid);
void world_decide(struct world *world,
                  struct fate *fate,
                  enum fate_verdict verdict,
                  const char *who);
/* Compares the bitmaps of a disk that was opened. */
void disk_check(struct disk *disk, GBytes *content);

/* instant.c: the command under way was answered. */
void world_answered(struct world *world, bool stands);

/* modes.c. Do jobs have other bitmap modes than on-success in this world? */
bool world_has_modes(const struct world *world);
/* `sync` and `bitmap-mode` of a job that begins anew, or not. */
void modes_choose(struct world *world, bool is_full, struct json_value *data);
/* A job's bitmap was frozen. */
void modes_note(struct fate *fate,
                const struct disk *disk,
                const char *bitmap,
                enum tracker_mode mode);
/* The verdict, after it has ruled out what cannot be any more. */
void modes_settled(struct disk *disk,
                   const struct fate *fate,
                   enum tracker_outcome outcome);
/* Counts what was undecided when all died. */
void modes_count_found(struct disk *disk);

/* backup.c, settle.c */
void co_repository_command(void *opaque);
bool co_settle(struct repository *repository);
/* False: the client has died, or everything has. */
char *repository_data_path(const struct repository *repository,
                           uint64_t number,
                           unsigned int disk);
bool repository_lives(struct repository *repository);

/* verbs.c */
void co_world_verbs(void *opaque);

#endif
