/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Intents: before a write is issued, its region is durable as "may change".
 *
 *          first write               sync done
 *     COLD ─────────────> PENDING ─────────────> WARM
 *      ^                                         │  ^
 *      │ checkpoint durable       snapshot begins│  │write
 *      └────────────────────── CLEARING <────────┘  │
 *                                  └────────────────┘
 *
 * A write in a WARM region costs one load. In a COLD one it waits for the next
 * round of the flusher, which writes the map's changed sectors and syncs once for
 * all that wait; or it needs no intent, when its bits are durable in what each
 * state that a crash may leave has of each recording bitmap.
 *
 * A write that has waited looks again: its region may have been cleared between
 * the end of the sync and its turn. From a look that lets it go to its bits there
 * is no yield (block/hook.h: hooks of the next stage run at once).
 *
 * There is one flusher, so writes to a sector never overtake each other. Bits are
 * cleared in memory first; a write that comes then asks for a round of its own.
 * Cleared sectors need no sync: a bit that comes back says too much.
 */
#include <errno.h>

#include "base/trace.h"
#include "block/driver.h"
#include "journal/tracker_priv.h"

/* Sectors so far apart are written as one piece, what lies between included. */
#define SECTOR_GAP 8

void intent_init(struct tracker *tracker)
{
    tracker->pending = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    co_queue_init(&tracker->intents);
    co_queue_init(&tracker->flusher_idle);
}

void intent_release(struct tracker *tracker)
{
    g_assert(!tracker->flushing);
    g_array_unref(tracker->pending);
    g_free(tracker->regions);
    g_free(tracker->sector_changed);
}

int intent_resize(struct tracker *tracker, const struct tracking_file *file)
{
    const struct tracking_layout *layout = &file->layout;
    uint8_t *regions;
    bool *changed;

    if (layout->region_count <= tracker->region_count) {
        return 0;
    }
    regions = g_try_malloc0(layout->region_count);
    changed = g_try_new0(bool, layout->intent_sectors);
    if (regions == NULL || changed == NULL) {
        g_free(regions);
        g_free(changed);
        return -ENOMEM;
    }
    g_assert(tracker->changed_sectors == 0);
    if (tracker->regions != NULL) {
        memcpy(regions, tracker->regions, tracker->region_count);
    }
    g_free(tracker->regions);
    g_free(tracker->sector_changed);
    tracker->regions = regions;
    tracker->sector_changed = changed;
    tracker->region_count = layout->region_count;
    return 0;
}

void intent_load(struct tracker *tracker)
{
    uint8_t *map = tracker->file->map;

    for (uint64_t region = 0; region < tracker->region_count; region++) {
        if ((*tracking_sector_byte(map, region) &
             tracking_sector_bit(region)) != 0) {
            tracker->regions[region] = REGION_WARM;
            tracker->intent_count++;
        }
    }
}

static void mark_sector(struct tracker *tracker, uint64_t region)
{
    uint64_t sector = region / TRACKING_SECTOR_REGIONS;

    if (!tracker->sector_changed[sector]) {
        tracker->sector_changed[sector] = true;
        tracker->changed_sectors++;
    }
}

/*
 * The flusher.
 */

int co_intent_write(struct tracker *tracker)
{
    uint64_t sectors = tracker->file->layout.intent_sectors;
    uint64_t at = 0;
    int ret = 0;

    while (ret == 0 && tracker->changed_sectors > 0 && at < sectors) {
        uint64_t first, last;

        while (at < sectors && !tracker->sector_changed[at]) {
            at++;
        }
        if (at == sectors) {
            break;
        }
        first = last = at;
        while (at < sectors && at - last <= SECTOR_GAP) {
            if (tracker->sector_changed[at]) {
                tracker->sector_changed[at] = false;
                tracker->changed_sectors--;
                last = at;
            }
            at++;
        }
        at = last + 1;
        ret = co_tracking_file_write_sectors(tracker->file, first,
                                             last - first + 1);
    }
    return ret;
}

/* Regions of this round are durable. */
static void finish_round(struct tracker *tracker, const GArray *round)
{
    for (guint i = 0; i < round->len; i++) {
        uint64_t region = g_array_index(round, uint64_t, i);

        g_assert(tracker->regions[region] == REGION_PENDING);
        tracker->regions[region] = REGION_WARM;
    }
    co_queue_wake_all(&tracker->intents);
}

static int co_flush_round(struct tracker *tracker)
{
    g_autoptr(GArray) round = tracker->pending;
    uint64_t begun_ns = loop_now_ns();
    int ret;

    tracker->pending = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    if (round->len > 0) {
        trace_tracking_intents_begin(block_name(tracker->node), round->len);
    }
    ret = co_intent_write(tracker);
    if (ret == 0 && round->len > 0) {
        ret = co_tracking_file_sync_intents(tracker->file);
    }
    if (round->len > 0) {
        trace_tracking_intents_end(block_name(tracker->node), ret);
    }
    if (ret == 0 && !tracker->broken) {
        finish_round(tracker, round);
        if (round->len > 0) {
            trace_tracking_intents(block_name(tracker->node), round->len,
                                   loop_now_ns() - begun_ns);
        }
    }
    return ret;
}

static void co_flush(void *opaque)
{
    struct tracker *tracker = opaque;

    while (!tracker->broken &&
           (tracker->pending->len > 0 || tracker->changed_sectors > 0)) {
        int ret = co_flush_round(tracker);

        if (ret < 0) {
            tracker_break(tracker, "its tracking file cannot be written: %s",
                          g_strerror(-ret));
        }
    }
    tracker->flushing = false;
    co_queue_wake_all(&tracker->flusher_idle);
    block_background_end(tracker->node);
}

static void start_flusher(struct tracker *tracker)
{
    if (tracker->flushing || tracker->broken || tracker->holding ||
        tracker->file == NULL) {
        return;
    }
    tracker->flushing = true;
    block_background_begin(tracker->node);
    co_spawn(loop_current(), co_flush, tracker);
}

void co_intent_wait_idle(struct tracker *tracker)
{
    while (tracker->flushing) {
        co_queue_wait(&tracker->flusher_idle);
    }
}

void intent_wake(struct tracker *tracker)
{
    co_queue_wake_all(&tracker->intents);
    if (tracker->pending->len > 0 || tracker->changed_sectors > 0) {
        start_flusher(tracker);
    }
}

/*
 * Clearing.
 */

void intent_begin_clearing(struct tracker *tracker)
{
    uint64_t left = tracker->intent_count;

    for (uint64_t region = 0; left > 0 && region < tracker->region_count;
         region++) {
        if (tracker->regions[region] == REGION_COLD) {
            continue;
        }
        left--;
        if (tracker->regions[region] == REGION_WARM) {
            tracker->regions[region] = REGION_CLEARING;
        }
    }
}

void intent_clear(struct tracker *tracker)
{
    struct tracking_file *file = tracker->file;
    uint64_t before = tracker->intent_count;
    uint64_t left = before;

    for (uint64_t region = 0; left > 0 && region < tracker->region_count;
         region++) {
        if (tracker->regions[region] == REGION_COLD) {
            continue;
        }
        left--;
        if (tracker->regions[region] != REGION_CLEARING) {
            continue;
        }
        tracker->regions[region] = REGION_COLD;
        *tracking_sector_byte(file->map, region) &=
            (uint8_t)~tracking_sector_bit(region);
        file->sector_sequences[region / TRACKING_SECTOR_REGIONS] =
            file->sequence;
        mark_sector(tracker, region);
        tracker->intent_count--;
    }
    if (before > tracker->intent_count) {
        trace_tracking_cleared(block_name(tracker->node),
                               before - tracker->intent_count,
                               tracker->intent_count);
    }
    if (tracker->changed_sectors > 0) {
        start_flusher(tracker);
    }
}

/*
 * The hook.
 */

static bool words_have(const uint64_t *words, uint64_t first, uint64_t last)
{
    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t mask = UINT64_MAX;

        if (word == first / 64) {
            mask &= UINT64_MAX << (first % 64);
        }
        if (word == last / 64) {
            mask &= UINT64_MAX >> (63 - last % 64);
        }
        if ((words[word] & mask) != mask) {
            return false;
        }
    }
    return true;
}

/* The set that records in the durable state. An S that was made durable in an
 * earlier attempt is not this one: a freeze is a change, and until it is durable
 * nothing here is asked. */
static const struct page_set *recording_set(const struct tracked *entry)
{
    return &entry->sets[dirty_bitmap_is_frozen(entry->bitmap) ? TRACKED_SECOND
                                                              : TRACKED_FIRST];
}

/* Is the range dirty in whatever a crash would leave? */
static bool is_covered(struct tracker *tracker, uint64_t offset, uint64_t bytes)
{
    if (tracker->change_sequence != tracker->durable_changes ||
        tracker->is_resizing) {
        return false;
    }
    LIST_FOREACH(link, &tracker->entries) {
        const struct tracked *entry = LIST_ENTRY(link, struct tracked, link);
        const struct page_set *set;
        uint64_t granularity;
        uint64_t last;

        if (entry->gone || !dirty_bitmap_is_enabled(entry->bitmap)) {
            continue;
        }
        set = recording_set(entry);
        granularity = dirty_bitmap_granularity_bytes(entry->bitmap);
        last = (offset + bytes - 1) / granularity;
        if (set->shadow == NULL || last / 64 >= set->word_count ||
            !words_have(set->shadow, offset / granularity, last)) {
            return false;
        }
    }
    tracker->cover_hits++;
    return true;
}

/* The part of the range that lies in the region. */
static bool region_is_covered(struct tracker *tracker,
                              uint64_t region,
                              uint64_t offset,
                              uint64_t bytes)
{
    uint64_t start = region << tracker->region_shift;
    uint64_t end = start + (UINT64_C(1) << tracker->region_shift);

    start = max_u64(start, offset);
    end = min_u64(end, offset + bytes);
    return is_covered(tracker, start, end - start);
}

static bool may_go(struct tracker *tracker,
                   uint64_t region,
                   uint64_t offset,
                   uint64_t bytes)
{
    switch ((enum region_state)tracker->regions[region]) {
    case REGION_WARM:
    case REGION_CLEARING: return true;
    case REGION_COLD: return region_is_covered(tracker, region, offset, bytes);
    case REGION_PENDING: break;
    }
    return false;
}

/* All regions of the range, or none. */
static bool try_range(struct tracker *tracker, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> tracker->region_shift;
    uint64_t last = (offset + bytes - 1) >> tracker->region_shift;

    if (tracker->failed) {
        return !tracker->stops;
    }
    if (!tracker->needs_intents) {
        return true;
    }
    if (tracker->broken || tracker->file == NULL) {
        return false;
    }
    g_assert(last < tracker->region_count);
    for (uint64_t region = first; region <= last; region++) {
        if (!may_go(tracker, region, offset, bytes)) {
            return false;
        }
    }
    for (uint64_t region = first; region <= last; region++) {
        if (tracker->regions[region] != REGION_COLD) {
            tracker->regions[region] = REGION_WARM;
        }
    }
    return true;
}

bool intent_hook_try(struct block_hook *hook, uint64_t offset, uint64_t bytes)
{
    struct tracker *tracker = LIST_ENTRY(hook, struct tracker, hook);
    uint64_t first = offset >> tracker->region_shift;

    if (first < tracker->region_count &&
        tracker->regions[first] == REGION_WARM &&
        (offset + bytes - 1) >> tracker->region_shift == first) {
        return true;
    }
    return try_range(tracker, offset, bytes);
}

/* Asks for the intents that the range lacks. */
static void demand(struct tracker *tracker, uint64_t offset, uint64_t bytes)
{
    uint64_t last = (offset + bytes - 1) >> tracker->region_shift;

    for (uint64_t region = offset >> tracker->region_shift; region <= last;
         region++) {
        if (tracker->regions[region] != REGION_COLD ||
            region_is_covered(tracker, region, offset, bytes)) {
            continue;
        }
        tracker->regions[region] = REGION_PENDING;
        *tracking_sector_byte(tracker->file->map, region) |=
            tracking_sector_bit(region);
        mark_sector(tracker, region);
        g_array_append_val(tracker->pending, region);
        tracker->intent_count++;
    }
    start_flusher(tracker);
}

/* A crash would mark more than it should soon. */
static bool wants_checkpoint(const struct tracker *tracker)
{
    return tracker->intent_count << tracker->region_shift >
           tracker->over_marking_bytes / 2;
}

int co_intent_hook(struct block_hook *hook, uint64_t offset, uint64_t bytes)
{
    struct tracker *tracker = LIST_ENTRY(hook, struct tracker, hook);

    while (!try_range(tracker, offset, bytes)) {
        if (tracker->failed) {
            return -EIO; /* on-tracking-error=stop */
        }
        if (!tracker->holding && !tracker->broken && tracker->file != NULL) {
            demand(tracker, offset, bytes);
        }
        co_queue_wait(&tracker->intents);
    }
    if (!tracker->failed && tracker->needs_intents) {
        if (wants_checkpoint(tracker)) {
            checkpoint_start(tracker);
        }
        checkpoint_timer_start(tracker);
    }
    return 0;
}
