/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/storage.h"

#include <errno.h>

int co_storage_open(struct storage *storage,
                    const char *path,
                    unsigned int flags,
                    struct storage_file **ret_file,
                    GError **err)
{
    return storage->ops->co_open(storage, path, flags, ret_file, err);
}

int co_storage_open_again(struct storage_file *file,
                          struct storage_file **ret_file)
{
    return file->storage->ops->co_open_again(file, ret_file);
}

void co_storage_close(struct storage_file **file)
{
    struct storage_file *closed = g_steal_pointer(file);

    if (closed != NULL) {
        closed->storage->ops->co_close(closed);
    }
}

int co_storage_read(struct storage_file *file,
                    uint64_t offset,
                    void *buffer,
                    uint64_t bytes)
{
    return file->storage->ops->co_read(file, offset, buffer, bytes);
}

int co_storage_write(struct storage_file *file,
                     uint64_t offset,
                     const void *buffer,
                     uint64_t bytes)
{
    return file->storage->ops->co_write(file, offset, buffer, bytes);
}

int co_storage_allocate(struct storage_file *file,
                        uint64_t offset,
                        uint64_t bytes)
{
    return file->storage->ops->co_allocate(file, offset, bytes);
}

int co_storage_truncate(struct storage_file *file, uint64_t bytes)
{
    return file->storage->ops->co_truncate(file, bytes);
}

int co_storage_sync(struct storage_file *file)
{
    return file->storage->ops->co_sync(file);
}

int co_storage_size(struct storage_file *file, uint64_t *ret_bytes)
{
    return file->storage->ops->co_size(file, ret_bytes);
}

int co_storage_file_stat(struct storage_file *file, struct storage_stat *ret)
{
    return file->storage->ops->co_file_stat(file, ret);
}

int co_storage_lock(struct storage_file *file, bool exclusive)
{
    return file->storage->ops->co_lock(file, exclusive);
}

int co_storage_stat(struct storage *storage,
                    const char *path,
                    struct storage_stat *ret)
{
    return storage->ops->co_stat(storage, path, ret);
}

int co_storage_rename(struct storage *storage, const char *from, const char *to)
{
    return storage->ops->co_rename(storage, from, to);
}

bool storage_rename_may_hold(int error)
{
    switch (-error) {
    case EACCES:
    case EBUSY:
    case EDQUOT:
    case EISDIR:
    case ELOOP:
    case EMLINK:
    case ENAMETOOLONG:
    case ENOENT:
    case ENOMEM:
    case ENOSPC:
    case ENOTDIR:
    case EPERM:
    case EROFS:
    case EXDEV: return false;
    default: return true;
    }
}

int co_storage_unlink(struct storage *storage, const char *path)
{
    return storage->ops->co_unlink(storage, path);
}

int co_storage_sync_directory(struct storage *storage, const char *path)
{
    return storage->ops->co_sync_directory(storage, path);
}

int co_storage_sync_times(struct storage *storage, const char *path)
{
    return storage->ops->co_sync_times(storage, path);
}

int co_storage_list(struct storage *storage,
                    const char *path,
                    GPtrArray **ret_names)
{
    return storage->ops->co_list(storage, path, ret_names);
}

int co_storage_make_directory(struct storage *storage, const char *path)
{
    return storage->ops->co_make_directory(storage, path);
}

int co_storage_is_volatile(struct storage *storage,
                           const char *path,
                           bool *ret_volatile)
{
    return storage->ops->co_is_volatile(storage, path, ret_volatile);
}

int co_storage_boot_id(struct storage *storage,
                       uint8_t ret_id[STORAGE_BOOT_ID_BYTES])
{
    return storage->ops->co_boot_id(storage, ret_id);
}

int co_storage_read_all(struct storage_file *file,
                        uint64_t limit_bytes,
                        void **ret_data,
                        uint64_t *ret_bytes)
{
    g_autofree void *data = NULL;
    uint64_t bytes;
    int ret = co_storage_size(file, &bytes);

    if (ret < 0) {
        return ret;
    }
    if (bytes > limit_bytes) {
        return -EFBIG;
    }
    data = g_try_malloc(bytes + 1);
    if (data == NULL) {
        return -ENOMEM;
    }
    ret = co_storage_read(file, 0, data, bytes);
    if (ret < 0) {
        return ret;
    }
    *ret_data = g_steal_pointer(&data);
    *ret_bytes = bytes;
    return 0;
}
