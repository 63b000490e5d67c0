/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A flip makes what is in memory durable, all of it at once:
 *
 *     capture (no yield): what bitmaps are there, which of their pages differ
 *             from the durable ones, copies of those
 *     the image is flushed, if a bitmap has lost bits
 *     changed pages are written to pages that no durable superblock names; sync
 *             (at a close in process mode: also of pages that did not change)
 *     the superblock is written to the other slot; sync          <- durable
 *     shadows, intents, acknowledgements follow
 *
 * What is written to the image meanwhile sets bits and intents as always, and is
 * in the next one. When the file has to be replaced (a bitmap was added, the disk
 * has grown) all pages and the intent map go to the new file before its
 * superblock; first touches wait until the new file has the name.
 *
 * Failures: writing a page has no effect on what counts, and may be tried again.
 * A failed sync, or anything that goes wrong with a superblock, breaks the
 * tracker.
 */
#include <errno.h>

#include "base/error.h"
#include "base/trace.h"
#include "block/driver.h"
#include "journal/checkpoint_priv.h"

/*
 * Writing.
 */

static int co_write_pages(struct capture *capture)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < capture->pages->len; i++) {
        const struct captured_page *page = g_ptr_array_index(capture->pages, i);

        ret = co_tracking_file_write_page(capture->file, page->number,
                                          page->bytes);
    }
    return ret;
}

/* The image's modification time from before it is durable after it. A flush of the
 * node is not enough for that: where nothing but data has changed fdatasync()
 * leaves the times for later. */
static int co_flush_image(struct tracker *tracker)
{
    struct storage_stat found;
    bool known =
        tracker->image_path != NULL &&
        co_storage_stat(tracker->storage, tracker->image_path, &found) == 0;
    int ret = co_block_child_flush(tracker->node);

    if (ret == 0 && known &&
        co_storage_sync_times(tracker->storage, tracker->image_path) == 0) {
        tracker->identity.durable_modified_ns = found.modified_ns;
    }
    return ret;
}

static void page_set_take(struct page_set *set,
                          const struct tracked_bitmap *bitmap,
                          enum tracked_set which,
                          uint64_t word_count)
{
    if (set->shadow == NULL || set->word_count != word_count) {
        page_set_release(set);
        set->shadow = g_try_new0(uint64_t, word_count);
        set->word_count = word_count;
    }
    g_free(set->pages);
    set->page_count = bitmap->page_count;
    set->pages = g_memdup2(bitmap->pages[which],
                           bitmap->page_count * sizeof(*set->pages));
}

/* The shadow of a page that has become all clear, or is copied below. */
static void shadow_forget(struct page_set *set)
{
    for (uint32_t i = 0; set->shadow != NULL && i < set->page_count; i++) {
        uint64_t first = (uint64_t)i * TRACKING_PAGE_WORDS;

        if (set->pages[i].number == 0) {
            memset(set->shadow + first, 0,
                   min_u64(set->word_count - first, TRACKING_PAGE_WORDS) *
                       sizeof(*set->shadow));
        }
    }
}

static void shadow_page(const struct captured_page *page)
{
    struct page_set *set = &page->entry->sets[page->set];
    uint64_t first = page->index * TRACKING_PAGE_WORDS;

    if (set->shadow == NULL) {
        return; /* no memory: each page will be written again, that is all */
    }
    for (uint64_t i = 0; i < TRACKING_PAGE_WORDS && first + i < set->word_count;
         i++) {
        set->shadow[first + i] = load_le64(page->bytes + 32 + 8 * i);
    }
}

/* What is durable now is what was captured. */
static void take_shadows(struct capture *capture)
{
    for (guint i = 0; i < capture->entries->len; i++) {
        struct tracked *entry = g_ptr_array_index(capture->entries, i);
        const struct tracked_bitmap *bitmap =
            g_ptr_array_index(capture->superblock->bitmaps, i);
        uint64_t segments =
            divide_round_up(capture->superblock->size_bytes,
                            UINT64_C(1) << bitmap->granularity_shift);

        for (int set = 0; set < TRACKED_SETS; set++) {
            if (bitmap->pages[set] == NULL) {
                page_set_release(&entry->sets[set]);
                continue;
            }
            page_set_take(&entry->sets[set], bitmap, (enum tracked_set)set,
                          divide_round_up(segments, 64));
            shadow_forget(&entry->sets[set]);
        }
    }
    for (guint i = 0; i < capture->pages->len; i++) {
        shadow_page(g_ptr_array_index(capture->pages, i));
    }
}

static void sweep_gone(struct tracker *tracker)
{
    LIST_FOREACH_SAFE(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        if (entry->gone) {
            tracked_free(entry);
        }
    }
}

static void co_acknowledge(struct tracker *tracker, guint count)
{
    g_autoptr(GArray) settled =
        g_array_new(FALSE, FALSE, sizeof(struct journal_id));

    g_array_append_vals(settled, tracker->acknowledgements->data, count);
    g_array_remove_range(tracker->acknowledgements, 0, count);
    for (guint i = 0; i < settled->len && tracker->outcomes != NULL; i++) {
        tracker->outcomes->co_acknowledge(
            tracker->outcomes, &g_array_index(settled, struct journal_id, i),
            &tracker->disk_id);
    }
}

/* With either of two bases the outcome may still be asked for. */
static bool is_settled(const struct tracking_superblock *superblock)
{
    for (guint i = 0; i < superblock->bitmaps->len; i++) {
        const struct tracked_bitmap *bitmap =
            g_ptr_array_index(superblock->bitmaps, i);

        if (bitmap->change.state == TRACKED_PREPARED ||
            bitmap->base.kind == BITMAP_BASE_EITHER) {
            return false;
        }
    }
    return true;
}

/* A process before this one may have died when a transaction was settled here, but
 * before the log knew. */
static void co_acknowledge_dead_runs(struct tracker *tracker)
{
    if (tracker->said_settled || tracker->outcomes == NULL ||
        !is_settled(tracker->durable)) {
        return;
    }
    tracker->said_settled = true;
    tracker->outcomes->co_acknowledge(tracker->outcomes, NULL,
                                      &tracker->disk_id);
}

/* The superblock is durable. */
static void co_finish(struct tracker *tracker, struct capture *capture)
{
    take_shadows(capture);
    tracking_superblock_free(tracker->durable);
    tracker->durable = g_steal_pointer(&capture->superblock);
    tracker->durable_changes = capture->changes;
    if (capture->changes == tracker->change_sequence) {
        sweep_gone(tracker);
        tracker->needs_flush = false;
        intent_clear(tracker);
    }
    tracker_update_needs(tracker);
    if (capture->acknowledgements > 0) {
        co_acknowledge(tracker, capture->acknowledgements);
    }
    co_acknowledge_dead_runs(tracker);
}

/* To the file that is there. */
static int co_flip_in_place(struct tracker *tracker,
                            struct capture *capture,
                            GError **err)
{
    const char *path = tracker->file->path;
    int ret = co_write_pages(capture);

    if (ret < 0) {
        tracking_file_use_pages(capture->file, tracker->durable);
        return error_set_errno(err, ret, "cannot write tracking file '%s'",
                               path);
    }
    if (capture->pages->len > 0 || capture->file->has_unsynced_pages) {
        ret = co_tracking_file_sync(capture->file);
    }
    if (ret == 0 && !tracker->broken) {
        trace_tracking_flip_pages(block_name(tracker->node),
                                  capture->pages->len);
        ret = co_tracking_file_flip(capture->file, capture->superblock);
    }
    if (tracker->broken) {
        return error_set(err, -EIO, "%s", tracker->reason);
    }
    if (ret < 0) {
        tracker_break(tracker, "its tracking file cannot be written: %s",
                      g_strerror(-ret));
        return error_set_errno(err, ret, "cannot write tracking file '%s'",
                               path);
    }
    return 0;
}

/* The intents of the old file go on in the new one. */
static void copy_map(struct tracker *tracker)
{
    const struct tracking_file *old = tracker->file;
    uint64_t sectors;

    if (old == NULL) {
        return;
    }
    sectors = min_u64(old->layout.intent_sectors,
                      tracker->spare->layout.intent_sectors);
    memcpy(tracker->spare->map, old->map, sectors * STORAGE_SECTOR_BYTES);
    memcpy(tracker->spare->sector_sequences, old->sector_sequences,
           sectors * sizeof(uint64_t));
}

static int co_write_new_file(struct capture *capture)
{
    struct tracking_file *file = capture->file;
    int ret = co_write_pages(capture);

    if (ret == 0) {
        ret = co_tracking_file_write_sectors(file, 0,
                                             file->layout.intent_sectors);
    }
    if (ret == 0) {
        ret = co_tracking_file_sync(file);
    }
    return ret == 0 ? co_tracking_file_flip(file, capture->superblock) : ret;
}

/* With the spare file, first touches held. Until it is renamed the old file
 * counts and nothing has happened. */
static int co_flip_to_spare(struct tracker *tracker,
                            struct capture *capture,
                            GError **err)
{
    struct tracking_file *spare = tracker->spare;
    int ret = co_write_new_file(capture);

    if (ret == 0) {
        trace_tracking_flip_pages(block_name(tracker->node),
                                  capture->pages->len);
        ret = intent_resize(tracker, spare);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot write tracking file '%s.new'",
                               spare->path);
    }
    ret = co_tracking_file_publish(spare);
    if (ret < 0) {
        if (spare->is_published) {
            tracker_break(tracker,
                          "it is not certain which tracking file has the name "
                          "'%s': %s",
                          spare->path, g_strerror(-ret));
        }
        return error_set_errno(err, ret, "cannot rename tracking file '%s.new'",
                               spare->path);
    }
    co_tracking_file_close(&tracker->file);
    tracker->file = g_steal_pointer(&tracker->spare);
    tracker->file->syncs = tracker_syncs(tracker);
    tracker->spare_wanted = false;
    return 0;
}

/* Does a kill take writes back that are over? Then a bitmap may lose their bits
 * only when the image has been flushed, also in process mode. */
static bool writes_late(const struct tracker *tracker)
{
    const struct block_node *node = tracker->node;

    while (node != NULL && !block_driver_of(node)->writes_late) {
        node = block_child(node, "file");
    }
    return node != NULL;
}

static void hold(struct tracker *tracker)
{
    tracker->holding = true;
}

static void release(struct tracker *tracker)
{
    tracker->holding = false;
    intent_wake(tracker);
}

static int co_flip_captured(struct tracker *tracker,
                            struct capture *capture,
                            bool clean,
                            GError **err)
{
    int ret = capture_all(tracker, capture, clean);

    if (ret < 0) {
        if (capture->file == tracker->file) {
            tracking_file_use_pages(capture->file, tracker->durable);
        }
        return error_set_errno(err, ret, "cannot store the bitmaps of '%s'",
                               block_name(tracker->node));
    }
    if (capture->flushes && (tracker_syncs(tracker) || writes_late(tracker))) {
        ret = co_flush_image(tracker);
        if (ret < 0) {
            tracker_break(tracker,
                          "the image could not be flushed when bits were "
                          "cleared: %s",
                          g_strerror(-ret));
            return error_set_errno(err, ret, "cannot flush node '%s'",
                                   block_name(tracker->node));
        }
        capture->superblock->identity = tracker->identity;
    }
    return capture->file == tracker->file
               ? co_flip_in_place(tracker, capture, err)
               : co_flip_to_spare(tracker, capture, err);
}

/* A spare that could not be synced is made anew: what is in memory may need the
 * room. */
static int co_renew_spare(struct tracker *tracker, GError **err)
{
    uint64_t size_bytes = block_size(tracker->node);

    if (tracker->is_resizing) {
        size_bytes = max_u64(size_bytes, tracker->resize_new_bytes);
    }
    return co_tracker_make_room(tracker, size_bytes, err);
}

int co_checkpoint_flip(struct tracker *tracker, bool clean, GError **err)
{
    struct capture capture = { .file = tracker->file };
    uint64_t begun_ns = loop_now_ns();
    bool to_spare;
    int ret = 0;

    g_assert(tracker->lock.locked);
    if (tracker->broken) {
        return error_set(err, -EIO, "%s", tracker->reason);
    }
    if (tracker->spare_wanted &&
        (tracker->spare == NULL || tracker->spare->failed_syncs > 0)) {
        ret = co_renew_spare(tracker, err);
    }
    if (ret < 0) {
        return ret;
    }
    to_spare = tracker->spare != NULL && tracker->spare_wanted;
    if (to_spare) {
        capture.file = tracker->spare;
    }
    if (capture.file == NULL) {
        return 0; /* nothing was ever added */
    }
    trace_tracking_flip_begin(block_name(tracker->node));
    tracker->flipping = true;
    if (to_spare) {
        hold(tracker);
        co_intent_wait_idle(tracker);
        copy_map(tracker);
        capture.file->sequence =
            tracker->file == NULL ? 0 : tracker->file->sequence;
    }
    ret = co_flip_captured(tracker, &capture, clean, err);
    if (ret == 0) {
        trace_tracking_checkpoint(block_name(tracker->node),
                                  tracker->file->sequence, capture.pages->len,
                                  loop_now_ns() - begun_ns, clean);
        co_finish(tracker, &capture);
    }
    capture_release(&capture);
    trace_tracking_flip_end(block_name(tracker->node), ret);
    tracker->flipping = false;
    co_queue_wake_all(&tracker->flip_over);
    if (to_spare) {
        release(tracker);
    }
    return ret;
}

/*
 * In the background.
 */

static void co_checkpoint(void *opaque)
{
    struct tracker *tracker = opaque;

    /* Failing is no trouble here: intents stay, and if it was worse than that
     * the tracker is broken and says so itself. */
    (void)co_checkpoint_flip(tracker, false, NULL);
    tracker->checkpointing = false;
    co_mutex_unlock(&tracker->lock);
    co_queue_wake_all(&tracker->checkpoint_over);
    block_background_end(tracker->node);
}

void checkpoint_start(struct tracker *tracker)
{
    if (tracker->checkpointing || tracker->lock.locked || tracker->broken ||
        tracker->file == NULL) {
        return; /* a verb makes a checkpoint itself */
    }
    tracker->lock.locked = true;
    tracker->checkpointing = true;
    loop_timer_cancel(&tracker->timer);
    block_background_begin(tracker->node);
    co_spawn(loop_current(), co_checkpoint, tracker);
}

static void timer_fired(struct loop_timer *timer)
{
    struct tracker *tracker = LIST_ENTRY(timer, struct tracker, timer);

    if (tracker->lock.locked) {
        checkpoint_timer_start(tracker); /* a verb: later */
    } else {
        checkpoint_start(tracker);
    }
}

void checkpoint_timer_start(struct tracker *tracker)
{
    if (tracker->timer.loop == NULL) {
        loop_timer_start(&tracker->timer,
                         loop_now_ns() + tracker->checkpoint_ns);
    }
}

void checkpoint_init(struct tracker *tracker)
{
    co_mutex_init(&tracker->lock);
    co_queue_init(&tracker->flip_over);
    co_queue_init(&tracker->checkpoint_over);
    loop_timer_init(&tracker->timer, timer_fired);
}
