/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a crash, or a clean close, has left: docs/reference/tracking-file.md,
 * "What a crash leaves". In this order:
 *
 *   1. May the file be believed at all?
 *   2. What was read is written once more and synced, before anything else is
 *      written anywhere. It may never have reached the disk, not even when it
 *      says that it was closed cleanly.
 *   3. Is the image the one that the file is about?
 *   4. Each bitmap: its pages, the intents, the size, the verdict.
 *
 * What the file may not be believed about becomes inconsistent, with the reason.
 * The caller flips: until then nothing has changed, and a crash in here finds
 * what the one before has left.
 */
#include <errno.h>

#include "base/error.h"
#include "base/trace.h"
#include "block/driver.h"
#include "journal/tracker_priv.h"

struct recovery {
    struct tracker *tracker;
    struct tracking_superblock *superblock;
    bool same_boot;
    char *reason; /* why nothing may be believed; NULL: it may */
};

/*
 * May it be believed?
 */

static int co_check_file(struct recovery *recovery, GError **err)
{
    const struct tracker *tracker = recovery->tracker;
    const struct tracking_superblock *superblock = recovery->superblock;
    bool tombstoned = false;
    int ret = co_tracking_file_is_tombstoned(tracker->storage,
                                             tracker->state_directory,
                                             &tracker->disk_id, &tombstoned);

    if (ret < 0) {
        return error_set_errno(err, ret, "cannot look into '%s'",
                               tracker->state_directory);
    }
    if (tombstoned) {
        recovery->reason = g_strdup("tracking failed, and its file could not "
                                    "be written");
    } else if (superblock->is_poisoned) {
        recovery->reason = g_strdup(superblock->reason);
    } else if (superblock->is_process && !superblock->is_clean &&
               !recovery->same_boot) {
        recovery->reason = g_strdup("it was kept with durability=process, and "
                                    "the machine has been restarted since");
    }
    return 0;
}

/* A superblock older than a cleared intent is not the one that counted. What is
 * lost is lost once: superblocks to come are newer than any sector. */
static void check_sequences(struct recovery *recovery)
{
    struct tracking_file *file = recovery->tracker->file;

    for (uint64_t i = 0; i < file->layout.intent_sectors; i++) {
        if (file->sector_sequences[i] <= recovery->superblock->sequence) {
            continue;
        }
        file->sequence = max_u64(file->sequence, file->sector_sequences[i]);
        if (recovery->reason == NULL) {
            recovery->reason =
                g_strdup("its newest state was lost from the tracking file");
        }
    }
}

static int co_check_identity(struct recovery *recovery,
                             struct identity *found,
                             GError **ret_why)
{
    const struct tracking_superblock *superblock = recovery->superblock;
    struct tracker *tracker = recovery->tracker;
    int ret;

    if (!superblock->is_clean) {
        return identity_check_crashed(&superblock->identity, found, ret_why);
    }
    ret = identity_check_clean(&superblock->identity, found,
                               recovery->same_boot, ret_why);
    if (ret == -EAGAIN) {
        ret = co_identity_take(tracker->storage, tracker->image_path,
                               tracker->node, found, NULL);
        ret = ret < 0 ? error_set(ret_why, ret, "the image cannot be read")
                      : identity_check_clean(&superblock->identity, found,
                                             recovery->same_boot, ret_why);
    }
    return ret;
}

/* Who else opened the image for writing has taken our stamp away, or has put the
 * whole image back to what it was before. */
static int check_stamp(struct tracker *tracker,
                       const struct identity_stamps *known,
                       GError **ret_why)
{
    const struct journal_id *found = &tracker->stamp.found;

    tracker->stamps = (struct identity_stamps){
        .new_nonce = tracker->stamp.fresh,
    };
    if (journal_id_is_none(found)) {
        return error_set(ret_why, -ESTALE,
                         "another program has opened the image for writing");
    }
    if (!journal_id_equal(found, &known->old_nonce) &&
        !journal_id_equal(found, &known->new_nonce)) {
        return error_set(ret_why, -ESTALE,
                         "the image is not the one that was closed last: it "
                         "was put back, or belongs to another tracking file");
    }
    tracker->stamps.old_nonce = *found;
    return 0;
}

/* What others wrote below the image. Nobody here writes there but to its data file,
 * which is as it was only after a clean close. */
static int co_check_below(struct recovery *recovery,
                          uint32_t below,
                          GError **ret_why)
{
    const struct tracking_superblock *superblock = recovery->superblock;
    struct tracker *tracker = recovery->tracker;
    uint32_t kept = superblock->identity.below;
    int ret = 0;

    if (superblock->is_clean) {
        ret = co_identity_below(tracker->storage, tracker->node, true, &below,
                                ret_why);
    }
    if (ret == 0 && kept != 0 && kept != below) {
        ret = error_set(ret_why, -ESTALE,
                        "a file below the image, of its backing chain or its "
                        "data file, is not what it was");
    }
    return ret;
}

static int co_check_image(struct recovery *recovery, GError **err)
{
    struct tracker *tracker = recovery->tracker;
    const struct tracking_superblock *superblock = recovery->superblock;
    g_autoptr(GError) why = NULL;
    struct identity found = { .durable_modified_ns = INT64_MIN };
    int ret = 0;

    tracker->stamps = superblock->stamps;
    if (tracker->image_path != NULL) {
        ret = co_identity_take(tracker->storage, tracker->image_path, NULL,
                               &found, err);
        if (ret == 0) {
            ret = co_identity_below(tracker->storage, tracker->node, false,
                                    &found.below, err);
        }
        if (ret < 0) {
            return ret;
        }
        ret = tracker->has_stamp
                  ? check_stamp(tracker, &superblock->stamps, &why)
                  : 0;
        if (ret == 0) {
            ret = co_check_identity(recovery, &found, &why);
        }
        if (ret == 0) {
            ret = co_check_below(recovery, found.below, &why);
        }
    }
    if (ret == 0 && !superblock->is_resizing &&
        block_size(tracker->node) < superblock->size_bytes) {
        ret = error_set(&why, -ESTALE, "the image is shorter than it was");
    }
    if (ret < 0 && recovery->reason == NULL) {
        recovery->reason = g_strdup(why->message);
    }
    found.durable_modified_ns = superblock->is_clean
                                    ? found.modified_ns
                                    : superblock->identity.durable_modified_ns;
    tracker->identity = found;
    return 0;
}

/*
 * One bitmap.
 */

static bool has_pages(const struct recovery *recovery,
                      const struct tracked_bitmap *stored)
{
    return stored->page_count ==
           tracking_set_pages(recovery->superblock->size_bytes,
                              stored->granularity_shift);
}

/* Reads a set into a bitmap of the stored size, and into the shadow. */
static int co_load_set(struct recovery *recovery,
                       const struct tracked_bitmap *stored,
                       enum tracked_set set,
                       struct bitmap *bits,
                       struct page_set *ret_set)
{
    g_autofree uint8_t *page = g_malloc(TRACKING_PAGE_BYTES);
    g_autofree uint64_t *words = g_new(uint64_t, TRACKING_PAGE_WORDS);
    uint64_t count;
    const uint64_t *loaded = bitmap_words(bits, &count);
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < stored->page_count; i++) {
        const struct tracked_page *place = &stored->pages[set][i];

        if (place->number == 0) {
            continue;
        }
        ret = co_tracking_file_read_page(recovery->tracker->file, place->number,
                                         page);
        if (ret == 0 && !tracking_page_decode(page, stored->id, set, i,
                                              place->crc, words)) {
            ret = -EBADMSG;
        }
        if (ret == 0) {
            bitmap_or_words(bits, (uint64_t)i * TRACKING_PAGE_WORDS, words,
                            TRACKING_PAGE_WORDS);
        }
    }
    if (ret == 0) {
        ret_set->word_count = count;
        ret_set->shadow = g_memdup2(loaded, count * sizeof(*loaded));
        ret_set->page_count = stored->page_count;
        ret_set->pages = g_memdup2(
            stored->pages[set], stored->page_count * sizeof(*ret_set->pages));
    }
    return ret;
}

static void mark_intents(struct recovery *recovery, struct bitmap *bits)
{
    struct tracker *tracker = recovery->tracker;
    uint64_t size_bytes = bitmap_size_bytes(bits);
    uint64_t region_bytes = UINT64_C(1) << tracker->region_shift;

    for (uint64_t region = 0; region < tracker->region_count; region++) {
        uint64_t offset = region * region_bytes;

        if (offset >= size_bytes) {
            break;
        }
        if ((*tracking_sector_byte(tracker->file->map, region) &
             tracking_sector_bit(region)) != 0) {
            bitmap_set(bits, offset,
                       min_u64(region_bytes, size_bytes - offset));
        }
    }
}

/* To the size that is found; what is new, or was being resized, is dirty. */
static int fit_size(struct recovery *recovery, struct bitmap *bits)
{
    const struct tracking_superblock *superblock = recovery->superblock;
    uint64_t size_bytes = block_size(recovery->tracker->node);
    int ret = 0;

    if (bitmap_size_bytes(bits) != size_bytes) {
        ret = bitmap_resize(bits, size_bytes, true, NULL);
    }
    if (ret == 0 && superblock->is_resizing) {
        uint64_t from =
            min_u64(superblock->resize_old_bytes, superblock->resize_new_bytes);

        if (from < size_bytes) {
            bitmap_set(bits, from, size_bytes - from);
        }
    }
    return ret;
}

/* What the log says, as far as the state of the change lets it count. */
static enum tracker_outcome co_ask(struct recovery *recovery,
                                   const struct tracked_change *change)
{
    struct tracker_outcomes *outcomes = recovery->tracker->outcomes;
    bool prepared = change->state == TRACKED_PREPARED;
    enum tracker_outcome outcome;

    if (journal_id_is_none(&change->txid)) {
        return TRACKER_ABORTED;
    }
    if (outcomes == NULL) {
        return prepared ? TRACKER_UNKNOWN : TRACKER_ABORTED;
    }
    outcome = outcomes->co_ask(outcomes, &change->txid,
                               prepared ? &change->segment : NULL);
    if (prepared) {
        return outcome;
    }
    /* It never said that it may commit. If it did, the file was rolled back. */
    return outcome == TRACKER_COMMITTED ? TRACKER_UNKNOWN : TRACKER_ABORTED;
}

/* P and S become what the name stands for: the result is in P. */
static void decide_bits(const struct tracked_change *change,
                        enum tracker_outcome outcome,
                        struct bitmap *sets[TRACKED_SETS])
{
    bool keeps_first = true;
    bool keeps_second = true;

    if (sets[TRACKED_SECOND] == NULL) {
        return;
    }
    if (outcome == TRACKER_COMMITTED) {
        keeps_first = change->kind == TRACKER_CHANGE_MERGE ||
                      (change->kind == TRACKER_CHANGE_JOB &&
                       change->mode == TRACKER_NEVER);
    } else if (outcome == TRACKER_ABORTED) {
        keeps_second = change->kind != TRACKER_CHANGE_MERGE;
    }
    if (!keeps_first) {
        bitmap_swap(sets[TRACKED_FIRST], sets[TRACKED_SECOND]);
    } else if (keeps_second) {
        bitmap_merge(sets[TRACKED_FIRST], sets[TRACKED_SECOND]);
    }
}

static bool records_after(const struct tracked_bitmap *stored,
                          enum tracker_outcome outcome)
{
    if (stored->change.kind == TRACKER_CHANGE_ENABLE &&
        outcome == TRACKER_ABORTED) {
        return false;
    }
    if (stored->change.kind == TRACKER_CHANGE_DISABLE &&
        outcome == TRACKER_COMMITTED) {
        return false;
    }
    return stored->recording;
}

static void acknowledge_later(struct tracker *tracker,
                              const struct journal_id *txid)
{
    for (guint i = 0; i < tracker->acknowledgements->len; i++) {
        if (journal_id_equal(
                &g_array_index(tracker->acknowledgements, struct journal_id, i),
                txid)) {
            return;
        }
    }
    g_array_append_val(tracker->acknowledgements, *txid);
}

/* The base, and whether the bitmap is there at all. */
static void settle(struct recovery *recovery,
                   struct tracked *entry,
                   enum tracker_outcome outcome)
{
    struct tracked_change change = entry->change;

    if (change.kind == TRACKER_CHANGE_NONE) {
        tracked_describe(entry);
        return;
    }
    if (change.kind == TRACKER_CHANGE_JOB && outcome == TRACKER_ABORTED) {
        /* Nothing was dropped yet, in no mode: P is still what it was. */
        entry->change.mode = TRACKER_NEVER;
    }
    tracked_settle(entry, outcome);
    if (change.state == TRACKED_PREPARED && outcome != TRACKER_UNKNOWN &&
        outcome != TRACKER_PENDING) {
        acknowledge_later(recovery->tracker, &change.txid);
    }
}

static uint64_t count_dirty(const struct bitmap *bits)
{
    return bitmap_count(bits) * bitmap_granularity_bytes(bits);
}

/* What is in the file, in memory: sets[] of the size that is found. */
static int co_load_bits(struct recovery *recovery,
                        const struct tracked_bitmap *stored,
                        struct tracked *entry,
                        struct bitmap *sets[TRACKED_SETS],
                        GError **err)
{
    struct tracker *tracker = recovery->tracker;
    bool is_clean = recovery->superblock->is_clean;
    bool frozen = stored->change.kind == TRACKER_CHANGE_JOB ||
                  stored->change.kind == TRACKER_CHANGE_CLEAR;
    int ret = has_pages(recovery, stored) ? 0 : -EBADMSG;

    for (int set = 0; ret == 0 && set <= (int)stored->has_second; set++) {
        sets[set] = bitmap_new(recovery->superblock->size_bytes,
                               UINT64_C(1) << stored->granularity_shift, err);
        if (sets[set] == NULL) {
            return -ENOMEM;
        }
        ret = co_load_set(recovery, stored, (enum tracked_set)set, sets[set],
                          &entry->sets[set]);
    }
    if (ret == 0 && stored->recording && !is_clean) {
        struct bitmap *recording = sets[frozen && stored->has_second];
        uint64_t before = count_dirty(recording);

        mark_intents(recovery, recording);
        tracker->recovered_bytes =
            max_u64(tracker->recovered_bytes, count_dirty(recording) - before);
    }
    for (int set = 0; ret == 0 && set <= (int)stored->has_second; set++) {
        ret = fit_size(recovery, sets[set]);
    }
    return ret;
}

static int co_recover_consistent(struct recovery *recovery,
                                 const struct tracked_bitmap *stored,
                                 struct tracked *entry,
                                 GError **err)
{
    struct bitmap *sets[TRACKED_SETS] = { NULL };
    enum tracker_outcome outcome = TRACKER_ABORTED;
    int ret = co_load_bits(recovery, stored, entry, sets, err);

    if (ret == 0) {
        entry->base = stored->base;
        entry->change = stored->change;
        entry->is_recovered = !recovery->superblock->is_clean;
        if (stored->change.kind != TRACKER_CHANGE_NONE) {
            outcome = co_ask(recovery, &stored->change);
        }
        decide_bits(&stored->change, outcome, sets);
        bitmap_merge(dirty_bitmap_bits(entry->bitmap), sets[TRACKED_FIRST]);
        dirty_bitmap_set_enabled(entry->bitmap, records_after(stored, outcome));
        settle(recovery, entry, outcome);
    }
    bitmap_free(sets[TRACKED_FIRST]);
    bitmap_free(sets[TRACKED_SECOND]);
    if (ret == -EBADMSG || ret == -EIO) {
        dirty_bitmap_set_inconsistent(entry->bitmap,
                                      "its tracking file is damaged");
        ret = 0;
    }
    return ret;
}

/* Makes the bitmap, and puts it on the node, unless its verdict is that there is
 * none. */
static int co_recover_bitmap(struct recovery *recovery,
                             const struct tracked_bitmap *stored,
                             GError **err)
{
    struct tracker *tracker = recovery->tracker;
    struct dirty_bitmap *bitmap;
    struct tracked *entry;
    int ret = 0;

    if (dirty_bitmap_find(tracker->node, stored->name) != NULL) {
        return error_set(err, -EINVAL,
                         "tracking file '%s' has two bitmaps '%s'",
                         tracker->path, stored->name);
    }
    bitmap =
        dirty_bitmap_new(tracker->node, stored->name,
                         UINT64_C(1) << stored->granularity_shift, true, err);
    if (bitmap == NULL) {
        return -EINVAL;
    }
    entry = tracked_new(tracker, bitmap, stored->id);
    if (recovery->reason != NULL || stored->inconsistent) {
        dirty_bitmap_set_inconsistent(bitmap, recovery->reason != NULL
                                                  ? recovery->reason
                                                  : stored->reason);
    } else {
        ret = co_recover_consistent(recovery, stored, entry, err);
    }
    if (ret < 0 || entry->gone) {
        tracked_free(entry);
        dirty_bitmap_free(bitmap);
        return ret;
    }
    dirty_bitmap_attach(tracker->node, &bitmap);
    return 0;
}

/*
 * All.
 */

/* A clean file's map says nothing any more. */
static void forget_map(struct tracking_file *file)
{
    memset(file->map, 0, file->layout.intent_sectors * STORAGE_SECTOR_BYTES);
    memset(file->sector_sequences, 0,
           file->layout.intent_sectors * sizeof(uint64_t));
}

static int co_settle_map(struct recovery *recovery)
{
    struct tracker *tracker = recovery->tracker;
    struct tracking_file *file = tracker->file;

    if (!recovery->superblock->is_clean) {
        intent_load(tracker);
        tracker->recovered_regions = tracker->intent_count;
        return 0;
    }
    forget_map(file);
    return co_tracking_file_write_sectors(file, 0, file->layout.intent_sectors);
}

static int co_load_all(struct recovery *recovery, GError **err)
{
    struct tracker *tracker = recovery->tracker;
    struct tracking_superblock *superblock = recovery->superblock;
    int ret = co_check_file(recovery, err);

    if (ret < 0) {
        return ret;
    }
    /* Also a clean one: it may have been killed before its last sync. */
    ret = co_tracking_file_rewrite(tracker->file);
    if (ret == 0) {
        check_sequences(recovery);
        ret = co_settle_map(recovery);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "tracking file '%s' cannot be written",
                               tracker->path);
    }
    ret = co_check_image(recovery, err);
    for (guint i = 0; ret == 0 && i < superblock->bitmaps->len; i++) {
        ret = co_recover_bitmap(recovery,
                                g_ptr_array_index(superblock->bitmaps, i), err);
    }
    if (ret == 0) {
        /* What was written in process mode may not be on the disk. */
        tracker->needs_flush |= superblock->is_process;
    }
    return ret;
}

int co_recovery_load(struct tracker *tracker,
                     struct tracking_superblock *superblock,
                     GError **err)
{
    struct recovery recovery = {
        .tracker = tracker,
        .superblock = superblock,
        .same_boot = memcmp(superblock->boot_id, tracker->boot_id,
                            STORAGE_BOOT_ID_BYTES) == 0,
    };
    int ret = co_load_all(&recovery, err);

    if (ret == 0) {
        trace_tracking_recovered(
            block_name(tracker->node), superblock->bitmaps->len,
            tracker->recovered_regions, tracker->recovered_bytes,
            recovery.reason, tracker->path);
    }

    g_free(recovery.reason);
    return ret;
}
