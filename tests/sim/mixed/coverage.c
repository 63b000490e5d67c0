/* SPDX-License-Identifier: BSD-3-Clause */
#include "mixed/coverage.h"

#include <string.h>

#include "journal/commit_log_format.h"

#define SUPERBLOCK_BYTES_MIN 256

#define PLACE_TEXT(name, text) text,

static const char *const texts[] = { COVERAGE_PLACES(PLACE_TEXT) };

const char *coverage_name(enum coverage_place place)
{
    return texts[place];
}

void coverage_init(struct coverage *coverage, struct storage_memory *memory)
{
    coverage->memory = memory;
    coverage->unsynced =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

static void forget_file(struct coverage_file *file)
{
    g_clear_pointer(&file->newest, tracking_superblock_free);
    file->has_layout = false;
    file->told = 0;
}

void coverage_reset(struct coverage *coverage)
{
    for (int i = 0; i < COVERAGE_DISKS; i++) {
        forget_file(&coverage->files[i]);
    }
    g_hash_table_remove_all(coverage->unsynced);
    coverage->has_fresh_commit = false;
    coverage->phase = (struct coverage_phase){ .opening = false };
}

void coverage_release(struct coverage *coverage)
{
    coverage_reset(coverage);
    g_hash_table_destroy(coverage->unsynced);
}

void coverage_tell(struct coverage *coverage,
                   unsigned int disk,
                   enum tracker_change change)
{
    coverage->files[disk].told |=
        change == TRACKER_CHANGE_MERGE    ? PLACE_BIT(AT_MERGE)
        : change == TRACKER_CHANGE_ENABLE ? PLACE_BIT(AT_ENABLE)
                                          : PLACE_BIT(AT_CHANGE);
}

/*
 * Tracking files.
 */

/* Images are /diskN..., their tracking files /diskN....cbt */
static int disk_of(const char *path)
{
    if (!g_str_has_prefix(path, "/disk")) {
        return -1;
    }
    return path[5] - '0';
}

static bool find_layout(struct coverage *coverage,
                        struct coverage_file *file,
                        const char *path)
{
    uint64_t bytes;
    const uint8_t *data;

    if (!file->has_layout) {
        data = storage_memory_peek(coverage->memory, path, &bytes);
        file->has_layout =
            data != NULL && bytes >= TRACKING_HEADER_BYTES &&
            tracking_header_decode(data, path, &file->layout, NULL) == 0;
    }
    return file->has_layout;
}

static const struct tracked_bitmap *find_bitmap(
    const struct tracking_superblock *superblock,
    uint32_t id)
{
    for (guint i = 0; superblock != NULL && i < superblock->bitmaps->len; i++) {
        const struct tracked_bitmap *bitmap =
            g_ptr_array_index(superblock->bitmaps, i);

        if (bitmap->id == id) {
            return bitmap;
        }
    }
    return NULL;
}

/* What the change of a bitmap from `old` to `new` is. */
static uint64_t places_of_bitmap(unsigned int disk,
                                 const struct tracked_bitmap *old,
                                 const struct tracked_bitmap *new)
{
    enum tracked_change_state was =
        old == NULL ? TRACKED_PLAIN : old->change.state;
    enum tracked_change_state is = new->change.state;

    if (is == TRACKED_PREPARED && was != TRACKED_PREPARED) {
        return PLACE_BIT(AT_PREPARE_0 + disk);
    }
    if (is == TRACKED_FROZEN && new->change.kind == TRACKER_CHANGE_JOB &&
        (old == NULL ||
         !journal_id_equal(&old->change.txid, &new->change.txid))) {
        return PLACE_BIT(AT_FREEZE);
    }
    if (was != TRACKED_PLAIN && is == TRACKED_PLAIN &&
        old->change.kind == TRACKER_CHANGE_JOB) {
        bool took =
            new->base.kind == BITMAP_BASE_ONE &&journal_id_equal(
                                  &new->base.points[0].txid, &old->change.txid);

        return PLACE_BIT(took ? AT_ABDICATE_0 + disk : AT_RECLAIM);
    }
    return 0;
}

static uint64_t places_of_superblock(struct coverage_file *file,
                                     unsigned int disk,
                                     const struct storage_step *step)
{
    uint64_t length =
        step->bytes < SUPERBLOCK_BYTES_MIN
            ? 0
            : tracking_superblock_length(step->data, &file->layout);
    g_autoptr(tracking_superblock) new = NULL;
    uint64_t places = PLACE_BIT(AT_FLIP) | file->told;

    if (length == 0 || length > step->bytes) {
        return places;
    }
    new = tracking_superblock_decode(step->data, length, &file->layout);
    if (new == NULL) {
        return places;
    }
    for (guint i = 0; i < new->bitmaps->len; i++) {
        const struct tracked_bitmap *bitmap =
            g_ptr_array_index(new->bitmaps, i);

        places |= places_of_bitmap(disk, find_bitmap(file->newest, bitmap->id),
                                   bitmap);
    }
    if (new->is_process) {
        places |= PLACE_BIT(AT_PROCESS);
    }
    if (new->is_resizing ||
        (file->newest != NULL && file->newest->is_resizing)) {
        places |= PLACE_BIT(AT_RESIZE);
    }
    tracking_superblock_free(file->newest);
    file->newest = g_steal_pointer(&new);
    file->told = 0;
    return places;
}

static uint64_t places_of_intents(struct coverage *coverage,
                                  const struct storage_step *step)
{
    uint64_t bytes, places = 0;
    const uint8_t *old =
        storage_memory_peek(coverage->memory, step->path, &bytes);
    const uint8_t *new = step->data;

    for (uint64_t i = 0; old != NULL && i < step->bytes; i++) {
        if (i % STORAGE_SECTOR_BYTES < 16 || step->offset + i >= bytes) {
            continue; /* a sector's own header */
        }
        if ((new[i] & ~old[step->offset + i]) != 0) {
            places |= PLACE_BIT(AT_INTENT_SET);
        }
        if ((old[step->offset + i] & ~new[i]) != 0) {
            places |= PLACE_BIT(AT_INTENT_CLEAR);
        }
    }
    return places;
}

static uint64_t places_of_tracking(struct coverage *coverage,
                                   const struct storage_step *step)
{
    unsigned int disk = (unsigned int)disk_of(step->path);
    struct coverage_file *file = &coverage->files[disk];

    if (g_str_has_suffix(step->path, ".new") ||
        step->kind == STORAGE_STEP_RENAME) {
        forget_file(file);
        return PLACE_BIT(AT_CREATION);
    }
    if (step->kind != STORAGE_STEP_WRITE ||
        !find_layout(coverage, file, step->path)) {
        return 0;
    }
    if (step->offset >= file->layout.pages_offset) {
        return PLACE_BIT(AT_PAGE);
    }
    if (step->offset >= file->layout.intent_offset &&
        step->offset < file->layout.intent_offset +
                           file->layout.intent_sectors * STORAGE_SECTOR_BYTES) {
        return places_of_intents(coverage, step);
    }
    return places_of_superblock(file, disk, step);
}

/*
 * The log.
 */

static int note_record(void *opaque, struct commit_record *record, GError **err)
{
    uint64_t *places = opaque;

    (void)err;
    switch (record->type) {
    case COMMIT_RECORD_BEGIN: *places = PLACE_BIT(AT_BEGIN); break;
    case COMMIT_RECORD_COMMIT: *places = PLACE_BIT(AT_COMMIT); break;
    case COMMIT_RECORD_ABORT: *places = PLACE_BIT(AT_ABORT); break;
    case COMMIT_RECORD_ACKNOWLEDGED: *places = PLACE_BIT(AT_ACKNOWLEDGE); break;
    case COMMIT_RECORD_RETIRED: *places = PLACE_BIT(AT_PURGE); break;
    case COMMIT_RECORD_OUTCOME:
        if (*places == 0) {
            *places = PLACE_BIT(AT_SEAL);
        }
        break;
    case COMMIT_RECORD_DAMAGED: break;
    }
    commit_transaction_free(g_steal_pointer(&record->transaction));
    return 0;
}

/* The last record that the file has after the write. */
static uint64_t places_of_log(struct coverage *coverage,
                              const struct storage_step *step)
{
    uint64_t bytes = 0, places = 0;
    const uint8_t *old =
        storage_memory_peek(coverage->memory, step->path, &bytes);
    uint64_t whole_bytes = MAX(bytes, step->offset + step->bytes);
    g_autofree uint8_t *whole = g_malloc0(whole_bytes);
    struct commit_header header;
    struct commit_file_end end;

    if (step->kind == STORAGE_STEP_UNLINK) {
        return strstr(step->path, ".tmp") != NULL ? 0 : PLACE_BIT(AT_PURGE);
    }
    if (step->kind != STORAGE_STEP_WRITE) {
        return 0;
    }
    if (old != NULL) {
        memcpy(whole, old, bytes);
    }
    memcpy(whole + step->offset, step->data, step->bytes);
    (void)commit_file_parse(whole, whole_bytes, "log", note_record, &places,
                            &header, &end, NULL);
    return places;
}

/*
 * All.
 */

static uint64_t places_of_repository(const struct storage_step *step)
{
    if (strstr(step->path, "started") != NULL) {
        return PLACE_BIT(AT_STARTED);
    }
    if (strstr(step->path, "/prepared") != NULL) {
        return PLACE_BIT(AT_PREPARED);
    }
    if (strstr(step->path, "/point") != NULL) {
        return step->kind == STORAGE_STEP_RENAME ? PLACE_BIT(AT_PUBLISHED) : 0;
    }
    return strstr(step->path, "/data") != NULL &&
                   step->kind == STORAGE_STEP_SYNC
               ? PLACE_BIT(AT_TARGET_FLUSH)
               : 0;
}

static uint64_t places_of_image(struct coverage *coverage,
                                const struct storage_step *step)
{
    if (step->kind == STORAGE_STEP_WRITE) {
        return PLACE_BIT(AT_GUEST_WRITE);
    }
    if (step->kind != STORAGE_STEP_SYNC) {
        return 0;
    }
    return coverage->phase.finalizing > 0 ? PLACE_BIT(AT_SOURCE_FLUSH)
                                          : PLACE_BIT(AT_GUEST_FLUSH);
}

static uint64_t own_places(struct coverage *coverage,
                           const struct storage_step *step)
{
    if (g_str_has_prefix(step->path, "/repo")) {
        return places_of_repository(step);
    }
    if (strstr(step->path, "/commit") != NULL) {
        return places_of_log(coverage, step);
    }
    if (disk_of(step->path) < 0) {
        return 0;
    }
    return strstr(step->path, ".cbt") != NULL
               ? places_of_tracking(coverage, step)
               : places_of_image(coverage, step);
}

static uint64_t close_places(const struct storage_step *step)
{
    if (step->kind != STORAGE_STEP_SYNC &&
        step->kind != STORAGE_STEP_SYNC_NAMES) {
        return 0;
    }
    if (disk_of(step->path) < 0) {
        return PLACE_BIT(AT_CLOSE_LOG);
    }
    return strstr(step->path, ".cbt") != NULL ? PLACE_BIT(AT_CLOSE_TRACKING)
                                              : PLACE_BIT(AT_CLOSE_IMAGE);
}

/* Where what a step leaves becomes durable: the file, or its directory. */
static char *home_of(const struct storage_step *step)
{
    bool is_name = step->kind == STORAGE_STEP_RENAME ||
                   step->kind == STORAGE_STEP_UNLINK ||
                   step->kind == STORAGE_STEP_CREATE;

    return is_name ? g_path_get_dirname(step->path) : g_strdup(step->path);
}

static uint64_t *unsynced_at(struct coverage *coverage, const char *path)
{
    uint64_t *places = g_hash_table_lookup(coverage->unsynced, path);

    if (places == NULL) {
        places = g_new0(uint64_t, 1);
        g_hash_table_insert(coverage->unsynced, g_strdup(path), places);
    }
    return places;
}

static bool is_sync(const struct storage_step *step)
{
    return step->kind == STORAGE_STEP_SYNC ||
           step->kind == STORAGE_STEP_SYNC_NAMES;
}

uint64_t coverage_places(struct coverage *coverage,
                         const struct storage_step *step)
{
    uint64_t places = own_places(coverage, step);

    if (is_sync(step)) {
        places |= *unsynced_at(coverage, step->path);
        if ((places & PLACE_BIT(AT_COMMIT)) != 0) {
            places |= PLACE_BIT(AT_COMMIT_UNSYNCED);
        }
    }
    if (coverage->has_fresh_commit) {
        places |= PLACE_BIT(AT_COMMIT_SYNCED);
    }
    if (coverage->phase.opening) {
        places |= PLACE_BIT(AT_RECOVERY);
        if (coverage->phase.died_opening) {
            places |= PLACE_BIT(AT_RECOVERY_AGAIN);
        }
    }
    if (coverage->phase.closing) {
        places |= close_places(step);
    }
    return places;
}

static const uint64_t of_the_moment =
    PLACE_BIT(AT_COMMIT_SYNCED) | PLACE_BIT(AT_RECOVERY) |
    PLACE_BIT(AT_RECOVERY_AGAIN) | PLACE_BIT(AT_CLOSE_IMAGE) |
    PLACE_BIT(AT_CLOSE_TRACKING) | PLACE_BIT(AT_CLOSE_LOG) |
    PLACE_BIT(AT_COMMIT_UNSYNCED);

static void count(uint64_t *counts, uint64_t places)
{
    for (int i = 0; i < COVERAGE_PLACE_COUNT; i++) {
        counts[i] += places >> i & 1;
    }
}

void coverage_step(struct coverage *coverage,
                   const struct storage_step *step,
                   uint64_t places,
                   bool dies)
{
    const uint64_t abdicated = PLACE_BIT(AT_ABDICATE_0) |
                               PLACE_BIT(AT_ABDICATE_1) |
                               PLACE_BIT(AT_ABDICATE_2);

    count(dies ? coverage->hits : coverage->passed, places);
    if (dies) {
        return;
    }
    if (is_sync(step)) {
        *unsynced_at(coverage, step->path) = 0;
        coverage->has_fresh_commit |=
            (places & PLACE_BIT(AT_COMMIT_UNSYNCED)) != 0;
        coverage->has_fresh_commit &= (places & abdicated) == 0;
    } else {
        g_autofree char *home = home_of(step);

        *unsynced_at(coverage, home) |= places & ~of_the_moment;
    }
}
