/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tracker's life: opening, closing, and what happens when tracking fails.
 *
 * Failure has two steps. What cannot write *breaks* the tracker: nothing but
 * poison may be written from then on, and first touches wait. A coroutine then
 * poisons the file and lets the writes go: the tracker has *failed*. With the
 * verbs' lock it makes the bitmaps inconsistent, too. A guest's write does not fail because
 * tracking does, unless the user wants it so.
 */
#include "journal/tracker.h"

#include <errno.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/trace.h"
#include "block/driver.h"
#include "journal/tracker_priv.h"

#define OVER_MARKING_BYTES   GIB
#define OVER_MARKING_PERMILL 5

static uint64_t choose_region(uint64_t size_bytes)
{
    uint64_t region_bytes = TRACKER_REGION_BYTES_MIN;

    while (size_bytes / region_bytes > TRACKER_REGIONS_MAX) {
        region_bytes *= 2;
    }
    return region_bytes;
}

static void set_region_bytes(struct tracker *tracker, uint64_t region_bytes)
{
    tracker->region_shift = (unsigned int)__builtin_ctzll(region_bytes);
}

static void closing_node(struct block_hook *hook, struct block_node *node)
{
    (void)hook;
    (void)node;
    g_assert_not_reached(); /* whoever opened the tracker closes it before */
}

static void take_options(struct tracker *tracker,
                         const struct tracker_options *options)
{
    uint64_t size_bytes = block_size(tracker->node);

    tracker->storage = options->storage;
    tracker->path = g_strdup(options->path);
    tracker->image_path = g_strdup(options->image_path);
    tracker->state_directory = g_strdup(options->state_directory);
    if (options->stamp != NULL) {
        tracker->has_stamp = true;
        tracker->stamp = *options->stamp;
    }
    tracker->durability = options->durability;
    tracker->outcomes = options->outcomes;
    tracker->over_marking_bytes = options->over_marking_bytes;
    if (tracker->over_marking_bytes == 0) {
        tracker->over_marking_bytes = max_u64(
            OVER_MARKING_BYTES, size_bytes / 1000 * OVER_MARKING_PERMILL);
    }
    set_region_bytes(tracker, options->region_bytes != 0
                                  ? options->region_bytes
                                  : choose_region(size_bytes));
    tracker->checkpoint_ns = options->checkpoint_ns != 0
                                 ? options->checkpoint_ns
                                 : TRACKER_CHECKPOINT_NS;
    tracker->stop_on_error = options->stop_on_error;
    tracker->on_trouble = options->on_trouble;
    tracker->opaque = options->opaque;
}

static void moving(struct block_hook *hook)
{
    struct tracker *tracker = LIST_ENTRY(hook, struct tracker, hook);

    loop_timer_cancel(&tracker->timer);
}

static void moved(struct block_hook *hook)
{
    struct tracker *tracker = LIST_ENTRY(hook, struct tracker, hook);

    if (tracker->intent_count > 0) {
        checkpoint_timer_start(tracker);
    }
}

static int co_resize_begin(struct block_hook *hook,
                           uint64_t new_bytes,
                           GError **err)
{
    struct tracker *tracker = LIST_ENTRY(hook, struct tracker, hook);
    int ret;

    co_tracker_begin(tracker);
    ret = co_tracker_resize_begin(tracker, new_bytes, err);
    if (ret < 0) {
        co_tracker_end(tracker);
    }
    return ret;
}

static void co_resize_end(struct block_hook *hook)
{
    struct tracker *tracker = LIST_ENTRY(hook, struct tracker, hook);

    /* A failure breaks the tracker, which tells of it. */
    (void)co_tracker_resize_end(tracker, NULL);
    co_tracker_end(tracker);
}

static struct tracker *tracker_new(struct block_node *node,
                                   const struct tracker_options *options)
{
    struct tracker *tracker = g_new0(struct tracker, 1);

    tracker->hook.stage = BLOCK_HOOK_INTENT;
    tracker->hook.try_before_write = intent_hook_try;
    tracker->hook.co_before_write = co_intent_hook;
    tracker->hook.node_closing = closing_node;
    tracker->hook.co_resize_begin = co_resize_begin;
    tracker->hook.co_resize_end = co_resize_end;
    tracker->hook.moving = moving;
    tracker->hook.moved = moved;
    list_init(&tracker->hook.link);
    tracker->node = node;
    tracker->next_id = 1;
    list_init(&tracker->entries);
    tracker->acknowledgements =
        g_array_new(FALSE, FALSE, sizeof(struct journal_id));
    tracker->identity.durable_modified_ns = INT64_MIN;
    take_options(tracker, options);
    intent_init(tracker);
    checkpoint_init(tracker);
    co_queue_init(&tracker->poison_over);
    co_queue_init(&tracker->failure_over);
    return tracker;
}

static void co_tracker_free(struct tracker *tracker)
{
    loop_timer_cancel(&tracker->timer);
    block_hook_remove(&tracker->hook);
    while (!list_is_empty(&tracker->entries)) {
        tracked_free(LIST_ENTRY(tracker->entries.next, struct tracked, link));
    }
    co_tracking_file_close(&tracker->spare);
    co_tracking_file_close(&tracker->file);
    intent_release(tracker);
    tracking_superblock_free(tracker->durable);
    g_array_unref(tracker->acknowledgements);
    g_free(tracker->path);
    g_free(tracker->image_path);
    g_free(tracker->state_directory);
    g_free(tracker->reason);
    g_free(tracker);
}

struct tracker *tracker_of(struct block_node *node)
{
    struct block_hook *hook = block_hook_find(node, BLOCK_HOOK_INTENT);

    return hook == NULL ? NULL : LIST_ENTRY(hook, struct tracker, hook);
}

/*
 * Opening.
 */

/* There may have been bitmaps, whose names nobody knows any more. */
static void tell_lost(const struct tracker *tracker, const char *reason)
{
    if (tracker->on_trouble != NULL) {
        tracker->on_trouble(tracker->opaque, tracker->node, reason, true);
    }
}

/* 0, with tracker->file NULL when there is nothing to be opened. */
static int co_open_file(struct tracker *tracker,
                        struct tracking_superblock **ret_superblock,
                        GError **err)
{
    g_autoptr(GError) cause = NULL;
    struct storage_stat found;
    int ret = co_storage_stat(tracker->storage, tracker->path, &found);

    if (ret == -ENOENT) {
        return 0;
    }
    if (ret < 0) {
        return error_set_errno(err, ret,
                               "cannot find out whether there is a tracking "
                               "file '%s'",
                               tracker->path);
    }
    ret = co_tracking_file_open(tracker->storage, tracker->path, &tracker->file,
                                ret_superblock, &cause);
    if (ret == -EINVAL) {
        tell_lost(tracker, cause->message);
        return 0;
    }
    if (ret < 0) {
        g_propagate_error(err, g_steal_pointer(&cause));
        return ret;
    }
    if (*ret_superblock == NULL) {
        tell_lost(tracker, "the tracking file holds no valid superblock");
        co_tracking_file_close(&tracker->file);
    } else if (strcmp((*ret_superblock)->layer,
                      block_driver_of(tracker->node)->name) != 0) {
        co_tracking_file_close(&tracker->file); /* of another node */
    }
    return 0;
}

static int co_open_and_recover(struct tracker *tracker,
                               struct tracking_superblock *superblock,
                               GError **err)
{
    int ret = co_storage_boot_id(tracker->storage, tracker->boot_id);

    if (ret < 0) {
        return error_set_errno(err, ret, "cannot read the boot id");
    }
    tracker->disk_id = tracker->file->layout.disk_id;
    tracker->next_id = superblock->next_bitmap_id;
    set_region_bytes(tracker, tracker->file->layout.region_bytes);
    ret = intent_resize(tracker, tracker->file);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot track node '%s'",
                               block_name(tracker->node));
    }
    ret = co_recovery_load(tracker, superblock, err);
    if (ret < 0) {
        return ret;
    }
    /* In use, not clean: before the first write; durable also in process mode,
     * or after a power cut the file might look as it was closed last. */
    co_tracker_begin(tracker);
    tracker_touch(tracker, false);
    ret = co_checkpoint_flip(tracker, false, err);
    if (ret == 0 && !tracker_syncs(tracker)) {
        /* In both slots: from here on each is overwritten without a sync. What
         * was closed cleanly, or synced, must not count when they are torn. */
        ret = co_checkpoint_flip(tracker, false, err);
    }
    tracker->file->syncs = tracker_syncs(tracker);
    co_tracker_end(tracker);
    return ret;
}

/* Takes what recovery has put on the node off again. */
static void take_back(struct tracker *tracker)
{
    LIST_FOREACH_SAFE(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);
        struct dirty_bitmap *bitmap = entry->bitmap;

        tracked_free(entry);
        if (dirty_bitmap_node(bitmap) != NULL) {
            bitmap = dirty_bitmap_detach(bitmap);
        }
        dirty_bitmap_free(bitmap);
    }
}

static void co_give_up(struct tracker *tracker)
{
    co_tracker_wait_failed(tracker);
    co_intent_wait_idle(tracker);
    take_back(tracker);
    co_tracker_free(tracker);
}

int co_tracker_open(struct block_node *node,
                    const struct tracker_options *options,
                    struct tracker **ret_tracker,
                    GError **err)
{
    struct tracker *tracker = tracker_new(node, options);
    struct tracking_superblock *superblock = NULL;
    int ret = co_open_file(tracker, &superblock, err);

    if (ret < 0 || tracker->file == NULL) {
        tracking_superblock_free(superblock);
        co_tracker_free(tracker);
        if (ret == 0) {
            *ret_tracker = NULL;
        }
        return ret;
    }
    tracker->durable = superblock;
    block_hook_add(node, &tracker->hook);
    trace_tracking_recovery_begin(block_name(node));
    ret = co_open_and_recover(tracker, superblock, err);
    trace_tracking_recovery_end(block_name(node), ret,
                                tracker->recovered_bytes);
    if (ret < 0) {
        g_prefix_error(err, "node '%s': ", block_name(node));
        co_give_up(tracker);
        return ret;
    }
    *ret_tracker = tracker;
    return 0;
}

int co_tracker_create(struct block_node *node,
                      const struct tracker_options *options,
                      struct tracker **ret_tracker,
                      GError **err)
{
    struct tracker *tracker = tracker_new(node, options);
    g_autoptr(GError) cause = NULL;
    int ret = co_storage_boot_id(tracker->storage, tracker->boot_id);

    if (ret == 0 && tracker->image_path != NULL) {
        ret = co_identity_take(tracker->storage, tracker->image_path, NULL,
                               &tracker->identity, &cause);
        if (ret == 0) {
            ret = co_identity_below(tracker->storage, node, false,
                                    &tracker->identity.below, &cause);
        }
    }
    if (ret < 0) {
        error_set_errno(err, ret, "node '%s' cannot be tracked",
                        block_name(node));
        co_tracker_free(tracker);
        return ret;
    }
    tracker->disk_id = journal_id_new();
    tracker->stamps.new_nonce = tracker->stamp.fresh;
    block_hook_add(node, &tracker->hook);
    *ret_tracker = tracker;
    return 0;
}

int co_tracker_stamped(struct tracker *tracker, GError **err)
{
    int ret = 0;

    co_tracker_begin(tracker);
    memset(&tracker->stamps.old_nonce, 0, sizeof(tracker->stamps.old_nonce));
    if (tracker->file != NULL && !tracker->broken) {
        tracker_touch(tracker, false);
        ret = co_checkpoint_flip(tracker, false, err);
    }
    co_tracker_end(tracker);
    return ret;
}

/*
 * Closing.
 */

static int co_close_clean(struct tracker *tracker, GError **err)
{
    int ret;

    tracker->closing = true;
    tracker->file->syncs = true;
    tracker_touch(tracker, true);
    ret = co_checkpoint_flip(tracker, false, err);
    co_intent_wait_idle(tracker);
    if (ret == 0 && tracker->image_path != NULL) {
        ret = co_identity_take(tracker->storage, tracker->image_path,
                               tracker->node, &tracker->identity, err);
        if (ret == 0) {
            ret = co_storage_sync_times(tracker->storage, tracker->image_path);
        }
    }
    if (ret == 0 && tracker->image_path != NULL) {
        ret = co_identity_below(tracker->storage, tracker->node, true,
                                &tracker->identity.below, err);
    }
    if (ret == 0) {
        tracker->identity.durable_modified_ns = tracker->identity.modified_ns;
        ret = co_checkpoint_flip(tracker, true, err);
    }
    return ret;
}

int co_tracker_close(struct tracker **tracker, GError **err)
{
    struct tracker *closed = g_steal_pointer(tracker);
    int ret = 0;

    if (closed == NULL) {
        return 0;
    }
    co_tracker_begin(closed);
    if (closed->file != NULL && !closed->broken) {
        trace_tracking_close_begin(block_name(closed->node));
        ret = co_close_clean(closed, err);
        trace_tracking_close_end(block_name(closed->node), ret);
    }
    co_tracker_end(closed);
    co_intent_wait_idle(closed);
    co_tracker_wait_failed(closed);
    co_tracker_free(closed);
    return ret;
}

/*
 * Failing.
 */

static bool co_poison_files(struct tracker *tracker)
{
    bool durable = true;

    if (tracker->spare != NULL && tracker->spare->is_published) {
        durable = co_tracking_file_poison(tracker->spare, tracker->durable,
                                          tracker->reason,
                                          tracker->state_directory) == 0;
    }
    if (tracker->file != NULL) {
        durable &= co_tracking_file_poison(tracker->file, tracker->durable,
                                           tracker->reason,
                                           tracker->state_directory) == 0;
    }
    return durable;
}

/* The verbs' lock is not needed for the file: a verb may be waiting, with the
 * lock, for the very writes that wait for this. */
static bool co_poison(struct tracker *tracker)
{
    bool durable;

    co_intent_wait_idle(tracker);
    while (tracker->flipping) {
        co_queue_wait(&tracker->flip_over);
    }
    durable = co_poison_files(tracker);
    tracker->poisoned = durable;
    tracker->stops = !durable && tracker->stop_on_error;
    tracker->failed = true;
    trace_tracking_poisoned(block_name(tracker->node), durable, tracker->stops);
    intent_wake(tracker);
    co_queue_wake_all(&tracker->poison_over);
    return durable;
}

bool co_tracker_poison_again(struct tracker *tracker)
{
    if (!tracker->poisoned && co_poison_files(tracker)) {
        tracker->poisoned = true;
        tracker->stops = false;
        trace_tracking_poisoned(block_name(tracker->node), true, false);
    }
    return tracker->poisoned;
}

static void co_fail(void *opaque)
{
    struct tracker *tracker = opaque;
    bool durable = co_poison(tracker);

    co_mutex_lock(&tracker->lock);
    LIST_FOREACH(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        if (!entry->gone) {
            dirty_bitmap_set_inconsistent(entry->bitmap, tracker->reason);
        }
    }
    tracker->poisoning = false;
    co_mutex_unlock(&tracker->lock);
    if (tracker->on_trouble != NULL) {
        tracker->on_trouble(tracker->opaque, tracker->node, tracker->reason,
                            durable);
    }
    co_queue_wake_all(&tracker->failure_over);
    block_background_end(tracker->node);
}

void tracker_break(struct tracker *tracker, const char *format, ...)
{
    va_list arguments;

    if (tracker->broken) {
        return;
    }
    va_start(arguments, format);
    tracker->reason = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    tracker->broken = true;
    tracker->poisoning = true;
    trace_tracking_failed(block_name(tracker->node), tracker->reason,
                          tracker->path);
    block_background_begin(tracker->node);
    co_spawn(loop_current(), co_fail, tracker);
}

void co_tracker_wait_poisoned(struct tracker *tracker)
{
    while (tracker->broken && !tracker->failed) {
        co_queue_wait(&tracker->poison_over);
    }
}

void co_tracker_wait_failed(struct tracker *tracker)
{
    while (tracker->poisoning) {
        co_queue_wait(&tracker->failure_over);
    }
}

/*
 * Verbs: the frame.
 */

bool tracker_syncs(const struct tracker *tracker)
{
    return tracker->durability == TRACKER_POWER || tracker->closing;
}

void co_tracker_begin(struct tracker *tracker)
{
    co_mutex_lock(&tracker->lock);
}

void co_tracker_end(struct tracker *tracker)
{
    /* One that is wanted waits for the flip: a bitmap was added, undecided. */
    if (tracker->spare != NULL && !tracker->spare_wanted) {
        co_tracking_file_close(&tracker->spare);
    }
    tracker->reserved_pages = 0;
    tracker->reserved_bitmaps = 0;
    co_mutex_unlock(&tracker->lock);
}

/* Pages for P and for S, and once more until the old ones are free: a pair that
 * was undone and frozen anew between two flips has changed in both. */
#define PAGE_COPIES 4

void tracker_needs(const struct tracker *tracker,
                   uint64_t size_bytes,
                   struct tracking_needs *ret)
{
    uint64_t pages = tracker->reserved_pages;
    uint64_t bytes = 1024; /* what stands before the bitmaps, and a reason */

    bytes += tracker->reserved_pages * 16;
    bytes += tracker->reserved_bitmaps *
             tracked_bitmap_encoded_bytes(0, true, LIMIT_BITMAP_NAME_BYTES,
                                          TRACKING_REASON_BYTES_MAX);
    LIST_FOREACH(link, &tracker->entries) {
        const struct tracked *entry = LIST_ENTRY(link, struct tracked, link);
        uint64_t set_pages;

        if (entry->gone) {
            continue;
        }
        set_pages = tracking_set_pages(
            size_bytes, (unsigned int)__builtin_ctzll(
                            dirty_bitmap_granularity_bytes(entry->bitmap)));
        pages += set_pages;
        bytes += tracked_bitmap_encoded_bytes(
            (uint32_t)set_pages, true, strlen(dirty_bitmap_name(entry->bitmap)),
            TRACKING_REASON_BYTES_MAX);
    }
    *ret = (struct tracking_needs){
        .disk_id = tracker->disk_id,
        .region_bytes = UINT64_C(1) << tracker->region_shift,
        .region_count = max_u64(
            divide_round_up(size_bytes, UINT64_C(1) << tracker->region_shift),
            1),
        .superblock_bytes = bytes,
        .page_count = pages * PAGE_COPIES,
    };
}

const struct journal_id *tracker_disk_id(const struct tracker *tracker)
{
    return &tracker->disk_id;
}

const char *tracker_path(const struct tracker *tracker)
{
    return tracker->path;
}

const char *tracker_reason(const struct tracker *tracker)
{
    return tracker->reason;
}

uint64_t tracker_intents(const struct tracker *tracker)
{
    return tracker->intent_count;
}
