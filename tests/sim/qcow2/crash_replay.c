/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `durable` is the file as far as it is synced. A sector that was written since
 * has its versions in order, each with the event that made it; a sync that ends
 * makes those durable that were there when it began. Sizes are kept likewise.
 */
#include <string.h>

#include "base/bytes.h"
#include "qcow2/crash_disk.h"

struct version {
    guint event;
    uint8_t bytes[SECTOR_BYTES];
};

struct size_version {
    guint event;
    uint64_t bytes;
};

struct crash_replay {
    const struct crash_disk *disk;
    uint8_t *durable;
    uint64_t durable_bytes;
    GHashTable *sectors; /* number -> GArray of struct version, not empty */
    GArray *sizes;       /* struct size_version, since the durable one */
    GHashTable *syncs;   /* number -> the event that began it */
};

struct crash_replay *crash_replay_new(const struct crash_disk *disk,
                                      const uint8_t *begun,
                                      uint64_t begun_bytes)
{
    struct crash_replay *replay = g_new0(struct crash_replay, 1);

    replay->disk = disk;
    replay->durable = g_malloc0(CRASH_DISK_BYTES_MAX);
    memcpy(replay->durable, begun, begun_bytes);
    replay->durable_bytes = begun_bytes;
    replay->sectors =
        g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_array_unref);
    replay->sizes = g_array_new(FALSE, FALSE, sizeof(struct size_version));
    replay->syncs = g_hash_table_new(NULL, NULL);
    return replay;
}

void crash_replay_free(struct crash_replay *replay)
{
    g_hash_table_unref(replay->syncs);
    g_array_unref(replay->sizes);
    g_hash_table_unref(replay->sectors);
    g_free(replay->durable);
    g_free(replay);
}

unsigned int crash_replay_unsynced(const struct crash_replay *replay)
{
    return g_hash_table_size(replay->sectors) + replay->sizes->len;
}

static uint64_t newest_size(const struct crash_replay *replay)
{
    return replay->sizes->len == 0
               ? replay->durable_bytes
               : g_array_index(replay->sizes, struct size_version,
                               replay->sizes->len - 1)
                     .bytes;
}

static void add_size(struct crash_replay *replay, guint index, uint64_t bytes)
{
    const struct size_version version = { .event = index, .bytes = bytes };

    g_array_append_val(replay->sizes, version);
}

/* A new version of the sector, equal to the newest so far; to be changed. */
static struct version *add_version(struct crash_replay *replay,
                                   guint index,
                                   uint64_t sector)
{
    gpointer key = (gpointer)(uintptr_t)sector;
    GArray *versions = g_hash_table_lookup(replay->sectors, key);
    struct version version = { .event = index };

    if (versions == NULL) {
        versions = g_array_new(FALSE, FALSE, sizeof(struct version));
        g_hash_table_insert(replay->sectors, key, versions);
        memcpy(version.bytes, replay->durable + sector * SECTOR_BYTES,
               SECTOR_BYTES);
    } else {
        memcpy(version.bytes,
               g_array_index(versions, struct version, versions->len - 1).bytes,
               SECTOR_BYTES);
    }
    g_array_append_val(versions, version);
    return &g_array_index(versions, struct version, versions->len - 1);
}

static void take_write(struct crash_replay *replay,
                       guint index,
                       uint64_t offset,
                       uint64_t bytes,
                       const uint8_t *data)
{
    uint64_t end = offset + bytes;

    for (uint64_t at = offset; at < end;) {
        uint64_t sector = at / SECTOR_BYTES;
        uint64_t part = MIN(end, (sector + 1) * SECTOR_BYTES) - at;
        struct version *version = add_version(replay, index, sector);
        uint8_t *to = version->bytes + at % SECTOR_BYTES;

        if (data == NULL) {
            memset(to, 0, part);
        } else {
            memcpy(to, data + (at - offset), part);
        }
        at += part;
    }
    if (end > newest_size(replay)) {
        add_size(replay, index, end);
    }
}

static void take_resize(struct crash_replay *replay,
                        guint index,
                        uint64_t bytes)
{
    uint64_t old_bytes = newest_size(replay);

    if (bytes < old_bytes) {
        take_write(replay, index, bytes, old_bytes - bytes, NULL);
    }
    add_size(replay, index, bytes);
}

/* What was there before event `began` is durable. */
static void take_sync(struct crash_replay *replay, guint began)
{
    GHashTableIter iter;
    gpointer key;
    gpointer value;

    g_hash_table_iter_init(&iter, replay->sectors);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        GArray *versions = value;
        guint count = 0;

        while (count < versions->len &&
               g_array_index(versions, struct version, count).event < began) {
            count++;
        }
        if (count > 0) {
            memcpy(replay->durable + (uintptr_t)key * SECTOR_BYTES,
                   g_array_index(versions, struct version, count - 1).bytes,
                   SECTOR_BYTES);
            g_array_remove_range(versions, 0, count);
        }
        if (versions->len == 0) {
            g_hash_table_iter_remove(&iter);
        }
    }
    while (replay->sizes->len > 0 &&
           g_array_index(replay->sizes, struct size_version, 0).event < began) {
        replay->durable_bytes =
            g_array_index(replay->sizes, struct size_version, 0).bytes;
        g_array_remove_index(replay->sizes, 0);
    }
}

void crash_replay_step(struct crash_replay *replay, guint index)
{
    const struct crash_event *event =
        &g_array_index(replay->disk->log, struct crash_event, index);
    gpointer number = GUINT_TO_POINTER(event->number);

    switch (event->kind) {
    case EVENT_WRITE:
        take_write(replay, index, event->offset, event->bytes, event->data);
        break;
    case EVENT_RESIZE: take_resize(replay, index, event->bytes); break;
    case EVENT_SYNC_BEGIN:
        g_hash_table_insert(replay->syncs, number, GUINT_TO_POINTER(index));
        break;
    case EVENT_SYNC_END:
        take_sync(replay,
                  GPOINTER_TO_UINT(g_hash_table_lookup(replay->syncs, number)));
        g_hash_table_remove(replay->syncs, number);
        break;
    case EVENT_MARK: break;
    }
}

/* How many of `count` versions a crash leaves; 0: the durable one. */
static guint pick(enum crash_mode mode, struct random *random, guint count)
{
    if (count == 0) {
        return 0;
    }
    switch (mode) {
    case CRASH_NOTHING: return 0;
    case CRASH_SOME: return (guint)random_below(random, count + 1);
    case CRASH_LAST_LOST: return count - (random_once_in(random, 8) ? 1 : 0);
    case CRASH_PROCESS:
    case CRASH_MODES: break;
    }
    return count;
}

void crash_replay_crash(const struct crash_replay *replay,
                        enum crash_mode mode,
                        struct random *random,
                        struct crash_disk *to)
{
    guint size = pick(mode, random, replay->sizes->len);
    uint64_t old_bytes = to->size_bytes;
    GHashTableIter iter;
    gpointer key;
    gpointer value;

    to->size_bytes =
        size == 0
            ? replay->durable_bytes
            : g_array_index(replay->sizes, struct size_version, size - 1).bytes;
    memcpy(to->bytes, replay->durable, to->size_bytes);
    if (old_bytes > to->size_bytes) {
        memset(to->bytes + to->size_bytes, 0, old_bytes - to->size_bytes);
    }
    g_hash_table_iter_init(&iter, replay->sectors);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        const GArray *versions = value;
        uint64_t offset = (uintptr_t)key * SECTOR_BYTES;
        guint count = pick(mode, random, versions->len);

        if (count > 0 && offset < to->size_bytes) {
            memcpy(to->bytes + offset,
                   g_array_index(versions, struct version, count - 1).bytes,
                   MIN(SECTOR_BYTES, to->size_bytes - offset));
        }
    }
}
