/* SPDX-License-Identifier: BSD-3-Clause */
/* The operations, and where they die. */
#include "journal/storage_memory_priv.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "loop/coroutine.h"

/*
 * Crash points.
 */

static void die(struct storage_memory *memory,
                const char *operation,
                const char *path,
                bool *ret_dies)
{
    g_free(memory->died_in);
    memory->died_in = g_strdup_printf("%s %s", operation, path);
    memory->dead = true;
    *ret_dies = true;
}

static const char *const step_names[] = {
    [STORAGE_STEP_WRITE] = "write",
    [STORAGE_STEP_SYNC] = "sync",
    [STORAGE_STEP_TRUNCATE] = "truncate",
    [STORAGE_STEP_CREATE] = "create",
    [STORAGE_STEP_RENAME] = "rename",
    [STORAGE_STEP_UNLINK] = "unlink",
    [STORAGE_STEP_SYNC_NAMES] = "sync-directory",
};

static enum storage_verdict ask(const struct storage_memory *memory,
                                const struct storage_step *step)
{
    return memory->observe == NULL
               ? STORAGE_GOES_ON
               : memory->observe(memory->observe_opaque, step);
}

/* Every operation passes here; `path`: as opened. 0, -EIO when dead; `*ret_dies`:
 * it dies now, and may still do a part of its work; -EAGAIN: it fails. */
static int co_pass(struct storage_memory *memory,
                   const struct storage_step *step,
                   const char *path,
                   bool *ret_dies)
{
    enum storage_verdict verdict;

    *ret_dies = false;
    co_reschedule();
    if (memory->dead) {
        return -EIO;
    }
    memory->points++;
    verdict = ask(memory, step);
    if (memory->points == memory->crash_at || verdict == STORAGE_DIES) {
        die(memory, step_names[step->kind], path, ret_dies);
    }
    return verdict == STORAGE_FAILS && !memory->dead ? -EAGAIN : 0;
}

/* The same for a sync of a file, or (`names`) for what goes on in a directory. */
static int co_pass_counted(struct storage_memory *memory,
                           const struct storage_step *step,
                           const char *path,
                           bool *ret_dies)
{
    bool names = step->kind != STORAGE_STEP_SYNC;
    int ret = co_pass(memory, step, path, ret_dies);

    if (ret == 0 && !memory->dead && names == memory->crash_at_names &&
        memory->crash_at_sync > 0 && --memory->crash_at_sync == 0) {
        die(memory, step_names[step->kind], path, ret_dies);
    }
    return ret;
}

static bool fails_writes(const struct storage_memory *memory, const char *path)
{
    return memory->fail_write_suffix != NULL &&
           g_str_has_suffix(path, memory->fail_write_suffix);
}

/*
 * The operations.
 */

static struct storage_file *file_new(struct storage_memory *memory,
                                     const char *path,
                                     struct inode *inode,
                                     bool writable)
{
    struct memory_file *file = g_new0(struct memory_file, 1);

    file->file.storage = &memory->storage;
    file->file.path = g_strdup(path);
    file->inode = inode;
    file->writable = writable;
    file->told = inode->failed_syncs;
    inode->opens++;
    g_ptr_array_add(memory->files, file);
    return &file->file;
}

static int co_memory_open(struct storage *storage,
                          const char *path,
                          unsigned int flags,
                          struct storage_file **ret_file,
                          GError **err)
{
    struct storage_memory *memory = memory_of(storage);
    struct inode *inode;
    int ret = 0;

    co_reschedule();
    inode = g_hash_table_lookup(memory->names, path);
    if (memory->dead) {
        ret = -EIO;
    } else if ((flags & STORAGE_CREATE) != 0) {
        const struct storage_step step = { STORAGE_STEP_CREATE, path, 0, NULL,
                                           0 };
        bool dies;

        ret = co_pass(memory, &step, path, &dies);
        inode = g_hash_table_lookup(memory->names, path);
        if (ret == 0 && (inode != NULL ||
                         g_hash_table_contains(memory->directories, path))) {
            ret = -EEXIST;
        } else if (ret == 0 && (!dies || random_once_in(memory->random, 2))) {
            inode = memory_inode_new(memory);
            memory_change_names(memory, NULL, path, inode);
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
    *ret_file = file_new(memory, path, inode,
                         (flags & (STORAGE_WRITABLE | STORAGE_CREATE)) != 0);
    return 0;
}

static int co_memory_open_again(struct storage_file *opened,
                                struct storage_file **ret_file)
{
    struct storage_memory *memory = memory_of(opened->storage);

    co_reschedule();
    if (memory->dead) {
        return -EIO;
    }
    *ret_file = file_new(memory, opened->path, file_of(opened)->inode, true);
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
    const struct storage_memory *memory = memory_of(opened->storage);
    const struct inode *inode = file_of(opened)->inode;

    co_reschedule();
    if (memory->dead) {
        return -EIO;
    }
    if (memory->fail_read_suffix != NULL &&
        g_str_has_suffix(opened->path, memory->fail_read_suffix)) {
        return memory->fail_read_error;
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
    const struct storage_step step = { STORAGE_STEP_WRITE, file->inode->name,
                                       offset, buffer, bytes };
    uint64_t end = offset + bytes;
    bool dies;
    int ret;

    g_assert(file->writable);
    ret = co_pass(memory, &step, opened->path, &dies);
    if (ret < 0) {
        return -EIO;
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
    memory_write_data(memory, file->inode, offset, buffer, bytes);
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
    const struct storage_step step = { STORAGE_STEP_TRUNCATE, inode->name,
                                       bytes, NULL, 0 };
    bool dies;
    int ret = co_pass(memory, &step, opened->path, &dies);
    uint64_t old = inode->data->len;

    if (ret < 0) {
        return -EIO;
    }
    if (!dies || random_once_in(memory->random, 2)) {
        memory_grow(inode->data, bytes);
        g_byte_array_set_size(inode->data, (guint)bytes);
        inode->size_unsynced |= bytes != old;
        inode->modified_ns = inode->changed_ns = memory_now(memory);
        /* What is cut off and comes back reads as zeroes. */
        for (uint64_t at = round_down(bytes, SECTOR); at < old; at += SECTOR) {
            memory_remember_version(inode, at / SECTOR);
        }
    }
    return dies ? -EIO : 0;
}

/* An error is told once to each that has the file open. */
static int tell(struct memory_file *file)
{
    bool is_new = file->told != file->inode->failed_syncs;

    file->told = file->inode->failed_syncs;
    return is_new ? -EIO : 0;
}

static int fail_sync(struct storage_memory *memory, struct memory_file *file)
{
    memory_lose_data(memory, file->inode);
    file->inode->suspect = true;
    file->inode->failed_syncs++;
    return tell(file);
}

static int co_sync_now(struct storage_file *opened)
{
    struct storage_memory *memory = memory_of(opened->storage);
    struct memory_file *file = file_of(opened);
    struct inode *inode = file->inode;
    const struct storage_step step = { STORAGE_STEP_SYNC, inode->name, 0, NULL,
                                       0 };
    bool dies;
    int ret = co_pass_counted(memory, &step, opened->path, &dies);

    if (ret == -EIO || dies) {
        return -EIO; /* the reboot loses what it loses */
    }
    if (ret < 0) {
        return fail_sync(memory, file);
    }
    if (fails_writes(memory, opened->path)) {
        memory_lose_data(memory, inode);
        return memory->fail_write_error;
    }
    if (memory->fail_sync > 0 &&
        (memory->fail_sync_suffix == NULL ||
         g_str_has_suffix(opened->path, memory->fail_sync_suffix)) &&
        --memory->fail_sync == 0) {
        if (memory->fail_syncs_after > 0) {
            memory->fail_syncs_after--;
            memory->fail_sync = 1;
        }
        return fail_sync(memory, file);
    }
    memory_sync_data(inode);
    return tell(file);
}

/* Of several at once, the one that is served first may be told last. */
static int co_memory_sync(struct storage_file *opened)
{
    int ret = co_sync_now(opened);

    co_reschedule();
    return ret;
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
    const struct storage_step step = { STORAGE_STEP_RENAME, to, 0, NULL, 0 };
    bool dies;
    int ret = co_pass_counted(memory, &step, to, &dies);

    inode = g_hash_table_lookup(memory->names, from);
    if (ret == 0 && inode == NULL) {
        return -ENOENT;
    }
    if (ret == 0 && fails_writes(memory, to)) {
        return memory->fail_write_error;
    }
    if (ret == 0 && (!dies || random_once_in(memory->random, 2))) {
        memory_change_names(memory, from, to, inode);
    }
    if (ret == 0 && memory->fail_rename_suffix != NULL &&
        g_str_has_suffix(to, memory->fail_rename_suffix)) {
        g_clear_pointer(&memory->fail_rename_suffix, g_free);
        return -EIO;
    }
    return ret == 0 && dies ? -EIO : ret;
}

static int co_memory_unlink(struct storage *storage, const char *path)
{
    struct storage_memory *memory = memory_of(storage);
    const struct storage_step step = { STORAGE_STEP_UNLINK, path, 0, NULL, 0 };
    bool dies;
    int ret = co_pass_counted(memory, &step, path, &dies);

    if (ret == 0 && !g_hash_table_contains(memory->names, path)) {
        return -ENOENT;
    }
    if (ret == 0 && fails_writes(memory, path)) {
        return memory->fail_write_error;
    }
    if (ret == 0 && (!dies || random_once_in(memory->random, 2))) {
        memory_change_names(memory, path, NULL, NULL);
    }
    return ret == 0 && dies ? -EIO : ret;
}

static int co_memory_sync_directory(struct storage *storage, const char *path)
{
    struct storage_memory *memory = memory_of(storage);
    const struct storage_step step = { STORAGE_STEP_SYNC_NAMES, path, 0, NULL,
                                       0 };
    bool dies;
    int ret = co_pass_counted(memory, &step, path, &dies);

    if (ret < 0 || dies) {
        return -EIO;
    }
    if (memory->fail_sync > 0 && memory->fail_sync_suffix != NULL &&
        strcmp(memory->fail_sync_suffix, path) == 0 &&
        --memory->fail_sync == 0) {
        return -EIO;
    }
    memory_sync_names(memory, path);
    return 0;
}

/* Times are durable at once. */
static int co_memory_sync_times(struct storage *storage, const char *path)
{
    (void)storage;
    (void)path;
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

const struct storage_ops storage_memory_ops = {
    .co_open = co_memory_open,
    .co_open_again = co_memory_open_again,
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
    .co_sync_times = co_memory_sync_times,
    .co_list = co_memory_list,
    .co_make_directory = co_memory_make_directory,
    .co_is_volatile = co_memory_is_volatile,
    .co_boot_id = co_memory_boot_id,
};
