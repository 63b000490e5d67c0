/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The steps of verbs that wait: making room, and making durable what was told.
 */
#include <errno.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/trace.h"
#include "journal/tracker_priv.h"

int co_tracker_make_room(struct tracker *tracker,
                         uint64_t size_bytes,
                         GError **err)
{
    struct tracking_needs needs;

    tracker_needs(tracker, size_bytes, &needs);
    if (needs.superblock_bytes > TRACKING_SLOT_BYTES_MAX ||
        needs.page_count > UINT32_MAX) {
        return error_set(err, -EFBIG,
                         "the persistent bitmaps of node '%s' would be too "
                         "many or too fine to be stored",
                         block_name(tracker->node));
    }
    if (tracker->spare == NULL && tracker->file != NULL &&
        tracking_file_fits(tracker->file, &needs)) {
        return 0;
    }
    if (tracker->spare != NULL && tracking_file_fits(tracker->spare, &needs)) {
        return 0;
    }
    co_tracking_file_close(&tracker->spare);
    /* Synced in process mode, too: that there are bitmaps is not to be lost. */
    return co_tracking_file_create(tracker->storage, tracker->path, &needs,
                                   &tracker->spare, err);
}

int co_tracker_reserve(struct tracker *tracker,
                       uint64_t granularity_bytes,
                       GError **err)
{
    uint64_t size_bytes = block_size(tracker->node);

    g_assert(tracker->lock.locked);
    if (tracker->broken) {
        return error_set(err, -EIO,
                         "Node '%s' cannot get a persistent bitmap: tracking "
                         "has failed (%s). Close the node and open it again",
                         block_name(tracker->node), tracker->reason);
    }
    tracker->reserved_pages += tracking_set_pages(
        size_bytes, (unsigned int)__builtin_ctzll(granularity_bytes));
    tracker->reserved_bitmaps++;
    return co_tracker_make_room(tracker, size_bytes, err);
}

int co_tracker_commit(struct tracker *tracker, GError **err)
{
    int ret;

    g_assert(tracker->lock.locked);
    if (tracker->change_sequence == tracker->durable_changes) {
        return 0;
    }
    if (tracker->failed && co_tracker_poison_again(tracker)) {
        return 0; /* what is inconsistent was removed; until the next opening,
                     which finds it so again */
    }
    ret = co_checkpoint_flip(tracker, false, err);
    if (ret < 0) {
        tracker_break(tracker, "a change of it could not be stored: %s",
                      g_strerror(-ret));
        /* The change may be durable or not; the answer must not be undone. */
        co_tracker_wait_poisoned(tracker);
        g_prefix_error(err,
                       "The persistent bitmaps of node '%s' are inconsistent "
                       "now: ",
                       block_name(tracker->node));
    }
    return ret;
}

int co_tracker_checkpoint(struct tracker *tracker, GError **err)
{
    int ret;

    co_tracker_begin(tracker);
    ret = co_checkpoint_flip(tracker, false, err);
    co_tracker_end(tracker);
    return ret;
}

int co_tracker_prepare(struct tracker *tracker,
                       const struct journal_id *txid,
                       const struct log_segment *segment,
                       GError **err)
{
    bool found = false;
    int ret = 0;

    g_assert(tracker->lock.locked);
    trace_tracking_prepare_begin(block_name(tracker->node));
    if (tracker->acknowledgements->len > 0) {
        ret = co_checkpoint_flip(tracker, false, err);
    }
    LIST_FOREACH(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        if (!entry->gone && entry->change.kind != TRACKER_CHANGE_NONE &&
            journal_id_equal(&entry->change.txid, txid)) {
            entry->change.state = TRACKED_PREPARED;
            entry->change.segment = *segment;
            found = true;
        }
    }
    g_assert(found);
    tracker_touch(tracker, true);
    if (ret == 0) {
        ret = co_checkpoint_flip(tracker, false, err);
    }
    trace_tracking_prepare_end(block_name(tracker->node), ret);
    return ret;
}

/*
 * Resizing.
 */

int co_tracker_resize_begin(struct tracker *tracker,
                            uint64_t new_bytes,
                            GError **err)
{
    uint64_t old_bytes = block_size(tracker->node);
    int ret;

    g_assert(tracker->lock.locked && !tracker->is_resizing);
    if (tracker->broken || tracker->file == NULL) {
        return 0; /* nothing to be kept true */
    }
    trace_tracking_resize_begin(block_name(tracker->node), old_bytes,
                                new_bytes);
    ret = co_tracker_make_room(tracker, max_u64(old_bytes, new_bytes), err);
    if (ret < 0) {
        return ret;
    }
    tracker->spare_wanted = tracker->spare != NULL;
    tracker->is_resizing = true;
    tracker->resize_old_bytes = old_bytes;
    tracker->resize_new_bytes = new_bytes;
    tracker_touch(tracker, false);
    ret = co_checkpoint_flip(tracker, false, err);
    if (ret < 0) {
        tracker->is_resizing = false;
        co_tracker_wait_poisoned(tracker);
    }
    return ret;
}

int co_tracker_resize_end(struct tracker *tracker, GError **err)
{
    int ret;

    g_assert(tracker->lock.locked);
    if (!tracker->is_resizing) {
        return 0;
    }
    tracker->is_resizing = false;
    tracker->resize_old_bytes = 0;
    tracker->resize_new_bytes = 0;
    /* The image is flushed before the record goes. */
    tracker_touch(tracker, true);
    ret = co_tracker_commit(tracker, err);
    trace_tracking_resize_end(block_name(tracker->node));
    return ret;
}
