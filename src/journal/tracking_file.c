/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Layout of a new file, all parts on multiples of 4096 bytes:
 *
 *     header | slot 0 | slot 1 | intent map | pages ...
 *
 * The slot that is written is always the one that does not hold the last durable
 * superblock: so after a failure the same slot is next, and the durable one is
 * never in danger.
 */
#include "journal/tracking_file.h"

#include <errno.h>

#include "base/error.h"
#include "journal/tracking_file_priv.h"
#include "loop/coroutine.h"

/* A process that was killed may hold its lock for a moment longer. */
#define LOCK_TRIES    200
#define LOCK_PAUSE_NS UINT64_C(10000000)

static char *new_path(const char *path)
{
    return g_strconcat(path, ".new", NULL);
}

static struct tracking_file *file_new(struct storage *storage, const char *path)
{
    struct tracking_file *file = g_new0(struct tracking_file, 1);

    file->storage = storage;
    file->path = g_strdup(path);
    file->syncs = true;
    co_mutex_init(&file->sync_turn);
    return file;
}

static void file_free(struct tracking_file *file)
{
    g_free(file->path);
    g_free(file->map);
    g_free(file->sector_sequences);
    g_free(file->page_used);
    g_free(file);
}

/* The memory that goes with the layout. */
static int file_take_memory(struct tracking_file *file)
{
    const struct tracking_layout *layout = &file->layout;

    file->map = g_try_malloc0_n(layout->intent_sectors, STORAGE_SECTOR_BYTES);
    file->sector_sequences = g_try_new0(uint64_t, layout->intent_sectors);
    file->page_used = g_try_new0(bool, layout->page_count + 1);
    return file->map == NULL || file->sector_sequences == NULL ||
                   file->page_used == NULL
               ? -ENOMEM
               : 0;
}

/*
 * Making a file.
 */

static void plan_layout(const struct tracking_needs *needs,
                        struct tracking_layout *ret)
{
    const uint64_t unit = TRACKING_PAGE_BYTES;
    uint64_t sectors =
        divide_round_up(needs->region_count, TRACKING_SECTOR_REGIONS);

    *ret = (struct tracking_layout){
        .disk_id = needs->disk_id,
        .region_bytes = needs->region_bytes,
        .region_count = sectors * TRACKING_SECTOR_REGIONS,
        .slot_bytes = round_up(needs->superblock_bytes, unit),
        .intent_sectors = sectors,
        .page_count = needs->page_count,
    };
    ret->slot_offset[0] = TRACKING_HEADER_BYTES;
    ret->slot_offset[1] = ret->slot_offset[0] + ret->slot_bytes;
    ret->intent_offset = ret->slot_offset[1] + ret->slot_bytes;
    ret->pages_offset =
        ret->intent_offset + round_up(sectors * STORAGE_SECTOR_BYTES, unit);
}

bool tracking_file_fits(const struct tracking_file *file,
                        const struct tracking_needs *needs)
{
    return file->failed_syncs == 0 &&
           file->layout.region_bytes == needs->region_bytes &&
           file->layout.region_count >= needs->region_count &&
           file->layout.slot_bytes >= needs->superblock_bytes &&
           file->layout.page_count >= needs->page_count;
}

static int co_write_out(struct tracking_file *file)
{
    g_autofree uint8_t *header = g_malloc(TRACKING_HEADER_BYTES);
    int ret = co_storage_allocate(file->file, 0,
                                  tracking_layout_bytes(&file->layout));

    if (ret == 0) {
        tracking_header_encode(&file->layout, header);
        ret = co_storage_write(file->file, 0, header, TRACKING_HEADER_BYTES);
    }
    if (ret == 0) {
        ret = co_tracking_file_write_sectors(file, 0,
                                             file->layout.intent_sectors);
    }
    return ret == 0 ? co_tracking_file_sync(file) : ret;
}

int co_tracking_file_create(struct storage *storage,
                            const char *path,
                            const struct tracking_needs *needs,
                            struct tracking_file **ret_file,
                            GError **err)
{
    struct tracking_file *file = file_new(storage, path);
    g_autofree char *name = new_path(path);
    int ret;

    plan_layout(needs, &file->layout);
    ret = file_take_memory(file);
    if (ret == 0) {
        (void)co_storage_unlink(storage, name); /* left by a crash, if any */
        ret = co_storage_open(storage, name, STORAGE_CREATE, &file->file, err);
        if (ret < 0) {
            file_free(file);
            return ret;
        }
        ret = co_storage_lock(file->file, true);
    }
    if (ret == 0) {
        ret = co_storage_open_again(file->file, &file->intents);
    }
    if (ret == 0) {
        ret = co_write_out(file);
    }
    if (ret < 0) {
        error_set_errno(err, ret,
                        "cannot write tracking file '%s' (%" G_GUINT64_FORMAT
                        " bytes) in full",
                        name, tracking_layout_bytes(&file->layout));
        co_tracking_file_close(&file);
        return ret;
    }
    *ret_file = file;
    return 0;
}

int co_tracking_file_sync_name(struct tracking_file *file)
{
    g_autofree char *directory = g_path_get_dirname(file->path);

    return file->syncs ? co_storage_sync_directory(file->storage, directory)
                       : 0;
}

int co_tracking_file_publish(struct tracking_file *file)
{
    g_autofree char *name = new_path(file->path);
    int ret = co_storage_rename(file->storage, name, file->path);

    file->is_published = ret == 0 || storage_rename_may_hold(ret);
    return ret == 0 ? co_tracking_file_sync_name(file) : ret;
}

void co_tracking_file_close(struct tracking_file **file)
{
    struct tracking_file *closed = g_steal_pointer(file);

    if (closed == NULL) {
        return;
    }
    if (!closed->is_published && closed->file != NULL) {
        g_autofree char *name = new_path(closed->path);

        (void)co_storage_unlink(closed->storage, name); /* of no meaning */
    }
    co_storage_close(&closed->intents);
    co_storage_close(&closed->file);
    file_free(closed);
}

/*
 * Opening a file.
 */

static int co_lock(struct tracking_file *file, GError **err)
{
    int ret = co_storage_lock(file->file, true);

    for (int i = 0; ret == -EAGAIN && i < LOCK_TRIES; i++) {
        co_sleep_until(loop_now_ns() + LOCK_PAUSE_NS);
        ret = co_storage_lock(file->file, true);
    }
    if (ret == -EAGAIN) {
        return error_set(err, ret,
                         "tracking file '%s' is in use: another node or "
                         "process has the image open and tracks it",
                         file->path);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot lock tracking file '%s'",
                               file->path);
    }
    return 0;
}

static int co_read_header(struct tracking_file *file, GError **err)
{
    g_autofree uint8_t *header = g_malloc(TRACKING_HEADER_BYTES);
    uint64_t bytes = 0;
    int ret = co_storage_size(file->file, &bytes);

    if (ret == 0) {
        ret = co_storage_read(file->file, 0, header, TRACKING_HEADER_BYTES);
    }
    if (ret < 0 && ret != -ENODATA) {
        return error_set_errno(err, ret, "cannot read tracking file '%s'",
                               file->path);
    }
    if (ret == -ENODATA) {
        return error_set(err, -EINVAL, "tracking file '%s' is cut off",
                         file->path);
    }
    ret = tracking_header_decode(header, file->path, &file->layout, err);
    if (ret == 0 && tracking_layout_bytes(&file->layout) > bytes) {
        return error_set(err, -EINVAL, "tracking file '%s' is cut off",
                         file->path);
    }
    return ret;
}

/* NULL: the slot holds no valid one, or cannot be read. */
static struct tracking_superblock *co_read_slot(struct tracking_file *file,
                                                unsigned int slot)
{
    const struct tracking_layout *layout = &file->layout;
    g_autofree uint8_t *bytes = g_try_malloc(layout->slot_bytes);
    uint64_t length;

    if (bytes == NULL || co_storage_read(file->file, layout->slot_offset[slot],
                                         bytes, TRACKING_PAGE_BYTES) < 0) {
        return NULL;
    }
    length = tracking_superblock_length(bytes, layout);
    if (length > TRACKING_PAGE_BYTES &&
        co_storage_read(file->file, layout->slot_offset[slot], bytes, length) <
            0) {
        return NULL;
    }
    return length == 0 ? NULL
                       : tracking_superblock_decode(bytes, length, layout);
}

static void co_choose_superblock(struct tracking_file *file,
                                 struct tracking_superblock **ret_superblock)
{
    g_autoptr(tracking_superblock) first = co_read_slot(file, 0);
    g_autoptr(tracking_superblock) second = co_read_slot(file, 1);

    file->durable_slot =
        first == NULL || (second != NULL && second->sequence > first->sequence);
    *ret_superblock = file->durable_slot == 1 ? g_steal_pointer(&second)
                                              : g_steal_pointer(&first);
    if (*ret_superblock != NULL) {
        file->sequence = (*ret_superblock)->sequence;
        tracking_file_use_pages(file, *ret_superblock);
    }
}

static int co_read_map(struct tracking_file *file)
{
    const struct tracking_layout *layout = &file->layout;
    int ret = co_storage_read(file->file, layout->intent_offset, file->map,
                              layout->intent_sectors * STORAGE_SECTOR_BYTES);

    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < layout->intent_sectors; i++) {
        tracking_sector_check(file->map + i * STORAGE_SECTOR_BYTES, (uint32_t)i,
                              &file->sector_sequences[i]);
    }
    return 0;
}

static int co_open_and_read(struct tracking_file *file,
                            struct tracking_superblock **ret_superblock,
                            GError **err)
{
    int ret = co_storage_open(file->storage, file->path, STORAGE_WRITABLE,
                              &file->file, err);

    if (ret == 0) {
        ret = co_lock(file, err);
    }
    if (ret == 0) {
        ret = co_read_header(file, err);
    }
    if (ret < 0) {
        return ret;
    }
    ret = file_take_memory(file);
    if (ret == 0) {
        ret = co_storage_open_again(file->file, &file->intents);
    }
    if (ret == 0) {
        ret = co_read_map(file);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot read tracking file '%s'",
                               file->path);
    }
    co_choose_superblock(file, ret_superblock);
    return 0;
}

int co_tracking_file_open(struct storage *storage,
                          const char *path,
                          struct tracking_file **ret_file,
                          struct tracking_superblock **ret_superblock,
                          GError **err)
{
    struct tracking_file *file = file_new(storage, path);
    int ret;

    file->is_published = true;
    ret = co_open_and_read(file, ret_superblock, err);
    if (ret < 0) {
        co_tracking_file_close(&file);
        return ret;
    }
    *ret_file = file;
    return 0;
}

static int co_rewrite_pages(struct tracking_file *file)
{
    g_autofree uint8_t *page = g_malloc(TRACKING_PAGE_BYTES);
    int ret = 0;

    for (uint32_t number = 1; ret == 0 && number <= file->layout.page_count;
         number++) {
        if (file->page_used[number - 1]) {
            ret = co_tracking_file_read_page(file, number, page);
            if (ret == 0) {
                ret = co_tracking_file_write_page(file, number, page);
            }
        }
    }
    return ret;
}

/* The very bytes: what is torn half-way is the same as before. */
static int co_rewrite_superblock(struct tracking_file *file)
{
    uint64_t offset = file->layout.slot_offset[file->durable_slot];
    g_autofree uint8_t *bytes = g_try_malloc(file->layout.slot_bytes);
    uint64_t length;
    int ret;

    if (bytes == NULL) {
        return -ENOMEM;
    }
    ret = co_storage_read(file->file, offset, bytes, file->layout.slot_bytes);
    length = ret < 0 ? 0 : tracking_superblock_length(bytes, &file->layout);
    return ret < 0 ? ret : co_storage_write(file->file, offset, bytes, length);
}

int co_tracking_file_rewrite(struct tracking_file *file)
{
    int ret = co_rewrite_pages(file);

    if (ret == 0) {
        ret = co_tracking_file_write_sectors(file, 0,
                                             file->layout.intent_sectors);
    }
    if (ret == 0) {
        ret = co_rewrite_superblock(file);
    }
    if (ret == 0) {
        ret = co_tracking_file_sync(file);
    }
    return ret == 0 ? co_tracking_file_sync_name(file) : ret;
}

/*
 * Parts.
 */

static uint64_t page_offset(const struct tracking_file *file, uint32_t number)
{
    g_assert(number >= 1 && number <= file->layout.page_count);
    return file->layout.pages_offset +
           (uint64_t)(number - 1) * TRACKING_PAGE_BYTES;
}

int co_tracking_file_read_page(struct tracking_file *file,
                               uint32_t number,
                               uint8_t ret_bytes[TRACKING_PAGE_BYTES])
{
    return co_storage_read(file->file, page_offset(file, number), ret_bytes,
                           TRACKING_PAGE_BYTES);
}

int co_tracking_file_write_page(struct tracking_file *file,
                                uint32_t number,
                                const uint8_t bytes[TRACKING_PAGE_BYTES])
{
    int ret = co_storage_write(file->file, page_offset(file, number), bytes,
                               TRACKING_PAGE_BYTES);

    /* Afterwards: a sync that began meanwhile does not count. */
    file->has_unsynced_pages |= !file->syncs;
    return ret;
}

int co_tracking_file_write_sectors(struct tracking_file *file,
                                   uint64_t first,
                                   uint64_t count)
{
    uint8_t *sectors = file->map + first * STORAGE_SECTOR_BYTES;
    g_autofree uint8_t *copy = NULL;

    g_assert(first + count <= file->layout.intent_sectors);
    for (uint64_t i = 0; i < count; i++) {
        tracking_sector_seal(sectors + i * STORAGE_SECTOR_BYTES,
                             (uint32_t)(first + i),
                             file->sector_sequences[first + i]);
    }
    /* The map may change while it is written. */
    copy = g_memdup2(sectors, count * STORAGE_SECTOR_BYTES);
    return co_storage_write(
        file->file, file->layout.intent_offset + first * STORAGE_SECTOR_BYTES,
        copy, count * STORAGE_SECTOR_BYTES);
}

/* Makes durable what was written when so many syncs had failed: if one has since,
 * it may have been told of an error that is ours. */
static int co_sync_since(struct tracking_file *file, unsigned int failed_syncs)
{
    int ret;

    if (!file->syncs) {
        return 0;
    }
    co_mutex_lock(&file->sync_turn);
    file->has_unsynced_pages = false;
    ret =
        file->failed_syncs != failed_syncs ? -EIO : co_storage_sync(file->file);
    if (ret < 0) {
        file->failed_syncs++; /* nothing of it counts from now on */
    }
    co_mutex_unlock(&file->sync_turn);
    return ret;
}

int co_tracking_file_sync(struct tracking_file *file)
{
    return co_sync_since(file, 0);
}

/* The other handle will be told of the error, too: now, and not when the poison is
 * synced. Whose error it was nobody can say then. */
static void co_note_failed_intents(struct tracking_file *file)
{
    co_mutex_lock(&file->sync_turn);
    file->failed_syncs++;
    (void)co_storage_sync(file->file);
    co_mutex_unlock(&file->sync_turn);
}

int co_tracking_file_sync_intents(struct tracking_file *file)
{
    int ret = file->syncs ? co_storage_sync(file->intents) : 0;

    if (ret < 0) {
        co_note_failed_intents(file);
    }
    return ret == 0 && file->failed_syncs > 0 ? -EIO : ret;
}

int co_tracking_file_flip_since(struct tracking_file *file,
                                struct tracking_superblock *superblock,
                                unsigned int failed_syncs)
{
    g_autoptr(GByteArray) bytes = NULL;
    unsigned int slot = 1 - file->durable_slot;
    int ret;

    superblock->sequence = ++file->sequence;
    bytes = tracking_superblock_encode(superblock);
    g_assert(bytes->len <= file->layout.slot_bytes);
    ret = co_storage_write(file->file, file->layout.slot_offset[slot],
                           bytes->data, bytes->len);
    if (ret == 0) {
        ret = co_sync_since(file, failed_syncs);
    }
    if (ret == 0) {
        file->durable_slot = slot;
        tracking_file_use_pages(file, superblock);
    }
    return ret;
}

int co_tracking_file_flip(struct tracking_file *file,
                          struct tracking_superblock *superblock)
{
    return co_tracking_file_flip_since(file, superblock, 0);
}

void tracking_file_use_pages(struct tracking_file *file,
                             const struct tracking_superblock *superblock)
{
    memset(file->page_used, 0, file->layout.page_count * sizeof(bool));
    for (guint i = 0; i < superblock->bitmaps->len; i++) {
        const struct tracked_bitmap *bitmap =
            g_ptr_array_index(superblock->bitmaps, i);

        for (int set = 0; set < TRACKED_SETS; set++) {
            for (uint32_t page = 0;
                 bitmap->pages[set] != NULL && page < bitmap->page_count;
                 page++) {
                uint32_t number = bitmap->pages[set][page].number;

                if (number != 0) {
                    file->page_used[number - 1] = true;
                }
            }
        }
    }
}
