/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is told to a tracker in memory: bitmaps that come, go and change, and how
 * transactions end. Nothing here waits or fails; each step counts, and the next
 * flip makes all of them durable.
 *
 * A step of which the tracker learns only from the bitmap itself (a job that
 * freezes it without a word) is safe, too: a crash undoes a freeze without txid,
 * and after an abdication without verdict the bitmap has no base.
 */
#include "journal/tracker_priv.h"

void page_set_release(struct page_set *set)
{
    g_clear_pointer(&set->shadow, g_free);
    g_clear_pointer(&set->pages, g_free);
    set->word_count = 0;
    set->page_count = 0;
}

const struct bitmap *tracked_bits(const struct tracked *entry,
                                  enum tracked_set set)
{
    if (set == TRACKED_FIRST) {
        return dirty_bitmap_bits(entry->bitmap);
    }
    if (entry->change.kind == TRACKER_CHANGE_MERGE) {
        return entry->merged;
    }
    return dirty_bitmap_successor(entry->bitmap);
}

void tracker_touch(struct tracker *tracker, bool loses_bits)
{
    tracker->change_sequence++;
    tracker->needs_flush |= loses_bits;
    tracker_update_needs(tracker);
}

/* Intents are needed while memory or the durable superblock has a bitmap that
 * records. */
void tracker_update_needs(struct tracker *tracker)
{
    bool needs = false;

    LIST_FOREACH(link, &tracker->entries) {
        const struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        needs |= !entry->gone && dirty_bitmap_is_enabled(entry->bitmap);
    }
    for (guint i = 0;
         tracker->durable != NULL && i < tracker->durable->bitmaps->len; i++) {
        const struct tracked_bitmap *bitmap =
            g_ptr_array_index(tracker->durable->bitmaps, i);

        needs |= bitmap->recording;
    }
    tracker->needs_intents = needs;
    if (!needs) {
        /* The bitmap that they waited for did not come to be. At a fence, on
         * another thread, nobody waits. */
        co_queue_wake_all(&tracker->intents);
    }
}

static void set_base_none(struct tracked *entry)
{
    entry->base = (struct bitmap_base){ .kind = BITMAP_BASE_NONE };
    tracked_describe(entry);
}

/* On the thread of who made the step; a flip may be under way only if that is
 * the home thread. */
static void observe(struct dirty_bitmap_observer *observer,
                    struct dirty_bitmap *bitmap,
                    enum dirty_bitmap_step step)
{
    struct tracked *entry = LIST_ENTRY(observer, struct tracked, observer);

    (void)bitmap;
    if (step == DIRTY_BITMAP_ABDICATED &&
        entry->change.kind == TRACKER_CHANGE_NONE) {
        set_base_none(entry);
    }
    tracker_touch(entry->tracker, step != DIRTY_BITMAP_RECLAIMED);
}

struct tracked *tracked_new(struct tracker *tracker,
                            struct dirty_bitmap *bitmap,
                            uint32_t id)
{
    struct tracked *entry = g_new0(struct tracked, 1);

    entry->tracker = tracker;
    entry->bitmap = bitmap;
    entry->id = id;
    entry->observer.changed = observe;
    list_append(&tracker->entries, &entry->link);
    dirty_bitmap_set_persistent(bitmap, true);
    dirty_bitmap_set_observer(bitmap, &entry->observer);
    return entry;
}

/* The bitmap is the caller's again, and no longer persistent. */
static void let_go(struct tracked *entry)
{
    struct json_value *nothing = NULL;

    dirty_bitmap_set_observer(entry->bitmap, NULL);
    dirty_bitmap_set_persistent(entry->bitmap, false);
    dirty_bitmap_set_details(entry->bitmap, &nothing);
    entry->gone = true;
}

void tracked_free(struct tracked *entry)
{
    if (!entry->gone) {
        let_go(entry);
    }
    list_remove(&entry->link);
    page_set_release(&entry->sets[TRACKED_FIRST]);
    page_set_release(&entry->sets[TRACKED_SECOND]);
    g_free(entry);
}

struct tracked *tracked_of(const struct tracker *tracker,
                           const struct dirty_bitmap *bitmap)
{
    LIST_FOREACH(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        if (!entry->gone && entry->bitmap == bitmap) {
            return entry;
        }
    }
    return NULL;
}

/*
 * Telling.
 */

static void begin_change(struct tracked *entry,
                         enum tracker_change kind,
                         const struct journal_id *txid,
                         const struct bitmap *merged)
{
    g_assert(entry->change.kind == TRACKER_CHANGE_NONE);
    entry->change = (struct tracked_change){
        .kind = kind,
        .state = TRACKED_FROZEN,
        .txid = *txid,
    };
    entry->merged = merged;
}

static void add(struct tracker *tracker,
                struct dirty_bitmap *bitmap,
                const struct journal_id *txid)
{
    struct tracked *entry = tracked_new(tracker, bitmap, tracker->next_id++);

    tracker->spare_wanted = tracker->spare != NULL;
    if (txid != NULL) {
        begin_change(entry, TRACKER_CHANGE_ADD, txid, NULL);
    }
    tracked_describe(entry);
}

void tracker_change(struct tracker *tracker,
                    struct dirty_bitmap *bitmap,
                    enum tracker_change change,
                    const struct journal_id *change_txid,
                    const struct bitmap *merged)
{
    struct tracked *entry = tracked_of(tracker, bitmap);

    g_assert(tracker->lock.locked);
    if (change == TRACKER_CHANGE_ADD) {
        g_assert(entry == NULL);
        add(tracker, bitmap, change_txid);
    } else {
        g_assert(entry != NULL);
        if (change_txid != NULL) {
            begin_change(entry, change, change_txid, merged);
        } else if (change == TRACKER_CHANGE_REMOVE) {
            let_go(entry);
        } else if (change == TRACKER_CHANGE_CLEAR ||
                   change == TRACKER_CHANGE_ENABLE) {
            set_base_none(entry);
        }
    }
    tracker_touch(tracker, change == TRACKER_CHANGE_ADD ||
                               change == TRACKER_CHANGE_CLEAR ||
                               change == TRACKER_CHANGE_ENABLE);
}

void tracker_freeze(struct tracker *tracker,
                    struct dirty_bitmap *bitmap,
                    const struct journal_id *txid,
                    enum tracker_mode mode)
{
    struct tracked *entry = tracked_of(tracker, bitmap);

    g_assert(entry != NULL && dirty_bitmap_is_frozen(bitmap));
    begin_change(entry, TRACKER_CHANGE_JOB, txid, NULL);
    entry->change.mode = mode;
    tracker_touch(tracker, false);
}

/*
 * Verdicts.
 */

static void settle_job(struct tracked *entry, enum tracker_outcome outcome)
{
    const struct bitmap_point point = {
        .txid = entry->change.txid,
        .disk = entry->tracker->disk_id,
    };
    struct bitmap_base *base = &entry->base;

    if (entry->change.mode == TRACKER_NEVER) {
        return;
    }
    switch (outcome) {
    case TRACKER_COMMITTED:
        *base = (struct bitmap_base){ .kind = BITMAP_BASE_ONE };
        base->points[0] = point;
        break;
    case TRACKER_ABORTED:
        if (entry->change.mode == TRACKER_ALWAYS) {
            set_base_none(entry);
        }
        break;
    case TRACKER_UNKNOWN:
    case TRACKER_PENDING:
        if (base->kind != BITMAP_BASE_EITHER) {
            base->kind = BITMAP_BASE_EITHER;
            base->points[1] = point;
        } else {
            set_base_none(entry); /* a third point has no place */
        }
        break;
    }
}

/* Does the change leave a bitmap without a base? */
static bool drops_base(enum tracker_change kind, enum tracker_outcome outcome)
{
    if (outcome == TRACKER_ABORTED) {
        return false;
    }
    return kind == TRACKER_CHANGE_CLEAR || kind == TRACKER_CHANGE_ENABLE ||
           outcome != TRACKER_COMMITTED;
}

static bool goes_away(enum tracker_change kind, enum tracker_outcome outcome)
{
    return (kind == TRACKER_CHANGE_ADD && outcome == TRACKER_ABORTED) ||
           (kind == TRACKER_CHANGE_REMOVE && outcome == TRACKER_COMMITTED);
}

void tracked_settle(struct tracked *entry, enum tracker_outcome outcome)
{
    enum tracker_change kind = entry->change.kind;

    if (kind == TRACKER_CHANGE_JOB) {
        settle_job(entry, outcome);
    } else if (drops_base(kind, outcome)) {
        set_base_none(entry);
    }
    entry->change = (struct tracked_change){ .kind = TRACKER_CHANGE_NONE };
    entry->merged = NULL;
    if (goes_away(kind, outcome)) {
        let_go(entry);
    } else {
        tracked_describe(entry);
    }
}

void tracker_settle(struct tracker *tracker,
                    const struct journal_id *txid,
                    enum tracker_outcome outcome)
{
    bool found = false;

    LIST_FOREACH(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        if (!entry->gone && entry->change.kind != TRACKER_CHANGE_NONE &&
            journal_id_equal(&entry->change.txid, txid)) {
            if (entry->change.kind == TRACKER_CHANGE_JOB &&
                outcome == TRACKER_COMMITTED) {
                entry->is_recovered = false; /* the backup took them */
            }
            tracked_settle(entry, outcome);
            found = true;
        }
    }
    if (found) {
        g_array_append_val(tracker->acknowledgements, *txid);
        tracker_touch(tracker, outcome == TRACKER_COMMITTED);
    }
}

/*
 * Showing.
 */

static void describe_point(const struct bitmap_point *point,
                           struct json_value *list)
{
    char text[JOURNAL_ID_TEXT_BYTES];
    struct json_value *entry;

    if (journal_id_is_none(&point->txid)) {
        return;
    }
    entry = json_dict_new();
    journal_id_format(&point->txid, text);
    json_dict_set_string(entry, "txid", text);
    journal_id_format(&point->disk, text);
    json_dict_set_string(entry, "disk", text);
    json_list_append(list, entry);
}

void tracked_describe(struct tracked *entry)
{
    const struct tracker *tracker = entry->tracker;
    struct json_value *details = json_dict_new();
    struct json_value *base = json_list_new();

    if (entry->base.kind != BITMAP_BASE_NONE) {
        describe_point(&entry->base.points[0], base);
    }
    if (entry->base.kind == BITMAP_BASE_EITHER) {
        describe_point(&entry->base.points[1], base);
    }
    json_dict_set(details, "x-cohort-base", base);
    if (entry->is_recovered && tracker->recovered_regions > 0) {
        struct json_value *recovered = json_dict_new();

        json_dict_set_uint(recovered, "regions", tracker->recovered_regions);
        json_dict_set_uint(recovered, "bytes", tracker->recovered_bytes);
        json_dict_set(details, "x-cohort-recovered", recovered);
    }
    dirty_bitmap_set_details(entry->bitmap, &details);
}

bool tracker_has(const struct tracker *tracker,
                 const struct dirty_bitmap *bitmap)
{
    return tracked_of(tracker, bitmap) != NULL;
}

bool tracker_base(const struct tracker *tracker,
                  const struct dirty_bitmap *bitmap,
                  struct bitmap_base *ret_base)
{
    const struct tracked *entry = tracked_of(tracker, bitmap);

    if (entry != NULL) {
        *ret_base = entry->base;
    }
    return entry != NULL;
}

void tracker_recovered(const struct tracker *tracker,
                       uint64_t *ret_regions,
                       uint64_t *ret_bytes)
{
    *ret_regions = tracker->recovered_regions;
    *ret_bytes = tracker->recovered_bytes;
}
