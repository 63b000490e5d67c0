/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of a tracker, for the files of this folder.
 *
 *     tracker.c          life, failure, questions
 *     tracker_change.c   verbs: what is told in memory
 *     intent.c           the hook: regions, and making them durable
 *     checkpoint.c       making bitmaps durable
 *     recovery.c         what a crash has left
 *     tracker_resize.c   changing the size
 *
 * What may be believed after a crash, as far as it is known here:
 *   - `durable` is the superblock that would count.
 *   - The shadows are the bits that it gives: for each set of each bitmap.
 *   - If `change_sequence` is `durable_changes` no verb's effect is missing in it.
 *   - While `broken` something may have gone wrong half-way: only poison may be
 *     written any more.
 */
#ifndef JOURNAL_TRACKER_PRIV_H
#define JOURNAL_TRACKER_PRIV_H

#include "block/hook.h"
#include "journal/tracker.h"
#include "journal/tracking_file.h"
#include "loop/co_lock.h"

/* One set of a bitmap, as the durable superblock has it. */
struct page_set {
    uint64_t *shadow; /* owned; the words; NULL: there is no such set */
    uint64_t word_count;
    struct tracked_page *pages; /* owned */
    uint32_t page_count;
};

/* A persistent bitmap. */
struct tracked {
    struct list link; /* the tracker's, in order of their coming */
    struct dirty_bitmap_observer observer;
    struct tracker *tracker;
    struct dirty_bitmap *bitmap; /* borrowed; not to be used once gone */
    bool gone;                   /* removed; goes with the next flip */
    bool is_recovered; /* bits of it may be from marking after a crash */
    uint32_t id;
    struct bitmap_base base;
    struct tracked_change change;
    const struct bitmap *merged; /* MERGE undecided: the sources' bits */
    struct page_set sets[TRACKED_SETS];
};

/* What a region's intent bit is. */
enum region_state {
    REGION_COLD,     /* clear, or about to be cleared on disk */
    REGION_PENDING,  /* being set on disk; writes wait */
    REGION_WARM,     /* durable */
    REGION_CLEARING, /* durable, and not written to since the last snapshot */
};

struct tracker {
    struct block_hook hook; /* first cache line: what a write looks at */
    uint8_t *regions;       /* enum region_state, one byte per region */
    uint64_t region_count;
    unsigned int region_shift;
    bool needs_intents; /* some state that may count has a recording bitmap */

    struct block_node *node;
    struct storage *storage;
    char *path;
    char *image_path;
    char *state_directory;
    enum tracker_durability durability;
    struct tracker_outcomes *outcomes;
    uint64_t over_marking_bytes;
    uint64_t checkpoint_ns;
    bool stop_on_error;
    void (*on_trouble)(void *opaque,
                       struct block_node *node,
                       const char *reason,
                       bool is_durable);
    void *opaque;
    uint8_t boot_id[STORAGE_BOOT_ID_BYTES];

    /* The file. */
    struct journal_id disk_id;
    struct tracking_file *file;  /* NULL: none was made yet */
    struct tracking_file *spare; /* takes its place with the next flip */
    bool spare_wanted;           /* ... if this is set */
    struct tracking_superblock *durable;
    struct identity identity;
    bool has_stamp; /* the image carries one */
    struct tracker_stamp stamp;
    struct identity_stamps stamps; /* as the next superblock will have them */

    /* Bitmaps. */
    struct list entries;
    uint32_t next_id;
    uint64_t reserved_pages; /* since co_tracker_begin() */
    unsigned int reserved_bitmaps;
    uint64_t change_sequence; /* steps that were told */
    uint64_t durable_changes; /* ... of which so many are durable */
    bool needs_flush;         /* the image, before the next flip */
    GArray *acknowledgements; /* struct journal_id: settled, not durable yet */
    bool said_settled;        /* of all dead runs, since the file was opened */
    bool is_resizing;
    uint64_t resize_old_bytes;
    uint64_t resize_new_bytes;

    /* Intents. */
    bool *sector_changed;     /* differs from what is on disk */
    uint64_t changed_sectors; /* how many */
    GArray *pending;          /* uint64_t: regions of the next round */
    bool flushing;            /* the coroutine runs */
    bool holding;             /* the file is being replaced: no first touch */
    struct co_queue intents;  /* writes that wait for their intent */
    struct co_queue flusher_idle;
    uint64_t intent_count;
    uint64_t
        cover_hits; /* writes that needed no intent: their bits are durable */

    /* Checkpoints. */
    struct co_mutex lock; /* flips and verbs */
    struct loop_timer timer;
    bool flipping; /* the file's superblock is on its way */
    struct co_queue flip_over;
    bool checkpointing; /* a coroutine of the background runs */
    struct co_queue checkpoint_over;

    /* Failure. */
    bool broken;
    bool poisoning;
    bool failed;   /* writes go on, bitmaps are inconsistent */
    bool stops;    /* ... or they fail */
    bool poisoned; /* that is durable */
    bool closing;
    char *reason;
    struct co_queue poison_over;
    struct co_queue failure_over;

    uint64_t recovered_regions;
    uint64_t recovered_bytes;
};

#define TRACKER_REGION_BYTES_MIN MIB
#define TRACKER_REGIONS_MAX      (UINT64_C(1) << 20)
#define TRACKER_CHECKPOINT_NS    UINT64_C(5000000000)

/* tracker.c */
/* Something could not be written: nothing but poison will be. `format`: why the
 * bitmaps are not to be believed. Poisoning goes on in the background. */
void tracker_break(struct tracker *tracker, const char *format, ...)
    G_GNUC_PRINTF(2, 3);
/* With the verbs' lock, of one that has failed: what could not be made durable is
 * tried once more. Is it durable now? Then writes go on in any case. */
bool co_tracker_poison_again(struct tracker *tracker);
/* Waits until what was in doubt no longer is: the poison is durable, or will never
 * be. The lock may be held, but no flip be under way. */
void co_tracker_wait_poisoned(struct tracker *tracker);
/* Waits until all of failing is over. */
void co_tracker_wait_failed(struct tracker *tracker);
/* What the node's file has to have room for, at a size. */
void tracker_needs(const struct tracker *tracker,
                   uint64_t size_bytes,
                   struct tracking_needs *ret);
bool tracker_syncs(const struct tracker *tracker);

/* tracker_change.c */
struct tracked *tracked_new(struct tracker *tracker,
                            struct dirty_bitmap *bitmap,
                            uint32_t id);
/* Takes the entry off the tracker and its bitmap, and frees it. */
void tracked_free(struct tracked *entry);
struct tracked *tracked_of(const struct tracker *tracker,
                           const struct dirty_bitmap *bitmap);
/* Shows base and the like in queries. */
void tracked_describe(struct tracked *entry);
/* The live bits of a set; NULL: there is none. */
const struct bitmap *tracked_bits(const struct tracked *entry,
                                  enum tracked_set set);
/* The verdict on one entry that is in a change. */
void tracked_settle(struct tracked *entry, enum tracker_outcome outcome);
void page_set_release(struct page_set *set);
void tracker_touch(struct tracker *tracker, bool loses_bits);
void tracker_update_needs(struct tracker *tracker);

/* intent.c */
void intent_init(struct tracker *tracker);
void intent_release(struct tracker *tracker);
/* Regions and sectors for the file's layout; existing bits stay. */
int intent_resize(struct tracker *tracker, const struct tracking_file *file);
/* From the map as it was read: set bits are durable. */
void intent_load(struct tracker *tracker);
/* A snapshot is about to be taken. */
void intent_begin_clearing(struct tracker *tracker);
/* The snapshot is durable: clears what was not written to since. */
void intent_clear(struct tracker *tracker);
/* Waits until nothing is being written to the map. */
void co_intent_wait_idle(struct tracker *tracker);
/* Writes what has changed in the map, at once and on this coroutine. */
int co_intent_write(struct tracker *tracker);
/* Lets first touches go on, or fail. */
void intent_wake(struct tracker *tracker);
bool intent_hook_try(struct block_hook *hook, uint64_t offset, uint64_t bytes);
int co_intent_hook(struct block_hook *hook, uint64_t offset, uint64_t bytes);

/* tracker_verbs.c */
/* A spare file with room for all that is needed at a size, unless the one that
 * is there has it. */
int co_tracker_make_room(struct tracker *tracker,
                         uint64_t size_bytes,
                         GError **err);

/* checkpoint.c */
/* With the lock: all that is in memory becomes durable. On failure the tracker
 * is broken, unless nothing but pages had been written (then it may be tried
 * again). */
int co_checkpoint_flip(struct tracker *tracker, bool clean, GError **err);
/* A checkpoint in the background, if none runs. */
void checkpoint_start(struct tracker *tracker);
void checkpoint_timer_start(struct tracker *tracker);
void checkpoint_init(struct tracker *tracker);

/* recovery.c */
/* Puts on the node what the superblock, which was read with tracker->file, has
 * of bitmaps, as a crash has left them. */
int co_recovery_load(struct tracker *tracker,
                     struct tracking_superblock *superblock,
                     GError **err);

#endif
