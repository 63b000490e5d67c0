/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/bitmap_change.h"

#include "base/error.h"
#include "base/trace.h"
#include "journal/image_bitmaps.h"
#include "loop/coroutine.h"

struct bitmap_change {
    struct job_txn_companion companion;
    enum bitmap_change_kind kind;
    struct block_node *node;
    struct block_user user;
    char *holder;
    struct bitmap *spare; /* CLEAR: the successor; MERGE: the sources' bits */
    struct dirty_bitmap *bitmap; /* once made; on the node */
    bool was_enabled;
    struct durable_part part;
    struct journal_id txid;       /* none: it does not survive a crash */
    bool settled;                 /* by its part */
    struct dirty_bitmap *removed; /* by then; to be freed */
};

static struct bitmap_change *change_of(struct job_txn_companion *companion)
{
    return LIST_ENTRY(companion, struct bitmap_change, companion);
}

static void free_change(struct bitmap_change *change)
{
    block_detach(&change->user);
    bitmap_free(change->spare);
    g_free(change->holder);
    g_free(change);
}

void bitmap_change_free(struct bitmap_change *change)
{
    if (change != NULL) {
        g_assert(change->bitmap == NULL);
        free_change(change);
    }
}

static enum tracker_change tracker_change_of(enum bitmap_change_kind kind)
{
    switch (kind) {
    case BITMAP_CHANGE_ADD: return TRACKER_CHANGE_ADD;
    case BITMAP_CHANGE_REMOVE: return TRACKER_CHANGE_REMOVE;
    case BITMAP_CHANGE_CLEAR: return TRACKER_CHANGE_CLEAR;
    case BITMAP_CHANGE_ENABLE: return TRACKER_CHANGE_ENABLE;
    case BITMAP_CHANGE_DISABLE: return TRACKER_CHANGE_DISABLE;
    case BITMAP_CHANGE_MERGE: return TRACKER_CHANGE_MERGE;
    }
    g_assert_not_reached();
}

static void make_in_memory(struct bitmap_change *change,
                           const GPtrArray *sources)
{
    struct dirty_bitmap *bitmap = change->bitmap;

    switch (change->kind) {
    case BITMAP_CHANGE_CLEAR:
        dirty_bitmap_freeze(bitmap, &change->spare, change->holder);
        return;
    case BITMAP_CHANGE_ENABLE:
        change->was_enabled = dirty_bitmap_is_enabled(bitmap);
        dirty_bitmap_set_enabled(bitmap, true);
        break;
    case BITMAP_CHANGE_MERGE:
        for (guint i = 0; i < sources->len; i++) {
            bitmap_merge(change->spare,
                         dirty_bitmap_bits(g_ptr_array_index(sources, i)));
        }
        break;
    case BITMAP_CHANGE_ADD:
    case BITMAP_CHANGE_REMOVE:
    case BITMAP_CHANGE_DISABLE: break;
    }
    dirty_bitmap_reserve(bitmap, change->holder);
}

void bitmap_change_make(struct bitmap_change *change,
                        struct dirty_bitmap *bitmap,
                        const GPtrArray *sources)
{
    change->bitmap = bitmap;
    make_in_memory(change, sources);
    if (!journal_id_is_none(&change->txid)) {
        /* Enabling what records already changes nothing, as merging nothing
         * does: undone, it must not stop recording. */
        enum tracker_change kind =
            change->kind == BITMAP_CHANGE_ENABLE && change->was_enabled
                ? TRACKER_CHANGE_MERGE
                : tracker_change_of(change->kind);

        tracker_change(tracker_of(change->node), bitmap, kind, &change->txid,
                       change->kind == BITMAP_CHANGE_MERGE ? change->spare
                                                           : NULL);
    }
}

/* Home thread, graph lock held. What is to be freed comes back. */
static struct dirty_bitmap *keep(struct bitmap_change *change)
{
    struct dirty_bitmap *bitmap = change->bitmap;

    if (change->kind == BITMAP_CHANGE_CLEAR) {
        dirty_bitmap_abdicate(bitmap);
        return NULL;
    }
    dirty_bitmap_unreserve(bitmap);
    switch (change->kind) {
    case BITMAP_CHANGE_REMOVE: return dirty_bitmap_detach(bitmap);
    case BITMAP_CHANGE_DISABLE: dirty_bitmap_set_enabled(bitmap, false); break;
    case BITMAP_CHANGE_MERGE:
        bitmap_merge(dirty_bitmap_bits(bitmap), change->spare);
        trace_bitmap_merge(block_name(change->node), dirty_bitmap_name(bitmap),
                           NULL, NULL);
        break;
    case BITMAP_CHANGE_ADD:
    case BITMAP_CHANGE_ENABLE:
    case BITMAP_CHANGE_CLEAR: break;
    }
    return NULL;
}

static struct dirty_bitmap *undo(struct bitmap_change *change)
{
    struct dirty_bitmap *bitmap = change->bitmap;

    if (change->kind == BITMAP_CHANGE_CLEAR) {
        dirty_bitmap_reclaim(bitmap);
        return NULL;
    }
    dirty_bitmap_unreserve(bitmap);
    if (change->kind == BITMAP_CHANGE_ENABLE) {
        dirty_bitmap_set_enabled(bitmap, change->was_enabled);
    }
    return change->kind == BITMAP_CHANGE_ADD ? dirty_bitmap_detach(bitmap)
                                             : NULL;
}

/* Of changes whose outcome nobody knows, those are kept that add bits or
 * recording. */
static bool is_safe_to_keep(enum bitmap_change_kind kind)
{
    return kind == BITMAP_CHANGE_ADD || kind == BITMAP_CHANGE_ENABLE ||
           kind == BITMAP_CHANGE_MERGE;
}

static void settle(struct durable_part *part, enum tracker_outcome outcome)
{
    struct bitmap_change *change = LIST_ENTRY(part, struct bitmap_change, part);
    bool stands = outcome == TRACKER_COMMITTED ||
                  (outcome != TRACKER_ABORTED && is_safe_to_keep(change->kind));

    change->removed = stands ? keep(change) : undo(change);
    change->settled = true;
}

struct durable_part *bitmap_change_make_durable(struct bitmap_change *change,
                                                const struct journal_id *txid)
{
    g_assert(change->bitmap == NULL);
    change->txid = *txid;
    change->part.settle = settle;
    return &change->part;
}

void co_bitmap_forget(struct block_node *node,
                      const struct dirty_bitmap *bitmap)
{
    struct loop *main = loop_current();
    g_autoptr(GError) error = NULL;

    co_move(block_home(node));
    (void)co_image_bitmaps_forget(node, dirty_bitmap_name(bitmap), &error);
    co_move(main);
    if (error != NULL) {
        g_warning("Bitmap '%s' of node '%s' is still in its image, marked as "
                  "being in use: %s",
                  dirty_bitmap_name(bitmap), block_name(node), error->message);
    }
}

static void co_decide(struct bitmap_change *change, bool stands)
{
    struct block_graph *graph = block_graph_of(change->node);
    struct loop *main = loop_current();

    co_block_graph_lock(graph);
    if (!change->settled) {
        co_move(block_home(change->node));
        change->removed = stands ? keep(change) : undo(change);
        co_move(main);
    }
    if (change->removed != NULL) {
        co_bitmap_forget(change->node, change->removed);
    }
    dirty_bitmap_free(change->removed);
    free_change(change);
    block_graph_unlock(graph);
}

static void co_commit(struct job_txn_companion *companion)
{
    co_decide(change_of(companion), true);
}

static void co_abort(struct job_txn_companion *companion)
{
    co_decide(change_of(companion), false);
}

struct bitmap_change *bitmap_change_new(enum bitmap_change_kind kind,
                                        struct block_node *node,
                                        uint64_t granularity_bytes,
                                        const char *holder,
                                        GError **err)
{
    g_autoptr(bitmap_change) change = g_new0(struct bitmap_change, 1);

    change->companion.co_commit = co_commit;
    change->companion.co_abort = co_abort;
    change->kind = kind;
    change->node = node;
    change->holder = g_strdup(holder);
    change->user = (struct block_user){
        .kind = "transaction",
        .id = change->holder,
        .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .on_replace = BLOCK_USER_STAYS,
    };
    if (kind == BITMAP_CHANGE_CLEAR || kind == BITMAP_CHANGE_MERGE) {
        change->spare = bitmap_new(block_size(node), granularity_bytes, err);
        if (change->spare == NULL) {
            return NULL;
        }
    }
    if (block_attach(node, &change->user, err) < 0) {
        return NULL;
    }
    return g_steal_pointer(&change);
}

struct job_txn_companion *bitmap_change_companion(struct bitmap_change *change)
{
    return &change->companion;
}
