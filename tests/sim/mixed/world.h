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
#include "mixed/coverage.h"
#include "qmp/engine.h"

#define DISKS          COVERAGE_DISKS
#define QCOW2_DISK     2
#define REPOSITORIES   2
#define GUESTS         2 /* of a disk */
#define DISK_BYTES     (UINT64_C(96) * 1024)
#define DISK_BYTES_MAX (2 * DISK_BYTES)
#define SECTORS_MAX    (DISK_BYTES_MAX / 512)

#define WORLD_COUNTS(COUNT)                                        \
 COUNT(WORLD_LIVES, "lives")                                       \
 COUNT(WORLD_CRASHES, "crashes")                                   \
 COUNT(WORLD_KILLS, "crash: killed")                               \
 COUNT(WORLD_POWER_CUTS, "crash: power cut")                       \
 COUNT(WORLD_KILL_THEN_POWER, "crash: killed, then power cut")     \
 COUNT(WORLD_CRASHED_OPENING, "crash: while recovering")           \
 COUNT(WORLD_CRASHED_CLOSING, "crash: while closing")              \
 COUNT(WORLD_CLEAN, "closed cleanly")                              \
 COUNT(WORLD_ABSENT, "disk: absent at first")                      \
 COUNT(WORLD_CAME_LATE, "disk: came later in the same life")       \
 COUNT(WORLD_WRITES, "guest: writes")                              \
 COUNT(WORLD_FLUSHES, "guest: flushes")                            \
 COUNT(WORLD_FULL, "backup: full member")                          \
 COUNT(WORLD_INCREMENTAL, "backup: incremental member")            \
 COUNT(WORLD_GROUPS, "backup: group begun")                        \
 COUNT(WORLD_SINGLES, "backup: single job begun")                  \
 COUNT(WORLD_REFUSED, "backup: refused")                           \
 COUNT(WORLD_BASE_REFUSED, "backup: refused, another base")        \
 COUNT(WORLD_PUBLISHED, "backup: published")                       \
 COUNT(WORLD_CLIENT_DIED, "backup: its client died")               \
 COUNT(WORLD_SETTLED_PUBLISHED, "settled: published")              \
 COUNT(WORLD_SETTLED_DISCARDED, "settled: discarded")              \
 COUNT(WORLD_POINTS_COMPARED, "points compared byte by byte")      \
 COUNT(WORLD_BITMAPS_COMPARED, "bitmaps compared byte by byte")    \
 COUNT(WORLD_LEFTOVERS, "left in the image by what was in doubt")  \
 COUNT(WORLD_VERDICTS_FOUND, "transactions decided by recovery")   \
 COUNT(WORLD_VERBS, "verb: done")                                  \
 COUNT(WORLD_CHANGES, "verb: on several disks, by one record")     \
 COUNT(WORLD_MERGES, "verb: merge")                                \
 COUNT(WORLD_RESIZES, "verb: resize")                              \
 COUNT(WORLD_DOUBT, "fault: COMMIT's sync")                        \
 COUNT(WORLD_NEVER, "mode never: committed")                       \
 COUNT(WORLD_NEVER_FAILED, "mode never: failed")                   \
 COUNT(WORLD_ALWAYS, "mode always: committed")                     \
 COUNT(WORLD_ALWAYS_FAILED, "mode always: failed")                 \
 COUNT(WORLD_ALWAYS_FOUND, "mode always: undecided at a crash")    \
 COUNT(WORLD_DIFFERENTIAL, "backup: on a point before the newest") \
 COUNT(WORLD_PROCESS_DAEMONS, "process: daemon")                   \
 COUNT(WORLD_PROCESS_DISKS, "process: disk opened")                \
 COUNT(WORLD_PROCESS_KEPT, "process: disk found after a kill")     \
 COUNT(WORLD_PROCESS_LOST, "process: disk's bitmaps lost")         \
 COUNT(WORLD_PROCESS_FULL, "process: full backup after the loss")  \
 COUNT(WORLD_PROCESS_UNKNOWN, "process: outcome unknown")

#define WORLD_COUNT_ENUM(name, text) name,

enum world_count {
    WORLD_COUNTS(WORLD_COUNT_ENUM) WORLD_COUNT_KINDS
};

#undef WORLD_COUNT_ENUM

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

/* A repository, and the command that backs up to it. */
struct repository {
    struct world *world;
    unsigned int index;
    const char *bitmap; /* the one that it uses on each disk */
    const char *folder;
    bool is_running;
    uint64_t number;  /* of the attempt under way, or the last */
    uint64_t dies_in; /* steps; 0: it does not */
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
