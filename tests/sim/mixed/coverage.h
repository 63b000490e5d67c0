/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the simulated machine has died.
 *
 * Each step of the storage is told apart by its bytes: what a write to a tracking
 * file or to the log says, against what stood there. What was written and is not
 * synced yet marks the sync that follows, too. So a crash counts for all that it
 * could have torn.
 */
#ifndef SIM_MIXED_COVERAGE_H
#define SIM_MIXED_COVERAGE_H

#include "journal/storage_memory.h"
#include "journal/tracker.h"
#include "journal/tracking_file_format.h"

#define COVERAGE_DISKS 3

#define COVERAGE_PLACES(PLACE)                                  \
 PLACE(AT_INTENT_SET, "intent sync")                            \
 PLACE(AT_INTENT_CLEAR, "intent clearing")                      \
 PLACE(AT_PAGE, "page write")                                   \
 PLACE(AT_FLIP, "superblock flip")                              \
 PLACE(AT_FREEZE, "freeze durable")                             \
 PLACE(AT_PREPARE_0, "prepare: first disk")                     \
 PLACE(AT_PREPARE_1, "prepare: second disk")                    \
 PLACE(AT_PREPARE_2, "prepare: third disk (qcow2)")             \
 PLACE(AT_TARGET_FLUSH, "target flush")                         \
 PLACE(AT_SOURCE_FLUSH, "source flush")                         \
 PLACE(AT_BEGIN, "BEGIN")                                       \
 PLACE(AT_COMMIT, "COMMIT being written")                       \
 PLACE(AT_COMMIT_UNSYNCED, "COMMIT written, unsynced")          \
 PLACE(AT_COMMIT_SYNCED, "COMMIT synced, nobody knows it yet")  \
 PLACE(AT_ABORT, "ABORT")                                       \
 PLACE(AT_ABDICATE_0, "abdicate: first disk")                   \
 PLACE(AT_ABDICATE_1, "abdicate: second disk")                  \
 PLACE(AT_ABDICATE_2, "abdicate: third disk (qcow2)")           \
 PLACE(AT_RECLAIM, "reclaim")                                   \
 PLACE(AT_SEAL, "seal")                                         \
 PLACE(AT_ACKNOWLEDGE, "acknowledgement")                       \
 PLACE(AT_PURGE, "purge")                                       \
 PLACE(AT_STARTED, "repository: started")                       \
 PLACE(AT_PREPARED, "repository: manifest prepared")            \
 PLACE(AT_PUBLISHED, "repository: published")                   \
 PLACE(AT_RESIZE, "resize record")                              \
 PLACE(AT_MERGE, "merge")                                       \
 PLACE(AT_ENABLE, "enable")                                     \
 PLACE(AT_CHANGE, "another change of a bitmap")                 \
 PLACE(AT_CREATION, "tracking-file creation")                   \
 PLACE(AT_GUEST_WRITE, "guest's write to the image")            \
 PLACE(AT_GUEST_FLUSH, "flush of an image")                     \
 PLACE(AT_CLOSE_IMAGE, "clean close: sync of the image")        \
 PLACE(AT_CLOSE_TRACKING, "clean close: sync of tracking")      \
 PLACE(AT_CLOSE_LOG, "clean close: sync of the log")            \
 PLACE(AT_RECOVERY, "recovery")                                 \
 PLACE(AT_RECOVERY_AGAIN, "recovery after a crash in recovery") \
 PLACE(AT_PROCESS, "superblock of durability=process")

#define PLACE_ENUM(name, text) name,

enum coverage_place {
    COVERAGE_PLACES(PLACE_ENUM) COVERAGE_PLACE_COUNT
};

#undef PLACE_ENUM

#define PLACE_BIT(place) (UINT64_C(1) << (place))

/* What one disk's tracking file is known to say. */
struct coverage_file {
    bool has_layout;
    struct tracking_layout layout;
    tracking_superblock *newest; /* written last; owned, NULL: none yet */
    uint64_t told; /* places of changes that were made in memory */
};

/* What the world is doing meanwhile. */
struct coverage_phase {
    bool opening;
    bool closing;
    bool died_opening;       /* as the life before did */
    unsigned int finalizing; /* groups on their way to COMMIT */
};

struct coverage {
    struct storage_memory *memory; /* borrowed */
    struct coverage_phase phase;
    struct coverage_file files[COVERAGE_DISKS];
    GHashTable *unsynced; /* path -> places, as a pointer */
    bool has_fresh_commit;
    uint64_t hits[COVERAGE_PLACE_COUNT];   /* crashes at; of all runs */
    uint64_t passed[COVERAGE_PLACE_COUNT]; /* steps that went on */
};

void coverage_init(struct coverage *coverage, struct storage_memory *memory);
void coverage_release(struct coverage *coverage);
/* Nothing is known of any file: a life begins. */
void coverage_reset(struct coverage *coverage);
/* A bitmap of the disk was changed in memory. */
void coverage_tell(struct coverage *coverage,
                   unsigned int disk,
                   enum tracker_change change);

/* The places that the step is at. */
uint64_t coverage_places(struct coverage *coverage,
                         const struct storage_step *step);
/* The step was taken (`dies`: in part). */
void coverage_step(struct coverage *coverage,
                   const struct storage_step *step,
                   uint64_t places,
                   bool dies);

const char *coverage_name(enum coverage_place place);

#endif
