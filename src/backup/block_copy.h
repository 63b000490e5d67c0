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
 * a deadline, or saving fails, the copy breaks and the guest goes on.
 *
 *     remaining ──claim──> reading ──> writing ──> done
 *         ^                   │           │
 *         └────── failed ─────┴───────────┘
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
/* Largest piece that is read at once. */
#define BLOCK_COPY_CHUNK_BYTES (UINT64_C(1) << 20)
/* Background transfers under way, and their memory. */
#define BLOCK_COPY_TASKS_MAX       64
#define BLOCK_COPY_IN_FLIGHT_BYTES (UINT64_C(16) << 20)
/* Old content that waits in memory for the target, per copy. */
#define BLOCK_COPY_SAVED_BYTES_MAX (UINT64_C(64) << 20)
/* How long a guest's write waits for room in it before the copy breaks. */
#define BLOCK_COPY_SAVE_WAIT_NS (UINT64_C(5) * 1000000000)

enum block_copy_side {
    BLOCK_COPY_SOURCE,
    BLOCK_COPY_TARGET,
};

struct block_copy_events {
    /* `bytes` more have arrived on the target. */
    void (*copied)(void *opaque, uint64_t bytes);
    /* The first failure. `foreground`: of saving what a guest overwrites. */
    void (*failed)(void *opaque, enum block_copy_side side, bool foreground);
    void *opaque;
};

/* A copy with nothing to do yet: mark what there is in block_copy_remaining().
 * `cluster_bytes` is a power of two. NULL with err set: no memory. */
struct block_copy *block_copy_new(struct block_node *source,
                                  struct block_node *target,
                                  uint64_t cluster_bytes,
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

/* Background: starts the next transfer at or after `*cursor` (moved on), after
 * waiting for room. Returns the bytes it claimed, 0 when there is nothing left
 * or the copy has failed or been stopped. */
uint64_t co_block_copy_step(struct block_copy *copy, uint64_t *cursor);

/* Foreground: is there nothing to save in this range, now? Never waits. */
bool block_copy_is_saved(const struct block_copy *copy,
                         uint64_t offset,
                         uint64_t bytes);
/* Returns when the range's old content is safe in memory or on the target, or
 * the copy has broken. */
void co_block_copy_save(struct block_copy *copy,
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
