/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The copy engine: moves a source node, as it was at one instant, to a target.
 *
 * What is still to copy is a bitmap of clusters. Two parties take from it:
 *
 *     background   co_block_copy_step(), cluster after cluster, in the order of
 *                  the disk, in big pieces, many at once
 *     foreground   co_block_copy_save(), called before a guest overwrites a
 *                  cluster: saves its old content first
 *
 * A cluster is claimed (its bit cleared) by whoever copies it, so each is read
 * once. A guest's write waits only until the old content is in memory; writing
 * it to the target goes on behind its back, in a bounded buffer. So a target
 * that is merely slow does not slow the guest. If the buffer stays full beyond
 * a deadline, or saving fails, the copy breaks and the guest goes on; or, if so
 * configured, the guest waits for the target and its write is what fails.
 *
 *     remaining ──claim──> reading ──> writing ──> done
 *         ^                   │           │ ^
 *         └── failed to read ─┘           └─┘ failed to write, to be retried:
 *                                             the old content stays in memory,
 *                                             for the guest may have gone on
 *
 * All functions are for the home thread that source and target share, except
 * _new and _free (any thread while nothing runs).
 */
#ifndef BACKUP_BLOCK_COPY_H
#define BACKUP_BLOCK_COPY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "bitmap/bitmap.h"
#include "block/node.h"

typedef struct block_copy block_copy;
struct block_copy;

/* Smallest unit that is copied. */
#define BLOCK_COPY_CLUSTER_BYTES_MIN (UINT64_C(64) << 10)
/* Largest piece that is read at once, unless configured otherwise. */
#define BLOCK_COPY_CHUNK_BYTES (UINT64_C(1) << 20)
/* Background transfers under way, and their memory. */
#define BLOCK_COPY_TASKS_MAX       64
#define BLOCK_COPY_IN_FLIGHT_BYTES (UINT64_C(16) << 20)
/* Old content that waits in memory for the target, per copy. */
#define BLOCK_COPY_SAVED_BYTES_MAX (UINT64_C(64) << 20)
/* How long a guest's write waits for room in it, unless configured. */
#define BLOCK_COPY_SAVE_WAIT_NS (UINT64_C(5) * 1000000000)

struct block_copy_options {
    uint64_t cluster_bytes; /* a power of two */
    uint64_t chunk_bytes;   /* at least a cluster */
    unsigned int tasks_max; /* at least 1 */
    /* How long a guest's write waits until saving has failed; UINT64_MAX: for
     * ever. */
    uint64_t save_wait_ns;
    /* A guest's write waits for the target, and fails when saving does; the
     * copy goes on. Otherwise the copy fails. */
    bool guest_pays;
    bool compress; /* data is stored compressed */
    /* The target becomes, or is, a layer over older content: zeroes are written
     * to it where it holds nothing, though it reads as zeroes there now. */
    bool target_is_layer;
    /* A guest's write waits for the target, since others read the copy while it
     * is made. If that takes too long the copy still fails, not the guest. */
    bool is_read;
    /* The target lies above the source: is_read, and what reads the target is
     * waited for before the source changes below it; zeroes are written even
     * where the source has some. If the copy fails, reads of the target do. */
    bool target_over_source;
    /* The target is written to as a part of the guest's write, which has passed
     * its gate: the two are children of one node. There is no background. */
    bool is_inner;
    /* What the background has copied is discarded from the source. */
    bool discard_source;
    /* The background lets the kernel copy from file to file, as long as that
     * works. */
    bool copy_range;
};

enum block_copy_side {
    BLOCK_COPY_SOURCE,
    BLOCK_COPY_TARGET,
};

struct block_copy_events {
    /* `bytes` more have arrived on the target. */
    void (*copied)(void *opaque, uint64_t bytes);
    /* A transfer has failed. `foreground`: saving what a guest overwrites, and
     * the copy has failed for it. Otherwise: whether to retry (true), or to fail
     * (false); to retry holds the copy, see block_copy_go_on(). */
    bool (*failed)(void *opaque,
                   enum block_copy_side side,
                   int error,
                   bool foreground);
    void *opaque;
};

/* A copy with nothing to do yet: mark what there is in block_copy_remaining().
 * NULL with err set: no memory. */
struct block_copy *block_copy_new(struct block_node *source,
                                  struct block_node *target,
                                  const struct block_copy_options *options,
                                  const struct block_copy_events *events,
                                  GError **err);
/* No transfer may be under way. NULL is fine. */
void block_copy_free(struct block_copy *copy);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(block_copy, block_copy_free)

/* The clusters nobody has copied or claimed yet; failed ones come back here.
 * Its granularity is the copy's cluster. Borrowed. */
struct bitmap *block_copy_remaining(struct block_copy *copy);
/* Bytes that the remaining clusters cover, cut at the disk's end. */
uint64_t block_copy_remaining_bytes(const struct block_copy *copy);

/* Background: starts the next transfer at or after `*cursor` (moved on, or back
 * where something is to be retried), after waiting for room. Returns the bytes
 * it claimed, 0 when there is nothing to start now. */
uint64_t co_block_copy_step(struct block_copy *copy, uint64_t *cursor);
/* Waits for a transfer to end, or for any change of state. */
void co_block_copy_wait(struct block_copy *copy);
/* Everything is on the target. */
bool block_copy_is_done(const struct block_copy *copy);
/* A failure is to be retried: no transfer starts or goes on until told so. */
bool block_copy_is_held(const struct block_copy *copy);
void block_copy_go_on(struct block_copy *copy);

/* Foreground: is there nothing to save in this range, now? Never waits. True for
 * what the copy itself does to the source. */
bool block_copy_is_saved(const struct block_copy *copy,
                         uint64_t offset,
                         uint64_t bytes);
/* Returns 0 when the range's old content is safe in memory or on the target, or
 * the copy is over; an error only if the guest pays. */
int co_block_copy_save(struct block_copy *copy,
                       uint64_t offset,
                       uint64_t bytes);

/* No new transfers, nothing is saved any more. Idempotent. */
void block_copy_stop(struct block_copy *copy);
/* Has it failed or been stopped? */
bool block_copy_is_over(const struct block_copy *copy);
/* Returns when no transfer is under way. */
void co_block_copy_settle(struct block_copy *copy);

/* 0, or why the copy failed; then `*ret_side` and `*ret_offset` say where. */
int block_copy_error(const struct block_copy *copy,
                     enum block_copy_side *ret_side,
                     uint64_t *ret_offset);

#endif
