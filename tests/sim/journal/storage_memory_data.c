/* SPDX-License-Identifier: BSD-3-Clause */
/* What is written, synced, lost; and the same of names. */
#include "journal/storage_memory_priv.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/coroutine.h"

int64_t memory_now(const struct storage_memory *memory)
{
    return memory->clock_ns == NULL ? 1 : (int64_t)*memory->clock_ns;
}

static void free_versions(void *opaque)
{
    g_ptr_array_unref(opaque);
}

struct inode *memory_inode_new(struct storage_memory *memory)
{
    struct inode *inode = g_new0(struct inode, 1);

    inode->number = memory->inodes->len + 1;
    inode->data = g_byte_array_new();
    inode->durable = g_byte_array_new();
    inode->unsynced =
        g_hash_table_new_full(g_direct_hash, NULL, NULL, free_versions);
    inode->modified_ns = inode->changed_ns = inode->born_ns =
        memory_now(memory);
    inode->durable_modified_ns = inode->modified_ns;
    g_ptr_array_add(memory->inodes, inode);
    return inode;
}

void memory_inode_free(void *opaque)
{
    struct inode *inode = opaque;

    g_free(inode->name);
    g_byte_array_unref(inode->data);
    g_byte_array_unref(inode->durable);
    g_hash_table_destroy(inode->unsynced);
    g_free(inode);
}

void memory_free_change(void *opaque)
{
    struct name_change *change = opaque;

    g_free(change->directory);
    g_free(change->gone);
    g_free(change->come);
    g_free(change);
}

void memory_free_file(void *opaque)
{
    struct memory_file *file = opaque;

    g_free(file->file.path);
    g_free(file);
}

/*
 * Data.
 */

void memory_remember_version(struct inode *inode, uint64_t sector)
{
    void *key = GUINT_TO_POINTER((guint)sector);
    GPtrArray *versions = g_hash_table_lookup(inode->unsynced, key);
    uint8_t *version = g_malloc0(SECTOR);
    uint64_t at = sector * SECTOR;

    if (versions == NULL) {
        versions = g_ptr_array_new_with_free_func(g_free);
        g_hash_table_insert(inode->unsynced, key, versions);
    }
    if (at < inode->data->len) {
        memcpy(version, inode->data->data + at,
               MIN(SECTOR, inode->data->len - at));
    }
    g_ptr_array_add(versions, version);
}

void memory_grow(GByteArray *bytes, uint64_t size)
{
    guint old = bytes->len;

    if (size > old) {
        g_byte_array_set_size(bytes, (guint)size);
        memset(bytes->data + old, 0, size - old);
    }
}

/* Writes and remembers what each sector was like. */
void memory_write_data(struct storage_memory *memory,
                       struct inode *inode,
                       uint64_t offset,
                       const uint8_t *data,
                       uint64_t bytes)
{
    if (bytes == 0) {
        return;
    }
    if (offset + bytes > inode->data->len) {
        memory_grow(inode->data, offset + bytes);
        inode->size_unsynced = true;
    }
    memcpy(inode->data->data + offset, data, bytes);
    inode->modified_ns = inode->changed_ns = memory_now(memory);
    for (uint64_t sector = offset / SECTOR;
         sector <= (offset + bytes - 1) / SECTOR; sector++) {
        memory_remember_version(inode, sector);
    }
}

static void set_sector(struct inode *inode,
                       uint64_t sector,
                       const uint8_t *from)
{
    uint64_t at = sector * SECTOR;

    memory_grow(inode->durable, at + SECTOR);
    memcpy(inode->durable->data + at, from, SECTOR);
}

/* All that was written is durable. */
void memory_sync_data(struct inode *inode)
{
    GHashTableIter iter;
    void *key;
    void *value;

    g_hash_table_iter_init(&iter, inode->unsynced);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        GPtrArray *versions = value;

        set_sector(inode, GPOINTER_TO_UINT(key),
                   g_ptr_array_index(versions, versions->len - 1));
    }
    g_hash_table_remove_all(inode->unsynced);
    memory_grow(inode->durable, inode->data->len);
    g_byte_array_set_size(inode->durable, inode->data->len);
    inode->size_unsynced = false;
    inode->durable_modified_ns = inode->modified_ns;
}

/* Some of it is. The rest is what it was; nobody will write it any more. */
void memory_lose_data(struct storage_memory *memory, struct inode *inode)
{
    GHashTableIter iter;
    void *key;
    void *value;

    g_hash_table_iter_init(&iter, inode->unsynced);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        GPtrArray *versions = value;
        uint64_t chosen = random_below(memory->random, versions->len + 1);

        if (chosen > 0) {
            set_sector(inode, GPOINTER_TO_UINT(key),
                       g_ptr_array_index(versions, (guint)chosen - 1));
        }
    }
    g_hash_table_remove_all(inode->unsynced);
    if (inode->size_unsynced && random_once_in(memory->random, 2)) {
        memory_grow(inode->durable, inode->data->len);
        g_byte_array_set_size(inode->durable, inode->data->len);
    }
    if (inode->durable->len < inode->data->len && !inode->size_unsynced) {
        memory_grow(inode->durable, inode->data->len);
    }
    inode->size_unsynced = false;
    if (random_once_in(memory->random, 2)) {
        inode->durable_modified_ns = inode->modified_ns;
    }
}

/*
 * Names.
 */

void memory_change_names(struct storage_memory *memory,
                         const char *gone,
                         const char *come,
                         struct inode *inode)
{
    struct name_change *change = g_new0(struct name_change, 1);

    change->directory = g_path_get_dirname(come != NULL ? come : gone);
    change->gone = g_strdup(gone);
    change->come = g_strdup(come);
    change->inode = inode;
    g_ptr_array_add(memory->changes, change);
    if (gone != NULL) {
        g_hash_table_remove(memory->names, gone);
    }
    if (come != NULL) {
        g_free(inode->name);
        inode->name = g_strdup(come);
        g_hash_table_replace(memory->names, g_strdup(come), inode);
    }
}

void memory_apply_change(struct storage_memory *memory,
                         const struct name_change *change)
{
    if (change->gone != NULL) {
        g_hash_table_remove(memory->durable, change->gone);
    }
    if (change->come != NULL) {
        g_hash_table_replace(memory->durable, g_strdup(change->come),
                             change->inode);
    }
}

void memory_sync_names(struct storage_memory *memory, const char *directory)
{
    for (guint i = 0; i < memory->changes->len;) {
        const struct name_change *change =
            g_ptr_array_index(memory->changes, i);

        if (strcmp(change->directory, directory) != 0) {
            i++;
            continue;
        }
        memory_apply_change(memory, change);
        g_ptr_array_remove_index(memory->changes, i);
    }
}

void memory_lose_names(struct storage_memory *memory)
{
    for (guint i = 0; i < memory->changes->len; i++) {
        if (random_once_in(memory->random, 2)) {
            memory_apply_change(memory, g_ptr_array_index(memory->changes, i));
        }
    }
    g_ptr_array_set_size(memory->changes, 0);
}

void memory_copy_names(GHashTable *to, GHashTable *from)
{
    GHashTableIter iter;
    void *key;
    void *value;

    g_hash_table_remove_all(to);
    g_hash_table_iter_init(&iter, from);
    while (g_hash_table_iter_next(&iter, &key, &value)) {
        g_hash_table_replace(to, g_strdup(key), value);
    }
}
