/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests do to a storage. */
#include "journal/storage_memory_priv.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/coroutine.h"

struct storage_memory *storage_memory_new(struct random *random)
{
    struct storage_memory *memory = g_new0(struct storage_memory, 1);

    memory->storage.ops = &storage_memory_ops;
    memory->random = random;
    memory->names =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    memory->durable =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    memory->directories =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_hash_table_add(memory->directories, g_strdup("/"));
    memory->changes = g_ptr_array_new_with_free_func(memory_free_change);
    memory->inodes = g_ptr_array_new_with_free_func(memory_inode_free);
    memory->files = g_ptr_array_new_with_free_func(memory_free_file);
    memory->space_bytes = UINT64_MAX;
    return memory;
}

void storage_memory_free(struct storage_memory *memory)
{
    if (memory == NULL) {
        return;
    }
    g_ptr_array_unref(memory->files);
    g_ptr_array_unref(memory->changes);
    g_hash_table_destroy(memory->names);
    g_hash_table_destroy(memory->durable);
    g_hash_table_destroy(memory->directories);
    g_ptr_array_unref(memory->inodes);
    g_free(memory->died_in);
    g_free(memory->fail_sync_suffix);
    g_free(memory->fail_read_suffix);
    g_free(memory->fail_rename_suffix);
    g_free(memory->fail_write_suffix);
    g_free(memory);
}

struct storage *storage_memory_storage(struct storage_memory *memory)
{
    return &memory->storage;
}

void storage_memory_set_clock(struct storage_memory *memory,
                              const uint64_t *clock_ns)
{
    memory->clock_ns = clock_ns;
}

void storage_memory_crash_at(struct storage_memory *memory, uint64_t point)
{
    memory->crash_at = point == 0 ? 0 : memory->points + point;
}

void storage_memory_crash_at_sync(struct storage_memory *memory,
                                  bool names,
                                  uint64_t count)
{
    memory->crash_at_names = names;
    memory->crash_at_sync = count;
}

void storage_memory_observe(struct storage_memory *memory,
                            storage_observe_fn observe,
                            void *opaque)
{
    memory->observe = observe;
    memory->observe_opaque = opaque;
}

bool storage_memory_is_dead(const struct storage_memory *memory)
{
    return memory->dead;
}

const char *storage_memory_died_in(const struct storage_memory *memory)
{
    return memory->died_in;
}

uint64_t storage_memory_points(const struct storage_memory *memory)
{
    return memory->points;
}

/* The cache of a file is dropped, as who opens an image does. */
static void drop_cache(struct inode *inode)
{
    g_byte_array_set_size(inode->data, 0);
    g_byte_array_append(inode->data, inode->durable->data, inode->durable->len);
    inode->modified_ns = inode->durable_modified_ns;
    inode->suspect = false;
}

void storage_memory_drop_suspect_cache(struct storage_memory *memory,
                                       const char *path)
{
    struct inode *inode = g_hash_table_lookup(memory->names, path);

    if (inode != NULL && inode->suspect) {
        memory_lose_data(memory, inode);
        drop_cache(inode);
    }
}

void storage_memory_reboot(struct storage_memory *memory,
                           enum storage_crash crash)
{
    g_assert(memory->files->len == 0);
    memory->dead = false;
    memory->crash_at = 0;
    memory->crash_at_sync = 0;
    if (crash == STORAGE_CRASH_KILL) {
        return;
    }
    memory->boots++;
    for (guint i = 0; i < memory->inodes->len; i++) {
        struct inode *inode = g_ptr_array_index(memory->inodes, i);

        bool is_same = g_hash_table_size(inode->unsynced) == 0 &&
                       !inode->size_unsynced && !inode->suspect;

        memory_lose_data(memory, inode);
        if (is_same) {
            inode->modified_ns = inode->durable_modified_ns;
        } else {
            drop_cache(inode);
        }
    }
    memory_lose_names(memory);
    memory_copy_names(memory->names, memory->durable);
}

void storage_memory_fail_sync(struct storage_memory *memory,
                              const char *suffix,
                              uint64_t count)
{
    g_free(memory->fail_sync_suffix);
    memory->fail_sync_suffix = g_strdup(suffix);
    memory->fail_sync = count;
    memory->fail_syncs_after = 0;
}

void storage_memory_fail_syncs(struct storage_memory *memory,
                               const char *suffix,
                               uint64_t count)
{
    storage_memory_fail_sync(memory, suffix, count > 0);
    memory->fail_syncs_after = count > 0 ? count - 1 : 0;
}

void storage_memory_fail_writes(struct storage_memory *memory,
                                const char *suffix,
                                int error)
{
    g_free(memory->fail_write_suffix);
    memory->fail_write_suffix = g_strdup(suffix);
    memory->fail_write_error = error;
}

void storage_memory_fail_rename_late(struct storage_memory *memory,
                                     const char *suffix)
{
    g_free(memory->fail_rename_suffix);
    memory->fail_rename_suffix = g_strdup(suffix);
}

void storage_memory_fail_reads(struct storage_memory *memory,
                               const char *suffix,
                               int error)
{
    g_free(memory->fail_read_suffix);
    memory->fail_read_suffix = g_strdup(suffix);
    memory->fail_read_error = error;
}

void storage_memory_set_space(struct storage_memory *memory, uint64_t bytes)
{
    memory->space_bytes = bytes;
}

void storage_memory_set_volatile(struct storage_memory *memory, bool is)
{
    memory->is_volatile = is;
}

void storage_memory_sync_all(struct storage_memory *memory)
{
    for (guint i = 0; i < memory->inodes->len; i++) {
        memory_sync_data(g_ptr_array_index(memory->inodes, i));
    }
    for (guint i = 0; i < memory->changes->len; i++) {
        memory_apply_change(memory, g_ptr_array_index(memory->changes, i));
    }
    g_ptr_array_set_size(memory->changes, 0);
}

const uint8_t *storage_memory_peek(struct storage_memory *memory,
                                   const char *path,
                                   uint64_t *ret_bytes)
{
    const struct inode *inode = g_hash_table_lookup(memory->names, path);

    if (inode == NULL) {
        return NULL;
    }
    *ret_bytes = inode->data->len;
    return inode->data->data;
}

void storage_memory_poke(struct storage_memory *memory,
                         const char *path,
                         uint64_t offset,
                         const void *data,
                         uint64_t bytes)
{
    struct inode *inode = g_hash_table_lookup(memory->names, path);

    if (inode == NULL) {
        inode = memory_inode_new(memory);
        memory_change_names(memory, NULL, path, inode);
    }
    memory_write_data(memory, inode, offset, data, bytes);
    storage_memory_sync_all(memory);
}

void storage_memory_make_folder(struct storage_memory *memory, const char *path)
{
    g_hash_table_add(memory->directories, g_strdup(path));
}

void storage_memory_remove(struct storage_memory *memory, const char *path)
{
    memory_change_names(memory, path, NULL, NULL);
    storage_memory_sync_all(memory);
}

void storage_memory_copy(struct storage_memory *memory,
                         const char *from,
                         const char *to,
                         bool keep_times)
{
    const struct inode *source = g_hash_table_lookup(memory->names, from);
    struct inode *copy = memory_inode_new(memory);

    g_byte_array_append(copy->data, source->data->data, source->data->len);
    g_byte_array_append(copy->durable, source->data->data, source->data->len);
    if (keep_times) {
        copy->modified_ns = copy->durable_modified_ns = source->modified_ns;
    }
    memory_change_names(memory, NULL, to, copy);
    storage_memory_sync_all(memory);
}
