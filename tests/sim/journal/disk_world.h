/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One disk with persistent bitmaps, its guests, and someone who runs verbs:
 * life after life, each ended by a crash or a clean close, and recovered by the
 * next. Everything follows from the seed.
 */
#ifndef SIM_JOURNAL_DISK_WORLD_H
#define SIM_JOURNAL_DISK_WORLD_H

#include "journal/storage_memory.h"
#include "journal/tracker.h"
#include "random.h"

#define WORLD_COUNTS(COUNT)                                         \
 COUNT(WORLD_LIVES, "lives")                                        \
 COUNT(WORLD_KILLS, "crash: killed")                                \
 COUNT(WORLD_POWER_CUTS, "crash: power cut")                        \
 COUNT(WORLD_CUT_AFTER_CLOSE, "power cut after a clean close")      \
 COUNT(WORLD_DIED_WRITE, "crash in: write, tracking file")          \
 COUNT(WORLD_DIED_SYNC, "crash in: sync, tracking file")            \
 COUNT(WORLD_DIED_MAKE, "crash in: making a tracking file")         \
 COUNT(WORLD_DIED_NAME, "crash in: rename or unlink")               \
 COUNT(WORLD_DIED_DIRECTORY, "crash in: sync, directory")           \
 COUNT(WORLD_DIED_IMAGE, "crash in: write, image")                  \
 COUNT(WORLD_DIED_IMAGE_SYNC, "crash in: sync, image")              \
 COUNT(WORLD_DIED_TRUNCATE, "crash in: truncate, image")            \
 COUNT(WORLD_CRASHED_IN_RECOVERY, "crash: while opening")           \
 COUNT(WORLD_CRASHED_IN_CLOSE, "crash: while closing")              \
 COUNT(WORLD_CLEAN, "closed cleanly")                               \
 COUNT(WORLD_WRITES, "guest: writes")                               \
 COUNT(WORLD_FLUSHES, "guest: flushes")                             \
 COUNT(WORLD_INTENTS, "intents found at recovery")                  \
 COUNT(WORLD_ADD, "verb: add")                                      \
 COUNT(WORLD_REMOVE, "verb: remove")                                \
 COUNT(WORLD_CLEAR, "verb: clear")                                  \
 COUNT(WORLD_ENABLE, "verb: enable")                                \
 COUNT(WORLD_DISABLE, "verb: disable")                              \
 COUNT(WORLD_MERGE, "verb: merge")                                  \
 COUNT(WORLD_CHECKPOINT, "verb: checkpoint")                        \
 COUNT(WORLD_RESIZE, "verb: resize")                                \
 COUNT(WORLD_FREEZE, "job: freeze")                                 \
 COUNT(WORLD_PREPARE, "job: prepared")                              \
 COUNT(WORLD_COMMIT, "job: committed")                              \
 COUNT(WORLD_ABORT, "job: aborted")                                 \
 COUNT(WORLD_UNKNOWN, "job: outcome unknown")                       \
 COUNT(WORLD_UNDECIDED, "undecided changes")                        \
 COUNT(WORLD_ACKNOWLEDGED, "outcomes acknowledged")                 \
 COUNT(WORLD_SYNC_FAILED, "fault: sync of the tracking file")       \
 COUNT(WORLD_NEW_FILE_FAILED, "fault: sync of a new tracking file") \
 COUNT(WORLD_FLUSH_FAILED, "fault: flush of the image")             \
 COUNT(WORLD_FAILED_TRACKING, "tracking failed, and said so")

#define WORLD_COUNT_ENUM(name, text) name,

enum world_count {
    WORLD_COUNTS(WORLD_COUNT_ENUM) WORLD_COUNT_KINDS
};

#undef WORLD_COUNT_ENUM

struct world_options {
    uint64_t seed;
    unsigned int lives;
    /* What may happen. */
    bool power_cuts;
    bool faults;
    enum tracker_durability durability;
    /* Each life's crash point, from its start, but for the last, which ends
     * cleanly; 0: by chance. */
    uint64_t crash_point;
    uint64_t steps;   /* verbs per life */
    uint64_t bitmaps; /* at most so many at a time; 0: three */
};

struct world_result {
    uint64_t counts[WORLD_COUNT_KINDS];
    uint64_t crashes;    /* lives that ended in the middle */
    uint64_t operations; /* of the storage: each might have been the last */
    char *problem;       /* owned; NULL: all held */
};

void disk_world_run(const struct world_options *options,
                    struct world_result *ret_result);

#endif
