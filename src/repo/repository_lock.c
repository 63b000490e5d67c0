/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lock is an open file description lock on REPO/lock: it ends with the
 * process that holds it, however that dies. The file's text is for people; only
 * the lock decides.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "repo/durable.h"
#include "repo/fd.h"
#include "repo/repository.h"

#define LOCK_FILE "lock"

/* Returns 0 or a negative errno; -EAGAIN: someone else has it. */
static int try_lock(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
        return errno == EACCES ? -EAGAIN : -errno;
    }
    return 0;
}

static char *read_holder(int fd)
{
    char text[512];
    ssize_t bytes = pread_fully(fd, text, sizeof(text) - 1, 0);

    if (bytes <= 0) {
        return g_strdup("a process that has not said its name");
    }
    text[bytes] = '\0';
    return g_strstrip(g_utf8_make_valid(text, bytes));
}

static int write_holder(int fd)
{
    char host[256] = "unknown";
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *stamp = g_date_time_format_iso8601(now);
    const char *program = g_get_prgname();

    (void)gethostname(host, sizeof(host) - 1); /* for people only */
    g_autofree char *text = g_strdup_printf(
        "%s (process %ld on %s, since %s)\n",
        program == NULL ? "cohort" : program, (long)getpid(), host, stamp);
    if (ftruncate(fd, 0) < 0) {
        return -errno;
    }
    return pwrite_fully(fd, text, strlen(text), 0);
}

int repository_lock(struct repository *repository, GError **err)
{
    auto_fd int fd = openat(repository->fd, LOCK_FILE,
                            O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);

    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot open '%s/%s'",
                               repository->path, LOCK_FILE);
    }
    int ret = try_lock(fd);
    if (ret == -EAGAIN) {
        g_autofree char *holder = read_holder(fd);
        return error_set(err, -EBUSY, "repository '%s' is locked by %s",
                         repository->path, holder);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot lock '%s/%s'",
                               repository->path, LOCK_FILE);
    }
    ret = write_holder(fd);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot write '%s/%s'",
                               repository->path, LOCK_FILE);
    }
    repository->lock_fd = fd_steal(&fd);
    return repository_reload(repository, err);
}

char *repository_lock_holder(struct repository *repository)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    auto_fd int fd =
        openat(repository->fd, LOCK_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) < 0 || lock.l_type == F_UNLCK) {
        return NULL;
    }
    return read_holder(fd);
}
