/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/storage_memory.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/coroutine.h"

#define SECTOR STORAGE_SECTOR_BYTES

/* A file, whatever names it has. */
struct inode {
    uint64_t number;
    GByteArray *data;    /* as the page cache has it */
    GByteArray *durable; /* as the disk has it */
    /* Sector -> GPtrArray of versions (g_malloc'ed sectors) that were written
     * since the last sync, oldest first. */
    GHashTable *unsynced;
    bool size_unsynced;
    bool suspect; /* a sync failed: the cache shows what the disk lacks */
    unsigned int opens;
    struct memory_file *lock_owner; /* of an exclusive lock */
    unsigned int shared_locks;
    int64_t modified_ns;
    int64_t durable_modified_ns;
    int64_t changed_ns;
    int64_t born_ns;
};

/* A change of names that is not durable yet. */
struct name_change {
    char *directory;
    char *gone; /* NULL: none */
    char *come; /* NULL: none */
    struct inode *inode;
};

struct memory_file {
    struct storage_file file; /* first */
    struct inode *inode;
    bool writable;
    bool has_shared_lock;
};

struct storage_memory {
    struct storage storage; /* first */
    struct random *random;
    GHashTable *names;   /* path -> inode; as seen */
    GHashTable *durable; /* ... as on disk */
    GHashTable *directories;
    GPtrArray *changes; /* struct name_change */
    GPtrArray *inodes;  /* all, owned */
    GPtrArray *files;   /* struct memory_file that are open, owned */
    const uint64_t *clock_ns;
    uint64_t points;
    uint64_t crash_at; /* value of points; 0: never */
    bool dead;
    uint64_t boots;
    uint64_t fail_sync;
    char *fail_sync_suffix;
    char *fail_write_suffix;
    int fail_write_error;
    uint64_t space_bytes;
    bool is_volatile;
};

static struct storage_memory *memory_of(struct storage *storage)
{
    return (struct storage_memory *)(void *)storage;
}

static struct memory_file *file_of(struct storage_file *file)
{
    return (struct memory_file *)(void *)file;
}

static int64_t now(const struct storage_memory *memory)
{
    return memory->clock_ns == NULL ? 1 : (int64_t)*memory->clock_ns;
}

static void free_versions(void *opaque)
{
    g_ptr_array_unref(opaque);
}

static struct inode *inode_new(struct storage_memory *memory)
{
    struct inode *inode = g_new0(struct inode, 1);

    inode->number = memory->inodes->len + 1;
    inode->data = g_byte_array_new();
    inode->durable = g_byte_array_new();
    inode->unsynced =
        g_hash_table_new_full(g_direct_hash, NULL, NULL, free_versions);
    inode->modified_ns = inode->changed_ns = inode->born_ns = now(memory);
    inode->durable_modified_ns = inode->modified_ns;
    g_ptr_array_add(memory->inodes, inode);
    return inode;
}

static void inode_free(void *opaque)
{
    struct inode *inode = opaque;

    g_byte_array_unref(inode->data);
    g_byte_array_unref(inode->durable);
    g_hash_table_destroy(inode->unsynced);
    g_free(inode);
}

static void free_change(void *opaque)
{
    struct name_change *change = opaque;

    g_free(change->directory);
    g_free(change->gone);
    g_free(change->come);
    g_free(change);
}

static void free_file(void *opaque)
{
    struct memory_file *file = opaque;

    g_free(file->file.path);
    g_free(file);
}

/*
 * Crash points.
 */

/* Every operation passes here. 0, -EIO when dead; `*ret_dies`: it dies now, and
 * may still do a part of its work. */
static int co_pass(struct storage_memory *memory, bool *ret_dies)
{
    *ret_dies = false;
    co_reschedule();
    if (memory->dead) {
        return -EIO;
    }
    memory->points++;
    if (memory->points == memory->crash_at) {
        memory->dead = true;
        *ret_dies = true;
    }
    return 0;
}

static bool fails_writes(const struct storage_memory *memory, const char *path)
{
    return memory->fail_write_suffix != NULL &&
           g_str_has_suffix(path, memory->fail_write_suffix);
}

/*
 * Data.
 */

static void remember_version(struct inode *inode, uint64_t sector)
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

static void grow(GByteArray *bytes, uint64_t size)
{
    guint old = bytes->len;

    if (size > old) {
        g_byte_array_set_size(bytes, (guint)size);
        memset(bytes->data + old, 0, size - old);
    }
}

/* Writes and remembers what each sector was like. */
static void write_data(struct storage_memory *memory,
                       struct inode *inode,
                       uint64_t offset,
                       const uint8_t *data,
                       uint64_t bytes)
{
    if (bytes == 0) {
        return;
    }
    if (offset + bytes > inode->data->len) {
        grow(inode->data, offset + bytes);
        inode->size_unsynced = true;
    }
    memcpy(inode->data->data + offset, data, bytes);
    inode->modified_ns = inode->changed_ns = now(memory);
    for (uint64_t sector = offset / SECTOR;
         sector <= (offset + bytes - 1) / SECTOR; sector++) {
        remember_version(inode, sector);
    }
}

static void set_sector(struct inode *inode,
                       uint64_t sector,
                       const uint8_t *from)
{
    uint64_t at = sector * SECTOR;

    grow(inode->durable, at + SECTOR);
    memcpy(inode->durable->data + at, from, SECTOR);
}

/* All that was written is durable. */
static void sync_data(struct inode *inode)
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
    grow(inode->durable, inode->data->len);
    g_byte_array_set_size(inode->durable, inode->data->len);
    inode->size_unsynced = false;
    inode->durable_modified_ns = inode->modified_ns;
}

/* Some of it is. The rest is what it was; nobody will write it any more. */
static void lose_data(struct storage_memory *memory, struct inode *inode)
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
        grow(inode->durable, inode->data->len);
        g_byte_array_set_size(inode->durable, inode->data->len);
    }
    if (inode->durable->len < inode->data->len && !inode->size_unsynced) {
        grow(inode->durable, inode->data->len);
    }
    inode->size_unsynced = false;
    if (random_once_in(memory->random, 2)) {
        inode->durable_modified_ns = inode->modified_ns;
    }
}

/*
 * Names.
 */

static void change_names(struct storage_memory *memory,
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
        g_hash_table_replace(memory->names, g_strdup(come), inode);
    }
}

static void apply_change(struct storage_memory *memory,
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

static void sync_names(struct storage_memory *memory, const char *directory)
{
    for (guint i = 0; i < memory->changes->len;) {
        const struct name_change *change =
            g_ptr_array_index(memory->changes, i);

        if (strcmp(change->directory, directory) != 0) {
            i++;
            continue;
        }
        apply_change(memory, change);
        g_ptr_array_remove_index(memory->changes, i);
    }
}

static void lose_names(struct storage_memory *memory)
{
    for (guint i = 0; i < memory->changes->len; i++) {
        if (random_once_in(memory->random, 2)) {
            apply_change(memory, g_ptr_array_index(memory->changes, i));
        }
    }
    g_ptr_array_set_size(memory->changes, 0);
}

static void copy_names(GHashTable *to, GHashTable *from)
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

/*
 * The operations.
 */

static int co_memory_open(struct storage *storage,
                          const char *path,
                          unsigned int flags,
                          struct storage_file **ret_file,
                          GError **err)
{
    struct storage_memory *memory = memory_of(storage);
    struct inode *inode;
    struct memory_file *file;
    int ret = 0;

    co_reschedule();
    inode = g_hash_table_lookup(memory->names, path);
    if (memory->dead) {
        ret = -EIO;
    } else if ((flags & STORAGE_CREATE) != 0) {
        bool dies;

        ret = co_pass(memory, &dies);
        inode = g_hash_table_lookup(memory->names, path);
        if (ret == 0 && (inode != NULL ||
                         g_hash_table_contains(memory->directories, path))) {
            ret = -EEXIST;
        } else if (ret == 0 && (!dies || random_once_in(memory->random, 2))) {
            inode = inode_new(memory);
            change_names(memory, NULL, path, inode);
        }
        if (ret == 0 && dies) {
            ret = -EIO;
        }
    } else if (inode == NULL) {
        ret = -ENOENT;
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot open '%s'", path);
    }
    file = g_new0(struct memory_file, 1);
    file->file.storage = storage;
    file->file.path = g_strdup(path);
    file->inode = inode;
    file->writable = (flags & (STORAGE_WRITABLE | STORAGE_CREATE)) != 0;
    inode->opens++;
    g_ptr_array_add(memory->files, file);
    *ret_file = &file->file;
    return 0;
}

static void unlock(struct memory_file *file)
{
    struct inode *inode = file->inode;

    if (inode->lock_owner == file) {
        inode->lock_owner = NULL;
    }
    if (file->has_shared_lock) {
        file->has_shared_lock = false;
        inode->shared_locks--;
    }
}

static void co_memory_close(struct storage_file *closed)
{
    struct storage_memory *memory = memory_of(closed->storage);
    struct memory_file *file = file_of(closed);

    unlock(file);
    file->inode->opens--;
    g_ptr_array_remove_fast(memory->files, file);
}

static int co_memory_read(struct storage_file *opened,
                          uint64_t offset,
                          void *buffer,
                          uint64_t bytes)
{
    const struct inode *inode = file_of(opened)->inode;

    co_reschedule();
    if (memory_of(opened->storage)->dead) {
        return -EIO;
    }
    if (!bytes_range_within(offset, bytes, inode->data->len)) {
        return -ENODATA;
    }
    memcpy(buffer, inode->data->data + offset, bytes);
    return 0;
}

static uint64_t used_bytes(const struct storage_memory *memory)
{
    GHashTableIter iter;
    void *value;
    uint64_t used = 0;

    g_hash_table_iter_init(&iter, memory->names);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        used += ((struct inode *)value)->data->len;
    }
    return used;
}

static int co_memory_write(struct storage_file *opened,
                           uint64_t offset,
                           const void *buffer,
                           uint64_t bytes)
{
    struct storage_memory *memory = memory_of(opened->storage);
    struct memory_file *file = file_of(opened);
    uint64_t end = offset + bytes;
    bool dies;
    int ret;

    g_assert(file->writable);
    ret = co_pass(memory, &dies);
    if (ret < 0) {
        return ret;
    }
    if (fails_writes(memory, opened->path)) {
        return memory->fail_write_error;
    }
    if (end > file->inode->data->len &&
        used_bytes(memory) + end - file->inode->data->len >
            memory->space_bytes) {
        return -ENOSPC;
    }
    if (dies) {
        bytes = random_below(memory->random, bytes / SECTOR + 1) * SECTOR;
    }
    write_data(memory, file->inode, offset, buffer, bytes);
    return dies ? -EIO : 0;
}

static int co_memory_allocate(struct storage_file *opened,
                              uint64_t offset,
                              uint64_t bytes)
{
    g_autofree uint8_t *zeroes = g_malloc0(bytes);

    return co_memory_write(opened, offset, zeroes, bytes);
}

static int co_memory_truncate(struct storage_file *opened, uint64_t bytes)
{
    struct storage_memory *memory = memory_of(opened->storage);
    struct inode *inode = file_of(opened)->inode;
    bool dies;
    int ret = co_pass(memory, &dies);
    uint64_t old = inode->data->len;

    if (ret < 0) {
        return ret;
    }
    if (!dies || random_once_in(memory->random, 2)) {
        grow(inode->data, bytes);
        g_byte_array_set_size(inode->data, (guint)bytes);
        inode->size_unsynced |= bytes != old;
        inode->modified_ns = inode->changed_ns = now(memory);
        /* What is cut off and comes back reads as zeroes. */
        for (uint64_t at = round_down(bytes, SECTOR); at < old; at += SECTOR) {
            remember_version(inode, at / SECTOR);
        }
    }
    return dies ? -EIO : 0;
}

static int co_memory_sync(struct storage_file *opened)
{
    struct storage_memory *memory = memory_of(opened->storage);
    struct inode *inode = file_of(opened)->inode;
    bool dies;
    int ret = co_pass(memory, &dies);

    if (ret < 0) {
        return ret;
    }
    if (dies) {
        return -EIO; /* the reboot loses what it loses */
    }
    if (fails_writes(memory, opened->path)) {
        lose_data(memory, inode);
        return memory->fail_write_error;
    }
    if (memory->fail_sync > 0 &&
        (memory->fail_sync_suffix == NULL ||
         g_str_has_suffix(opened->path, memory->fail_sync_suffix)) &&
        --memory->fail_sync == 0) {
        lose_data(memory, inode);
        inode->suspect = true;
        return -EIO;
    }
    sync_data(inode);
    return 0;
}

static int co_memory_size(struct storage_file *file, uint64_t *ret_bytes)
{
    *ret_bytes = file_of(file)->inode->data->len;
    return memory_of(file->storage)->dead ? -EIO : 0;
}

static void stat_inode(const struct inode *inode, struct storage_stat *ret)
{
    *ret = (struct storage_stat){
        .kind = STORAGE_REGULAR,
        .size_bytes = inode->data->len,
        .device = 1,
        .inode = inode->number,
        .modified_ns = inode->modified_ns,
        .changed_ns = inode->changed_ns,
        .born_ns = inode->born_ns,
    };
}

static int co_memory_file_stat(struct storage_file *file,
                               struct storage_stat *ret)
{
    stat_inode(file_of(file)->inode, ret);
    return memory_of(file->storage)->dead ? -EIO : 0;
}

static int co_memory_lock(struct storage_file *opened, bool exclusive)
{
    struct memory_file *file = file_of(opened);
    struct inode *inode = file->inode;

    if (memory_of(opened->storage)->dead) {
        return -EIO;
    }
    unlock(file);
    if (inode->lock_owner != NULL || (exclusive && inode->shared_locks > 0)) {
        return -EAGAIN;
    }
    if (exclusive) {
        inode->lock_owner = file;
    } else {
        file->has_shared_lock = true;
        inode->shared_locks++;
    }
    return 0;
}

static int co_memory_stat(struct storage *storage,
                          const char *path,
                          struct storage_stat *ret)
{
    struct storage_memory *memory = memory_of(storage);
    const struct inode *inode;

    co_reschedule();
    inode = g_hash_table_lookup(memory->names, path);
    if (memory->dead) {
        return -EIO;
    }
    if (inode != NULL) {
        stat_inode(inode, ret);
        return 0;
    }
    if (g_hash_table_contains(memory->directories, path)) {
        *ret = (struct storage_stat){ .kind = STORAGE_DIRECTORY };
        return 0;
    }
    return -ENOENT;
}

static int co_memory_rename(struct storage *storage,
                            const char *from,
                            const char *to)
{
    struct storage_memory *memory = memory_of(storage);
    struct inode *inode;
    bool dies;
    int ret = co_pass(memory, &dies);

    inode = g_hash_table_lookup(memory->names, from);
    if (ret == 0 && inode == NULL) {
        return -ENOENT;
    }
    if (ret == 0 && fails_writes(memory, to)) {
        return memory->fail_write_error;
    }
    if (ret == 0 && (!dies || random_once_in(memory->random, 2))) {
        change_names(memory, from, to, inode);
    }
    return ret == 0 && dies ? -EIO : ret;
}

static int co_memory_unlink(struct storage *storage, const char *path)
{
    struct storage_memory *memory = memory_of(storage);
    bool dies;
    int ret = co_pass(memory, &dies);

    if (ret == 0 && !g_hash_table_contains(memory->names, path)) {
        return -ENOENT;
    }
    if (ret == 0 && fails_writes(memory, path)) {
        return memory->fail_write_error;
    }
    if (ret == 0 && (!dies || random_once_in(memory->random, 2))) {
        change_names(memory, path, NULL, NULL);
    }
    return ret == 0 && dies ? -EIO : ret;
}

static int co_memory_sync_directory(struct storage *storage, const char *path)
{
    struct storage_memory *memory = memory_of(storage);
    bool dies;
    int ret = co_pass(memory, &dies);

    if (ret < 0 || dies) {
        return -EIO;
    }
    if (memory->fail_sync > 0 && memory->fail_sync_suffix != NULL &&
        strcmp(memory->fail_sync_suffix, path) == 0 &&
        --memory->fail_sync == 0) {
        return -EIO;
    }
    sync_names(memory, path);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void list_names(GHashTable *names, const char *directory, GPtrArray *to)
{
    GHashTableIter iter;
    void *key;

    g_hash_table_iter_init(&iter, names);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        g_autofree char *parent = g_path_get_dirname(key);

        if (strcmp(parent, directory) == 0) {
            g_ptr_array_add(to, g_path_get_basename(key));
        }
    }
}

static int co_memory_list(struct storage *storage,
                          const char *path,
                          GPtrArray **ret_names)
{
    struct storage_memory *memory = memory_of(storage);

    co_reschedule();
    if (memory->dead) {
        return -EIO;
    }
    if (!g_hash_table_contains(memory->directories, path)) {
        return -ENOENT;
    }
    *ret_names = g_ptr_array_new_with_free_func(g_free);
    list_names(memory->names, path, *ret_names);
    list_names(memory->directories, path, *ret_names);
    g_ptr_array_sort(*ret_names, compare_names);
    return 0;
}

/* Durable at once: no code here relies on more than that it is there. */
static int co_memory_make_directory(struct storage *storage, const char *path)
{
    struct storage_memory *memory = memory_of(storage);

    if (memory->dead) {
        return -EIO;
    }
    return g_hash_table_add(memory->directories, g_strdup(path)) ? 0 : -EEXIST;
}

static int co_memory_is_volatile(struct storage *storage,
                                 const char *path,
                                 bool *ret_volatile)
{
    (void)path;
    *ret_volatile = memory_of(storage)->is_volatile;
    return 0;
}

static int co_memory_boot_id(struct storage *storage,
                             uint8_t ret_id[STORAGE_BOOT_ID_BYTES])
{
    memset(ret_id, 0, STORAGE_BOOT_ID_BYTES);
    store_le64(ret_id, memory_of(storage)->boots + 1);
    return memory_of(storage)->dead ? -EIO : 0;
}

static const struct storage_ops memory_ops = {
    .co_open = co_memory_open,
    .co_close = co_memory_close,
    .co_read = co_memory_read,
    .co_write = co_memory_write,
    .co_allocate = co_memory_allocate,
    .co_truncate = co_memory_truncate,
    .co_sync = co_memory_sync,
    .co_size = co_memory_size,
    .co_file_stat = co_memory_file_stat,
    .co_lock = co_memory_lock,
    .co_stat = co_memory_stat,
    .co_rename = co_memory_rename,
    .co_unlink = co_memory_unlink,
    .co_sync_directory = co_memory_sync_directory,
    .co_list = co_memory_list,
    .co_make_directory = co_memory_make_directory,
    .co_is_volatile = co_memory_is_volatile,
    .co_boot_id = co_memory_boot_id,
};

/*
 * What tests do.
 */

struct storage_memory *storage_memory_new(struct random *random)
{
    struct storage_memory *memory = g_new0(struct storage_memory, 1);

    memory->storage.ops = &memory_ops;
    memory->random = random;
    memory->names =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    memory->durable =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    memory->directories =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_hash_table_add(memory->directories, g_strdup("/"));
    memory->changes = g_ptr_array_new_with_free_func(free_change);
    memory->inodes = g_ptr_array_new_with_free_func(inode_free);
    memory->files = g_ptr_array_new_with_free_func(free_file);
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
    g_free(memory->fail_sync_suffix);
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

bool storage_memory_is_dead(const struct storage_memory *memory)
{
    return memory->dead;
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
        lose_data(memory, inode);
        drop_cache(inode);
    }
}

void storage_memory_reboot(struct storage_memory *memory,
                           enum storage_crash crash)
{
    g_assert(memory->files->len == 0);
    memory->dead = false;
    memory->crash_at = 0;
    if (crash == STORAGE_CRASH_KILL) {
        return;
    }
    memory->boots++;
    for (guint i = 0; i < memory->inodes->len; i++) {
        struct inode *inode = g_ptr_array_index(memory->inodes, i);

        lose_data(memory, inode);
        drop_cache(inode);
    }
    lose_names(memory);
    copy_names(memory->names, memory->durable);
}

void storage_memory_fail_sync(struct storage_memory *memory,
                              const char *suffix,
                              uint64_t count)
{
    g_free(memory->fail_sync_suffix);
    memory->fail_sync_suffix = g_strdup(suffix);
    memory->fail_sync = count;
}

void storage_memory_fail_writes(struct storage_memory *memory,
                                const char *suffix,
                                int error)
{
    g_free(memory->fail_write_suffix);
    memory->fail_write_suffix = g_strdup(suffix);
    memory->fail_write_error = error;
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
        sync_data(g_ptr_array_index(memory->inodes, i));
    }
    for (guint i = 0; i < memory->changes->len; i++) {
        apply_change(memory, g_ptr_array_index(memory->changes, i));
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
        inode = inode_new(memory);
        change_names(memory, NULL, path, inode);
    }
    write_data(memory, inode, offset, data, bytes);
    storage_memory_sync_all(memory);
}

void storage_memory_remove(struct storage_memory *memory, const char *path)
{
    change_names(memory, path, NULL, NULL);
    storage_memory_sync_all(memory);
}

void storage_memory_copy(struct storage_memory *memory,
                         const char *from,
                         const char *to,
                         bool keep_times)
{
    const struct inode *source = g_hash_table_lookup(memory->names, from);
    struct inode *copy = inode_new(memory);

    g_byte_array_append(copy->data, source->data->data, source->data->len);
    g_byte_array_append(copy->durable, source->data->data, source->data->len);
    if (keep_times) {
        copy->modified_ns = copy->durable_modified_ns = source->modified_ns;
    }
    change_names(memory, NULL, to, copy);
    storage_memory_sync_all(memory);
}
