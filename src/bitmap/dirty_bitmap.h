/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Dirty bitmaps: bits with a name, on a node, that record its writes.
 *
 * All bitmaps of a node form its set; the set is a hook of stage
 * BLOCK_HOOK_BITMAP and sets bits before any write, zeroing or discard reaches
 * the image, whoever makes it.
 *
 * A job that reads a bitmap P freezes it. P then keeps still and is busy, and
 * an anonymous successor S of the same granularity records in its stead (if P
 * was recording). There are two ways out and no third:
 *
 *     abdicate (success)         P's bits go, S's bits stay:      P := S
 *     reclaim (failure, cancel)  nothing is lost:                 P := P OR S
 *
 * so the name and the struct dirty_bitmap live through both; what changes is
 * which bits they hold.
 *
 * Bitmaps follow their disk's size. What a disk grows by is dirty (in the
 * successor, while frozen). A bitmap that would pass LIMIT_BITMAP_BYTES then
 * gets a coarser granularity; growing never fails for a bitmap's sake.
 *
 * Threads: everything here belongs to the node's home thread; the main thread
 * may use it while the node is fenced. Functions never yield.
 */
#ifndef BITMAP_DIRTY_BITMAP_H
#define BITMAP_DIRTY_BITMAP_H

#include "base/json.h"
#include "bitmap/bitmap.h"
#include "block/node.h"

typedef struct dirty_bitmap dirty_bitmap;
struct dirty_bitmap;

/* Makes a bitmap for a node of `size_bytes`, not on it yet; owned by the
 * caller. Any thread. `granularity_bytes` 0: the default (the node's cluster
 * size within 4..64 KiB, 64 KiB if it has none). Refuses illegal names and
 * granularities. */
struct dirty_bitmap *dirty_bitmap_new(const struct block_node *node,
                                      const char *name,
                                      uint64_t granularity_bytes,
                                      bool disabled,
                                      GError **err);
/* Not on a node, not frozen. */
void dirty_bitmap_free(struct dirty_bitmap *bitmap);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(dirty_bitmap, dirty_bitmap_free)

/* Makes sure that the node has a set, so that later attaching cannot fail. */
void dirty_bitmap_prepare_node(struct block_node *node);
/* Puts the bitmap on the node, which owns it from now on: it records (if
 * enabled) from here. The name must be free (assertion). */
void dirty_bitmap_attach(struct block_node *node, struct dirty_bitmap **bitmap);
/* Takes it off the node again; owned by the caller. */
struct dirty_bitmap *dirty_bitmap_detach(struct dirty_bitmap *bitmap);
/* Frees all bitmaps of a node; none may be busy. A node that is being closed
 * does this by itself. */
void dirty_bitmap_release_node(struct block_node *node);

/* By name; NULL: none. */
struct dirty_bitmap *dirty_bitmap_find(struct block_node *node,
                                       const char *name);
/* Walk a node's bitmaps, oldest first; NULL to begin, NULL at the end. */
struct dirty_bitmap *dirty_bitmap_next(struct block_node *node,
                                       struct dirty_bitmap *bitmap);

const char *dirty_bitmap_name(const struct dirty_bitmap *bitmap);
struct block_node *dirty_bitmap_node(const struct dirty_bitmap *bitmap);
uint64_t dirty_bitmap_granularity_bytes(const struct dirty_bitmap *bitmap);
/* Does it (or its successor) record new writes? */
bool dirty_bitmap_is_enabled(const struct dirty_bitmap *bitmap);

/* Busy: frozen, or held by an export or job; then it may not be changed,
 * removed, merged or used by another. The holder is named in refusals. */
bool dirty_bitmap_is_busy(const struct dirty_bitmap *bitmap);
/* `holder`: the id of the job or export, as the client knows it. */
void dirty_bitmap_set_busy(struct dirty_bitmap *bitmap,
                           const char *holder); /* borrowed; NULL: not busy */
/* As busy, and in addition to it: a reserved bitmap may still be frozen by
 * a job of the group that reserved it, and stays reserved after. `holder` as above. */
void dirty_bitmap_reserve(struct dirty_bitmap *bitmap, const char *holder);
void dirty_bitmap_unreserve(struct dirty_bitmap *bitmap);
/* 0, or -EBUSY with a sentence that names bitmap, node and holder. */
int dirty_bitmap_check_free(const struct dirty_bitmap *bitmap, GError **err);

void dirty_bitmap_set_enabled(struct dirty_bitmap *bitmap, bool enabled);
/* The bits that the name stands for (P's while frozen); borrowed. */
struct bitmap *dirty_bitmap_bits(struct dirty_bitmap *bitmap);

/*
 * Persistence. What makes bitmaps persistent is above this room
 * (journal/tracker.h); here it is only known which are, and shown.
 */
void dirty_bitmap_set_persistent(struct dirty_bitmap *bitmap, bool persistent);
bool dirty_bitmap_is_persistent(const struct dirty_bitmap *bitmap);
/* It is not to be believed, and why (copied). It stops recording, is refused to
 * whoever wants to use it, and can only be removed. */
void dirty_bitmap_set_inconsistent(struct dirty_bitmap *bitmap,
                                   const char *reason);
/* NULL: it is consistent. Borrowed. */
const char *dirty_bitmap_reason(const struct dirty_bitmap *bitmap);
/* As dirty_bitmap_check_free(); also refuses (-ESTALE) an inconsistent one. */
int dirty_bitmap_check_usable(const struct dirty_bitmap *bitmap, GError **err);
/* More members for its entry in dirty_bitmap_query(); consumed, NULL: none. */
void dirty_bitmap_set_details(struct dirty_bitmap *bitmap,
                              struct json_value **details);

/* Told after each step that is not the setting of a bit, on the thread that made
 * it. One per bitmap, borrowed; NULL: none. */
enum dirty_bitmap_step {
    DIRTY_BITMAP_FROZEN,
    DIRTY_BITMAP_ABDICATED,
    DIRTY_BITMAP_RECLAIMED,
    DIRTY_BITMAP_SWITCHED, /* recording or not */
};

struct dirty_bitmap_observer {
    void (*changed)(struct dirty_bitmap_observer *observer,
                    struct dirty_bitmap *bitmap,
                    enum dirty_bitmap_step step);
};

void dirty_bitmap_set_observer(struct dirty_bitmap *bitmap,
                               struct dirty_bitmap_observer *observer);

/* Freezing. The successor's bits are made beforehand, so that the cut itself
 * cannot fail: `*successor` (same size and granularity, clear) is consumed.
 * The bitmap is busy, held by `holder`, until one of the two ways out. */
void dirty_bitmap_freeze(struct dirty_bitmap *bitmap,
                         struct bitmap **successor,
                         const char *holder);
/* What records while it is frozen; NULL: it is not. Borrowed. */
struct bitmap *dirty_bitmap_successor(struct dirty_bitmap *bitmap);
bool dirty_bitmap_is_frozen(const struct dirty_bitmap *bitmap);
void dirty_bitmap_abdicate(struct dirty_bitmap *bitmap);
void dirty_bitmap_reclaim(struct dirty_bitmap *bitmap);

/* The `dirty-bitmaps` member of BlockDeviceInfo: a new list (a frozen bitmap
 * shows its successor as a second entry without a name), NULL if there are
 * none. */
struct json_value *dirty_bitmap_query(struct block_node *node);

#endif
