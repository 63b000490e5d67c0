/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lock is an open-file-description lock, as QEMU's tools take it, so that
 * each notices the other. Between opening and locking the former owner may have
 * removed the file: then ours has no name, and we begin again. So we do for a
 * while when the owner was killed just now (loop/process.h).
 */
#include "daemon/pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/process.h"

struct pidfile {
    char *path; /* absolute: somebody may change the directory */
    int fd;
};

static int lock_file(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Is the open file still what `path` names? */
static bool has_name(int fd, const char *path)
{
    struct stat opened;
    struct stat named;

    return fstat(fd, &opened) == 0 && stat(path, &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* Does the file name a process that is ending? */
static bool owner_is_ending(const char *path)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) &&
           process_is_ending((pid_t)g_ascii_strtoll(text, NULL, 10));
}

/* A locked descriptor of the file that `path` names. */
static int open_locked(const char *path, GError **err)
{
    for (int tries = 0;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        bool ending;
        int rc;

        if (fd < 0) {
            return error_set_errno(err, -errno, "cannot open '%s'", path);
        }
        rc = lock_file(fd);
        if (rc == 0 && has_name(fd, path)) {
            return fd;
        }
        ending = rc < 0 && owner_is_ending(path);
        close(fd);
        if (ending && tries < PROCESS_ENDING_TRIES) {
            tries++;
            g_usleep(PROCESS_ENDING_PAUSE_US);
            continue;
        }
        if (rc == -EAGAIN || rc == -EACCES) {
            return error_set(err, rc,
                             "'%s' is locked: another daemon that uses it is "
                             "running",
                             path);
        }
        if (rc < 0) {
            return error_set_errno(err, rc, "cannot lock '%s'", path);
        }
    }
}

static int write_id(int fd, const char *path, GError **err)
{
    char text[32];
    int length = snprintf(text, sizeof(text), "%ld\n", (long)getpid());

    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) != length) {
        return error_set_errno(err, errno != 0 ? -errno : -EIO,
                               "cannot write '%s'", path);
    }
    return 0;
}

struct pidfile *pidfile_create(const char *path, GError **err)
{
    struct pidfile *pidfile;
    int fd = open_locked(path, err);

    if (fd < 0) {
        return NULL;
    }
    pidfile = g_new0(struct pidfile, 1);
    pidfile->fd = fd;
    pidfile->path = g_canonicalize_filename(path, NULL);
    if (write_id(fd, path, err) < 0) {
        pidfile_remove(pidfile);
        return NULL;
    }
    return pidfile;
}

void pidfile_remove(struct pidfile *pidfile)
{
    if (pidfile == NULL) {
        return;
    }
    if (has_name(pidfile->fd, pidfile->path)) {
        (void)unlink(pidfile->path); /* nobody is left to be told */
    }
    close(pidfile->fd);
    g_free(pidfile->path);
    g_free(pidfile);
}
