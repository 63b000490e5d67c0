/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files of the file system. What moves data goes through the loop's file I/O,
 * everything else to its pool of threads that may block.
 *
 * A file is closed without O_SYNC or any other promise: who needs durability
 * syncs. Locks are open file description locks on the whole file, so they go
 * with the descriptor, whoever else in the process opens the same file.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "journal/storage.h"
#include "loop/coroutine.h"
#include "loop/inline_writer.h"
#include "loop/io.h"

struct real_file {
    struct storage_file file; /* first */
    int fd;
    struct inline_writer inline_writer;
};

static struct real_file *real_of(struct storage_file *file)
{
    return (struct real_file *)(void *)file;
}

static int fd_of(struct storage_file *file)
{
    return real_of(file)->fd;
}

/*
 * What one call on a thread of the pool is about; each uses what it needs.
 */
struct call {
    int fd;
    const char *path;
    const char *other;
    unsigned int flags;
    uint64_t bytes;
    void *ret;
    struct inline_writer inline_writer;
};

static int run_open(void *opaque)
{
    struct call *call = opaque;
    int flags = O_CLOEXEC | O_NOCTTY;

    if ((call->flags & STORAGE_CREATE) != 0) {
        flags |= O_RDWR | O_CREAT | O_EXCL;
    } else {
        flags |= (call->flags & STORAGE_WRITABLE) != 0 ? O_RDWR : O_RDONLY;
    }
    call->fd = open(call->path, flags, 0600);
    if (call->fd < 0) {
        return -errno;
    }
    inline_writer_probe(&call->inline_writer, call->fd);
    return 0;
}

static struct storage_file *real_file_new(struct storage *storage,
                                          const char *path,
                                          const struct call *opened)
{
    struct real_file *file = g_new0(struct real_file, 1);

    file->file.storage = storage;
    file->file.path = g_strdup(path);
    file->fd = opened->fd;
    file->inline_writer = opened->inline_writer;
    return &file->file;
}

static int co_real_open(struct storage *storage,
                        const char *path,
                        unsigned int flags,
                        struct storage_file **ret_file,
                        GError **err)
{
    struct call call = { .path = path, .flags = flags };
    int ret = co_offload(run_open, &call);

    if (ret < 0) {
        return error_set_errno(
            err, ret, "cannot %s '%s'",
            (flags & STORAGE_CREATE) != 0 ? "create" : "open", path);
    }
    *ret_file = real_file_new(storage, path, &call);
    return 0;
}

/* Not dup(): the kernel tells of an error once for each time that a file was
 * opened. */
static int co_real_open_again(struct storage_file *file,
                              struct storage_file **ret_file)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd_of(file));
    struct call call = { .path = link, .flags = STORAGE_WRITABLE };
    int ret = co_offload(run_open, &call);

    if (ret == 0) {
        *ret_file = real_file_new(file->storage, file->path, &call);
    }
    return ret;
}

static int run_close(void *opaque)
{
    const struct call *call = opaque;

    return close(call->fd) < 0 ? -errno : 0;
}

static void co_real_close(struct storage_file *file)
{
    struct call call = { .fd = fd_of(file) };

    (void)co_offload(run_close, &call); /* promises nothing */
    g_free(file->path);
    g_free(file);
}

static int co_real_read(struct storage_file *file,
                        uint64_t offset,
                        void *buffer,
                        uint64_t bytes)
{
    struct iovec iov = { .iov_base = buffer, .iov_len = bytes };
    ssize_t moved = co_file_preadv(fd_of(file), &iov, 1, offset);

    if (moved < 0) {
        return (int)moved;
    }
    return (uint64_t)moved == bytes ? 0 : -ENODATA;
}

static int co_real_write(struct storage_file *file,
                         uint64_t offset,
                         const void *buffer,
                         uint64_t bytes)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)buffer,
                         .iov_len = bytes };
    ssize_t moved = inline_writer_try(&real_of(file)->inline_writer,
                                      fd_of(file), &iov, 1, bytes, offset);

    if (moved != (ssize_t)bytes) { /* an error comes again */
        moved = co_file_pwritev(fd_of(file), &iov, 1, offset, 0);
    }
    if (moved < 0) {
        return (int)moved;
    }
    return (uint64_t)moved == bytes ? 0 : -EIO;
}

/* Zeroes are written, since the first write to space that is merely reserved
 * changes the file system's metadata, which makes each sync of it dear. */
static int co_real_allocate(struct storage_file *file,
                            uint64_t offset,
                            uint64_t bytes)
{
    g_autofree uint8_t *zeroes = g_malloc0(MIB);

    while (bytes > 0) {
        uint64_t piece = min_u64(bytes, MIB);
        int ret = co_real_write(file, offset, zeroes, piece);

        if (ret < 0) {
            return ret;
        }
        offset += piece;
        bytes -= piece;
    }
    return 0;
}

static int run_truncate(void *opaque)
{
    const struct call *call = opaque;

    return ftruncate(call->fd, (off_t)call->bytes) < 0 ? -errno : 0;
}

static int co_real_truncate(struct storage_file *file, uint64_t bytes)
{
    struct call call = { .fd = fd_of(file), .bytes = bytes };

    return co_offload(run_truncate, &call);
}

static int co_real_sync(struct storage_file *file)
{
    return co_file_datasync(fd_of(file));
}

static int64_t time_of(const struct statx_timestamp *time)
{
    return time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
}

/* Field 7 of /sys/dev/block/MAJOR:MINOR/stat; see Linux,
 * Documentation/block/stat.rst. 0 if there is no such file. */
static uint64_t device_sectors_written(const struct statx *found)
{
    g_autofree char *path =
        g_strdup_printf("/sys/dev/block/%u:%u/stat", found->stx_rdev_major,
                        found->stx_rdev_minor);
    g_autofree char *text = NULL;
    const char *at;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    at = text;
    for (int field = 1; field < 7; field++) {
        at += strspn(at, " ");
        at += strcspn(at, " \n");
    }
    return g_ascii_strtoull(at, NULL, 10);
}

static void examine_device(const struct call *call,
                           const struct statx *found,
                           struct storage_stat *ret)
{
    int fd = call->path == NULL
                 ? call->fd
                 : open(call->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    ret->device = makedev(found->stx_rdev_major, found->stx_rdev_minor);
    ret->inode = 0; /* of the node in /dev, which is made anew at each boot */
    ret->sectors_written = device_sectors_written(found);
    if (fd >= 0) {
        (void)ioctl(fd, BLKGETSIZE64, &ret->size_bytes); /* else stays 0 */
    }
    if (fd >= 0 && call->path != NULL) {
        (void)close(fd); /* nothing was written */
    }
}

/* `path` NULL: the descriptor. */
static int run_stat(void *opaque)
{
    const struct call *call = opaque;
    struct storage_stat *ret = call->ret;
    struct statx found;
    bool by_path = call->path != NULL;

    if (statx(by_path ? AT_FDCWD : call->fd, by_path ? call->path : "",
              by_path ? 0 : AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME,
              &found) < 0) {
        return -errno;
    }
    *ret = (struct storage_stat){
        .kind = STORAGE_OTHER,
        .size_bytes = found.stx_size,
        .device = makedev(found.stx_dev_major, found.stx_dev_minor),
        .inode = found.stx_ino,
        .modified_ns = time_of(&found.stx_mtime),
        .changed_ns = time_of(&found.stx_ctime),
        .born_ns = (found.stx_mask & STATX_BTIME) != 0
                       ? time_of(&found.stx_btime)
                       : INT64_MIN,
    };
    if (S_ISREG(found.stx_mode)) {
        ret->kind = STORAGE_REGULAR;
    } else if (S_ISDIR(found.stx_mode)) {
        ret->kind = STORAGE_DIRECTORY;
    } else if (S_ISBLK(found.stx_mode)) {
        ret->kind = STORAGE_BLOCK_DEVICE;
        examine_device(call, &found, ret);
    }
    return 0;
}

static int co_real_file_stat(struct storage_file *file,
                             struct storage_stat *ret)
{
    struct call call = { .fd = fd_of(file), .ret = ret };

    return co_offload(run_stat, &call);
}

static int co_real_size(struct storage_file *file, uint64_t *ret_bytes)
{
    struct storage_stat found;
    int ret = co_real_file_stat(file, &found);

    if (ret == 0) {
        *ret_bytes = found.size_bytes;
    }
    return ret;
}

static int co_real_stat(struct storage *storage,
                        const char *path,
                        struct storage_stat *ret)
{
    struct call call = { .path = path, .ret = ret };

    (void)storage;
    return co_offload(run_stat, &call);
}

static int run_lock(void *opaque)
{
    const struct call *call = opaque;
    struct flock lock = {
        .l_type = call->flags != 0 ? F_WRLCK : F_RDLCK,
        .l_whence = SEEK_SET,
    };

    if (fcntl(call->fd, F_OFD_SETLK, &lock) == 0) {
        return 0;
    }
    return errno == EACCES ? -EAGAIN : -errno;
}

static int co_real_lock(struct storage_file *file, bool exclusive)
{
    struct call call = { .fd = fd_of(file), .flags = exclusive };

    return co_offload(run_lock, &call);
}

static int run_rename(void *opaque)
{
    const struct call *call = opaque;

    return rename(call->path, call->other) < 0 ? -errno : 0;
}

static int co_real_rename(struct storage *storage,
                          const char *from,
                          const char *to)
{
    struct call call = { .path = from, .other = to };

    (void)storage;
    return co_offload(run_rename, &call);
}

static int run_unlink(void *opaque)
{
    const struct call *call = opaque;

    return unlink(call->path) < 0 ? -errno : 0;
}

static int co_real_unlink(struct storage *storage, const char *path)
{
    struct call call = { .path = path };

    (void)storage;
    return co_offload(run_unlink, &call);
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = fsync(fd) < 0 ? -errno : 0;
    (void)close(fd); /* nothing was written */
    return ret;
}

static int run_sync_directory(void *opaque)
{
    const struct call *call = opaque;

    return sync_path(call->path, O_DIRECTORY);
}

static int run_sync_times(void *opaque)
{
    const struct call *call = opaque;

    return sync_path(call->path, O_NONBLOCK);
}

static int co_real_sync_directory(struct storage *storage, const char *path)
{
    struct call call = { .path = path };

    (void)storage;
    return co_offload(run_sync_directory, &call);
}

static int co_real_sync_times(struct storage *storage, const char *path)
{
    struct call call = { .path = path };

    (void)storage;
    return co_offload(run_sync_times, &call);
}

static int compare_names(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

static int run_list(void *opaque)
{
    const struct call *call = opaque;
    GPtrArray *names = call->ret;
    DIR *directory = opendir(call->path);
    const struct dirent *entry;
    int ret;

    if (directory == NULL) {
        return -errno;
    }
    errno = 0;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 &&
            strcmp(entry->d_name, "..") != 0) {
            g_ptr_array_add(names, g_strdup(entry->d_name));
        }
    }
    ret = -errno;
    (void)closedir(directory); /* nothing was written */
    g_ptr_array_sort(names, compare_names);
    return ret;
}

static int co_real_list(struct storage *storage,
                        const char *path,
                        GPtrArray **ret_names)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    struct call call = { .path = path, .ret = names };
    int ret = co_offload(run_list, &call);

    (void)storage;
    if (ret == 0) {
        *ret_names = g_steal_pointer(&names);
    }
    return ret;
}

static int run_make_directory(void *opaque)
{
    const struct call *call = opaque;

    return mkdir(call->path, 0700) < 0 ? -errno : 0;
}

static int co_real_make_directory(struct storage *storage, const char *path)
{
    struct call call = { .path = path };

    (void)storage;
    return co_offload(run_make_directory, &call);
}

static int run_is_volatile(void *opaque)
{
    const struct call *call = opaque;
    bool *ret_volatile = call->ret;
    struct statfs found;

    if (statfs(call->path, &found) < 0) {
        return -errno;
    }
    *ret_volatile = found.f_type == TMPFS_MAGIC || found.f_type == RAMFS_MAGIC;
    return 0;
}

static int co_real_is_volatile(struct storage *storage,
                               const char *path,
                               bool *ret_volatile)
{
    struct call call = { .path = path, .ret = ret_volatile };

    (void)storage;
    return co_offload(run_is_volatile, &call);
}

/* 36 characters: 32 hex digits and dashes; proc(5). */
static int run_boot_id(void *opaque)
{
    const struct call *call = opaque;
    uint8_t *id = call->ret;
    g_autofree char *text = NULL;
    size_t digits = 0;

    if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL,
                             NULL)) {
        return -EIO;
    }
    memset(id, 0, STORAGE_BOOT_ID_BYTES);
    for (const char *at = text;
         *at != '\0' && digits < 2 * STORAGE_BOOT_ID_BYTES; at++) {
        int value = g_ascii_xdigit_value(*at);

        if (value >= 0) {
            id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | value);
            digits++;
        }
    }
    return digits == 2 * STORAGE_BOOT_ID_BYTES ? 0 : -EIO;
}

static int co_real_boot_id(struct storage *storage,
                           uint8_t ret_id[STORAGE_BOOT_ID_BYTES])
{
    struct call call = { .ret = ret_id };

    (void)storage;
    return co_offload(run_boot_id, &call);
}

static const struct storage_ops real_ops = {
    .co_open = co_real_open,
    .co_open_again = co_real_open_again,
    .co_close = co_real_close,
    .co_read = co_real_read,
    .co_write = co_real_write,
    .co_allocate = co_real_allocate,
    .co_truncate = co_real_truncate,
    .co_sync = co_real_sync,
    .co_size = co_real_size,
    .co_file_stat = co_real_file_stat,
    .co_lock = co_real_lock,
    .co_stat = co_real_stat,
    .co_rename = co_real_rename,
    .co_unlink = co_real_unlink,
    .co_sync_directory = co_real_sync_directory,
    .co_sync_times = co_real_sync_times,
    .co_list = co_real_list,
    .co_make_directory = co_real_make_directory,
    .co_is_volatile = co_real_is_volatile,
    .co_boot_id = co_real_boot_id,
};

struct storage *storage_real(void)
{
    static struct storage storage = { .ops = &real_ops };

    return &storage;
}
