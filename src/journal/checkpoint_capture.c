/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Capturing: which bitmaps there are, and which of their pages are not what the
 * durable superblock has. What differs is found by comparing with the shadows, so
 * nothing has to be noted when bits are set.
 */
#include "journal/checkpoint_priv.h"

#include <errno.h>

#include "base/error.h"
#include "block/driver.h"

void capture_release(struct capture *capture)
{
    tracking_superblock_free(capture->superblock);
    g_ptr_array_unref(capture->entries);
    g_ptr_array_unref(capture->pages);
}

static uint32_t take_page(struct capture *capture)
{
    struct tracking_file *file = capture->file;

    while (capture->page_cursor < file->layout.page_count) {
        uint32_t index = capture->page_cursor++;

        if (!file->page_used[index]) {
            file->page_used[index] = true;
            return index + 1;
        }
    }
    return 0;
}

static bool all_clear(const uint64_t *words, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (words[i] != 0) {
            return false;
        }
    }
    return true;
}

static int capture_page(struct capture *capture,
                        struct tracked *entry,
                        enum tracked_set set,
                        uint64_t index,
                        const uint64_t *words,
                        uint64_t word_count,
                        struct tracked_page *ret)
{
    struct captured_page *page;

    *ret = (struct tracked_page){ 0 };
    if (all_clear(words, word_count)) {
        return 0;
    }
    page = g_try_new0(struct captured_page, 1);
    if (page == NULL) {
        return -ENOMEM;
    }
    page->entry = entry;
    page->set = set;
    page->index = index;
    page->number = take_page(capture);
    g_ptr_array_add(capture->pages, page);
    if (page->number == 0) {
        return -ENOSPC;
    }
    ret->number = page->number;
    ret->crc = tracking_page_encode(entry->id, set, index,
                                    capture->superblock->sequence, words,
                                    word_count, page->bytes);
    return 0;
}

/* One set of a bitmap: its table, and copies of the pages that changed. */
static int capture_set(struct capture *capture,
                       struct tracked *entry,
                       enum tracked_set set,
                       struct tracked_bitmap *bitmap)
{
    const struct page_set *old = &entry->sets[set];
    uint64_t count;
    const uint64_t *words = bitmap_words(tracked_bits(entry, set), &count);
    bool same_file = capture->file == entry->tracker->file;
    bool comparable = same_file && old->shadow != NULL &&
                      old->word_count == count &&
                      old->page_count == bitmap->page_count;
    int ret = 0;

    bitmap->pages[set] = g_try_new0(struct tracked_page, bitmap->page_count);
    if (bitmap->pages[set] == NULL && bitmap->page_count > 0) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; ret == 0 && i < bitmap->page_count; i++) {
        uint64_t first = (uint64_t)i * TRACKING_PAGE_WORDS;
        uint64_t piece = min_u64(count - first, TRACKING_PAGE_WORDS);

        if (comparable && memcmp(words + first, old->shadow + first,
                                 piece * sizeof(*words)) == 0) {
            bitmap->pages[set][i] = old->pages[i];
            continue;
        }
        ret = capture_page(capture, entry, set, i, words + first, piece,
                           &bitmap->pages[set][i]);
    }
    return ret;
}

/* A job that froze it without a word is undone by a crash: no txid. */
static struct tracked_change change_of(const struct tracked *entry)
{
    struct tracked_change change = entry->change;

    if (change.kind == TRACKER_CHANGE_NONE &&
        dirty_bitmap_is_frozen(entry->bitmap)) {
        change.kind = TRACKER_CHANGE_JOB;
        change.state = TRACKED_FROZEN;
    }
    return change;
}

static int capture_entry(struct capture *capture, struct tracked *entry)
{
    struct dirty_bitmap *live = entry->bitmap;
    struct tracked_bitmap *bitmap = tracked_bitmap_new(dirty_bitmap_name(live));
    const char *reason = dirty_bitmap_reason(live);
    uint64_t granularity = dirty_bitmap_granularity_bytes(live);
    int ret = 0;

    g_ptr_array_add(capture->superblock->bitmaps, bitmap);
    g_ptr_array_add(capture->entries, entry);
    bitmap->id = entry->id;
    bitmap->recording = dirty_bitmap_is_enabled(live);
    bitmap->granularity_shift = (unsigned int)__builtin_ctzll(granularity);
    bitmap->base = entry->base;
    if (reason != NULL) {
        bitmap->inconsistent = true;
        bitmap->reason = g_strndup(reason, TRACKING_REASON_BYTES_MAX);
        return 0;
    }
    bitmap->change = change_of(entry);
    bitmap->has_second = tracked_bits(entry, TRACKED_SECOND) != NULL;
    bitmap->page_count = (uint32_t)tracking_set_pages(
        block_size(entry->tracker->node), bitmap->granularity_shift);
    for (int set = 0; ret == 0 && set <= (int)bitmap->has_second; set++) {
        ret = capture_set(capture, entry, (enum tracked_set)set, bitmap);
    }
    return ret;
}

static void capture_fixed(const struct tracker *tracker,
                          struct capture *capture,
                          bool clean)
{
    struct tracking_superblock *superblock = capture->superblock;

    superblock->sequence = capture->file->sequence + 1;
    superblock->disk_id = tracker->disk_id;
    superblock->size_bytes = block_size(tracker->node);
    superblock->is_clean = clean;
    superblock->is_process = !tracker_syncs(tracker);
    superblock->is_resizing = tracker->is_resizing;
    superblock->resize_old_bytes = tracker->resize_old_bytes;
    superblock->resize_new_bytes = tracker->resize_new_bytes;
    superblock->next_bitmap_id = tracker->next_id;
    memcpy(superblock->boot_id, tracker->boot_id, STORAGE_BOOT_ID_BYTES);
    superblock->identity = tracker->identity;
    superblock->stamps = tracker->stamps;
    g_strlcpy(superblock->layer, block_driver_of(tracker->node)->name,
              sizeof(superblock->layer));
}

int capture_all(struct tracker *tracker, struct capture *capture, bool clean)
{
    int ret = 0;

    capture->superblock = tracking_superblock_new();
    capture->entries = g_ptr_array_new();
    capture->pages = g_ptr_array_new_with_free_func(g_free);
    capture->changes = tracker->change_sequence;
    capture->acknowledgements = tracker->acknowledgements->len;
    capture->flushes = tracker->needs_flush;
    capture_fixed(tracker, capture, clean);
    LIST_FOREACH(link, &tracker->entries) {
        struct tracked *entry = LIST_ENTRY(link, struct tracked, link);

        if (ret == 0 && !entry->gone) {
            ret = capture_entry(capture, entry);
        }
    }
    if (ret == 0) {
        intent_begin_clearing(tracker);
    }
    return ret;
}
