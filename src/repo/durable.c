/* SPDX-License-Identifier: BSD-3-Clause */
#include "repo/durable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "repo/fd.h"

int durable_open_directory(int parent_fd, const char *name, GError **err)
{
    int fd = openat(parent_fd, name,
                    O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot open directory '%s'", name);
    }
    return fd;
}

int durable_sync(int fd, const char *what, GError **err)
{
    if (fsync(fd) < 0) {
        return error_set_errno(err, -errno, "'%s' did not reach stable storage",
                               what);
    }
    return 0;
}

int write_fully(int fd, const void *data, size_t bytes)
{
    const char *from = data;

    while (bytes > 0) {
        ssize_t done = write(fd, from, bytes);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return -errno;
        }
        from += done;
        bytes -= (size_t)done;
    }
    return 0;
}

int pwrite_fully(int fd, const void *data, size_t bytes, uint64_t offset)
{
    const char *from = data;

    while (bytes > 0) {
        ssize_t done = pwrite(fd, from, bytes, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return -errno;
        }
        from += done;
        bytes -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

ssize_t pread_fully(int fd, void *data, size_t bytes, uint64_t offset)
{
    char *to = data;
    size_t total = 0;

    while (total < bytes) {
        ssize_t done =
            pread(fd, to + total, bytes - total, (off_t)(offset + total));
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return -errno;
        }
        if (done == 0) {
            break;
        }
        total += (size_t)done;
    }
    return (ssize_t)total;
}

int durable_write(int directory_fd,
                  const char *name,
                  const void *data,
                  size_t bytes,
                  GError **err)
{
    g_autofree char *temporary = g_strdup_printf(".%s.new", name);
    auto_fd int fd =
        openat(directory_fd, temporary,
               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    int ret;

    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot create '%s'", temporary);
    }
    ret = write_fully(fd, data, bytes);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot write '%s'", temporary);
    }
    ret = durable_sync(fd, temporary, err);
    if (ret < 0) {
        return ret;
    }
    if (renameat(directory_fd, temporary, directory_fd, name) < 0) {
        return error_set_errno(err, -errno, "cannot rename '%s' to '%s'",
                               temporary, name);
    }
    return durable_sync(directory_fd, name, err);
}

int durable_read(int directory_fd,
                 const char *name,
                 size_t bytes_max,
                 char **ret_data,
                 size_t *ret_bytes,
                 GError **err)
{
    g_autofree char *data = NULL;
    struct stat status;
    auto_fd int fd = openat(directory_fd, name,
                            O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot open '%s'", name);
    }
    if (fstat(fd, &status) < 0) {
        return error_set_errno(err, -errno, "cannot read '%s'", name);
    }
    if (!S_ISREG(status.st_mode)) {
        return error_set(err, -EINVAL, "'%s' is not a plain file", name);
    }
    if ((uint64_t)status.st_size > bytes_max) {
        return error_set(err, -EFBIG,
                         "'%s' is larger than the %zu bytes allowed", name,
                         bytes_max);
    }
    data = g_try_malloc((size_t)status.st_size + 1);
    if (data == NULL) {
        return error_set(err, -ENOMEM, "no memory to read '%s'", name);
    }
    ssize_t done = pread_fully(fd, data, (size_t)status.st_size, 0);
    if (done < 0) {
        return error_set_errno(err, (int)done, "cannot read '%s'", name);
    }
    data[done] = '\0';
    *ret_bytes = (size_t)done;
    *ret_data = g_steal_pointer(&data);
    return 0;
}

static int remove_files(int directory_fd, const char *name, GError **err)
{
    int copy = dup(directory_fd);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    int ret = 0;

    if (directory == NULL) {
        ret = -errno;
        if (copy >= 0) {
            (void)close(copy); /* nothing was written through it */
        }
        return error_set_errno(err, ret, "cannot list '%s'", name);
    }
    while (ret == 0 && (entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 ||
            strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (unlinkat(directory_fd, entry->d_name, 0) < 0) {
            ret = error_set_errno(err, -errno, "cannot remove '%s/%s'", name,
                                  entry->d_name);
        }
    }
    (void)closedir(directory); /* read only */
    return ret;
}

int durable_remove_directory(int parent_fd, const char *name, GError **err)
{
    auto_fd int fd = openat(parent_fd, name,
                            O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int ret;

    if (fd < 0 && errno == ENOENT) {
        return 0;
    }
    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot open '%s'", name);
    }
    ret = remove_files(fd, name, err);
    if (ret < 0) {
        return ret;
    }
    if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0) {
        return error_set_errno(err, -errno, "cannot remove '%s'", name);
    }
    return durable_sync(parent_fd, name, err);
}
