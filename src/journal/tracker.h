/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tracker makes the persistent bitmaps of one node survive a crash.
 *
 * It is the node's hook of stage BLOCK_HOOK_INTENT: before a write is issued,
 * the region that it is in is durable as "may have changed", unless the bits
 * that the write sets are durable already. From time to time a checkpoint makes
 * the bitmaps durable in the background; then intents are cleared. Bytes and
 * rules: docs/reference/tracking-file.md.
 *
 * Life:
 *     co_tracker_open()      the node was opened: recovers what there is, puts
 *                            the persistent bitmaps on the node
 *     ...                    writes; verbs; checkpoints
 *     co_tracker_close()     clean: durable, so that nothing is to be recovered
 *
 * A verb that changes persistent bitmaps has four steps:
 *     1. co_tracker_begin(): no checkpoint and no other verb from here on.
 *        co_tracker_reserve(), for what may need space; nothing is visible yet.
 *     2. The node is fenced. The change is made in memory with dirty_bitmap_*()
 *        and told with tracker_*(). No I/O, cannot fail.
 *     3. Unfenced: co_tracker_commit() makes it durable, before the reply.
 *        Changes of several bitmaps of one node become durable as one.
 *     4. co_tracker_end().
 * Once per node, whatever number of its bitmaps is changed.
 *
 * A change of several nodes' bitmaps, or one that a job will decide, is told
 * with a txid: it is *undecided*, and the file keeps both states in full, until
 * tracker_settle(). Between the two co_tracker_prepare() names the segment of
 * the log that decides it:
 *
 *     plain ──freeze, begin──> frozen ──prepare──> prepared ──settle──> plain
 *
 * Threads: the node's home thread, in coroutines where the name says co_.
 * tracker_change() and tracker_freeze() also from the main thread while the node
 * is fenced, between co_tracker_begin() and co_tracker_end(). What only asks, from
 * the main thread also while nothing else can change it (graph lock, visit).
 */
#ifndef JOURNAL_TRACKER_H
#define JOURNAL_TRACKER_H

#include <glib.h>

#include "bitmap/dirty_bitmap.h"
#include "block/node.h"
#include "journal/bitmap_base.h"
#include "journal/storage.h"

struct tracker;

/*
 * How transactions ended: the commit log, as the tracker sees it. Called on the
 * node's home thread; may go elsewhere meanwhile and comes back.
 */
enum tracker_outcome {
    TRACKER_COMMITTED,
    TRACKER_ABORTED,
    TRACKER_UNKNOWN, /* the log is lost or damaged: nobody will ever know */
    TRACKER_PENDING, /* its run is alive and has not decided: not yet known */
};

struct tracker_outcomes {
    /* `segment` NULL: the pair was not prepared, any segment may have it. Only
     * what is durable (sealed) may be told. */
    enum tracker_outcome (*co_ask)(struct tracker_outcomes *outcomes,
                                   const struct journal_id *txid,
                                   const struct log_segment *segment);
    /* The disk's tracking file holds the outcome durably for all its bitmaps;
     * it will not ask again. Also called when the file is lost for good. `txid`
     * NULL: so it is for all transactions of runs that are dead. */
    void (*co_acknowledge)(struct tracker_outcomes *outcomes,
                           const struct journal_id *txid,
                           const struct journal_id *disk);
};

enum tracker_durability {
    TRACKER_POWER,   /* survives power loss */
    TRACKER_PROCESS, /* survives the process only; saves the syncs */
};

/* Of an image that carries one (identity.h); none: it has none, gets none. */
struct tracker_stamp {
    struct journal_id found; /* in the image, when it was opened */
    struct journal_id
        fresh; /* what the image will bear: co_tracker_stamped() */
};

struct tracker_options {
    struct storage *storage; /* borrowed */
    char *path;              /* of the tracking file; copied */
    char *image_path;        /* of the image, for its identity; NULL: none */
    char *state_directory;   /* for tombstones; NULL: none; copied */
    /* NULL: images of this kind carry none. Else the file counts only if it knows
     * the stamp that was found. Borrowed until the call ends. */
    const struct tracker_stamp *stamp;
    enum tracker_durability durability;
    struct tracker_outcomes *outcomes; /* borrowed; NULL: all are unknown */
    /* Bytes that a crash may mark beyond what was written; 0: the default, 1 GiB
     * or half a percent of the disk, whichever is more. */
    uint64_t over_marking_bytes;
    uint64_t region_bytes;  /* 0: chosen by the size of the disk */
    uint64_t checkpoint_ns; /* 0: default, from first change to checkpoint */
    bool stop_on_error;     /* on-tracking-error=stop: if not even the loss of
                                 tracking can be made durable, writes fail */
    /* Tracking of the node has failed, or (reason NULL) bitmaps were recovered.
     * Home thread; may be NULL. */
    void (*on_trouble)(void *opaque,
                       struct block_node *node,
                       const char *reason,
                       bool is_durable);
    void *opaque;
};

/* Opens the node's tracking file if there is one, recovers, and puts its bitmaps
 * on the node. `*ret_tracker` is NULL, and the result 0, when there is no file.
 * A file that cannot be believed is no failure: its bitmaps come as
 * inconsistent. Fails when it cannot be known whether there is one, when it is
 * locked by someone else (-EAGAIN), has a newer version (-ENOTSUP), or cannot be
 * written. The node is writable and has no requests yet; it owns the tracker,
 * until co_tracker_close(). */
int co_tracker_open(struct block_node *node,
                    const struct tracker_options *options,
                    struct tracker **ret_tracker,
                    GError **err);
/* As above for a node without tracking file: makes one, without bitmaps. */
int co_tracker_create(struct block_node *node,
                      const struct tracker_options *options,
                      struct tracker **ret_tracker,
                      GError **err);
/* The image durably bears the fresh stamp: no other counts any more. */
int co_tracker_stamped(struct tracker *tracker, GError **err);
/* The node's tracker; NULL: it has none. */
struct tracker *tracker_of(struct block_node *node);
/* Makes everything durable, the file clean, and frees the tracker. No requests
 * and no undecided changes of live transactions. Whatever fails, the tracker is
 * gone after, and the file tells the truth: then it is not clean. */
int co_tracker_close(struct tracker **tracker, GError **err);

const struct journal_id *tracker_disk_id(const struct tracker *tracker);
const char *tracker_path(const struct tracker *tracker);
/* Why its bitmaps are inconsistent; NULL: they are not. Borrowed. */
const char *tracker_reason(const struct tracker *tracker);

/* --- Verbs ----------------------------------------------------------------- */

/* Waits until no checkpoint or verb is under way. co_tracker_end() follows. */
void co_tracker_begin(struct tracker *tracker);
void co_tracker_end(struct tracker *tracker);

/* Makes room for one more bitmap of such a granularity; beside growing, the only
 * step that can fail for want of space. Taken back by co_tracker_end() if no bitmap
 * came. */
int co_tracker_reserve(struct tracker *tracker,
                       uint64_t granularity_bytes,
                       GError **err);

/* Step 2. Each goes with the change of the same name in memory. `change_txid`
 * NULL: decided at once; else undecided. */
enum tracker_change {
    TRACKER_CHANGE_NONE,
    TRACKER_CHANGE_JOB,    /* told with tracker_freeze() */
    TRACKER_CHANGE_ADD,    /* after dirty_bitmap_attach() */
    TRACKER_CHANGE_REMOVE, /* before dirty_bitmap_detach(), which may follow at
                               once; undecided: when it is settled */
    TRACKER_CHANGE_CLEAR,  /* undecided: after dirty_bitmap_freeze() */
    TRACKER_CHANGE_ENABLE,
    TRACKER_CHANGE_DISABLE, /* undecided: it records on until settled */
    TRACKER_CHANGE_MERGE,   /* undecided: the sources' bits come as `merged`;
                               NULL: nothing changes */
};

/* A bitmap becomes a persistent one with TRACKER_CHANGE_ADD. `merged` (may be
 * NULL): borrowed until settled. */
void tracker_change(struct tracker *tracker,
                    struct dirty_bitmap *bitmap,
                    enum tracker_change change,
                    const struct journal_id *change_txid,
                    const struct bitmap *merged);

enum tracker_mode {
    TRACKER_ON_SUCCESS,
    TRACKER_NEVER,
    TRACKER_ALWAYS,
};

/* After dirty_bitmap_freeze() for a job, at the cut. Becomes durable in the
 * background; until then a crash finds P with all its bits and intents. */
void tracker_freeze(struct tracker *tracker,
                    struct dirty_bitmap *bitmap,
                    const struct journal_id *txid,
                    enum tracker_mode mode);

/* Everything of `txid` becomes durable as prepared, decided by `segment` (which
 * is durable already). The node's image is flushed before. An earlier transaction
 * of the same bitmaps is made durable as settled first. A failure means that
 * nothing of it may commit. Between co_tracker_begin() and co_tracker_end(). */
int co_tracker_prepare(struct tracker *tracker,
                       const struct journal_id *txid,
                       const struct log_segment *segment,
                       GError **err);

/* The verdict, after dirty_bitmap_abdicate(), _reclaim() and the like in memory;
 * no yield in between. COMMITTED sets the base of a job's bitmaps,
 * ABORTED keeps it (mode always: none, for bits have been dropped), UNKNOWN
 * with reclaim: {old, new}. Becomes durable in the background, or with
 * co_tracker_commit() or _checkpoint(); then it is acknowledged. */
void tracker_settle(struct tracker *tracker,
                    const struct journal_id *txid,
                    enum tracker_outcome outcome);

/* Step 3: all that was told before becomes durable; nothing to do: 0. On failure
 * all bitmaps of the node are inconsistent, and that is durable, if it can be made
 * so at all: a crash does not find the change after its failure was told. */
int co_tracker_commit(struct tracker *tracker, GError **err);

/* Begins, writes out all that has changed, clears intents, ends. */
int co_tracker_checkpoint(struct tracker *tracker, GError **err);

/* The tracker's hook does this by itself for who resizes the node. Around a
 * change of the node's size, between co_tracker_begin() and
 * co_tracker_end(). The first makes the record of it durable,
 * with room for the new size; the second, after the image has its new size (or,
 * the truncate having failed, its old one) drops it, when the image is durable.
 * The bitmaps were resized in between. */
int co_tracker_resize_begin(struct tracker *tracker,
                            uint64_t new_bytes,
                            GError **err);
int co_tracker_resize_end(struct tracker *tracker, GError **err);

/* --- Questions --------------------------------------------------------------- */

bool tracker_has(const struct tracker *tracker,
                 const struct dirty_bitmap *bitmap);
/* False: it is not persistent. */
bool tracker_base(const struct tracker *tracker,
                  const struct dirty_bitmap *bitmap,
                  struct bitmap_base *ret_base);
/* What recovery marked when the node was opened. */
void tracker_recovered(const struct tracker *tracker,
                       uint64_t *ret_regions,
                       uint64_t *ret_bytes);
/* Intent bits that are set now. */
uint64_t tracker_intents(const struct tracker *tracker);

#endif
