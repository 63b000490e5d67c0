/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The working directory is kept, so that relative names given later over QMP
 * mean what the same names on the command line mean.
 */
#include "daemon/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

/* The parent: one byte says that the child is ready, its end that it is not. */
static G_GNUC_NORETURN void await_child(int fd)
{
    char byte;
    ssize_t got;

    do {
        got = read(fd, &byte, 1);
    } while (got < 0 && errno == EINTR);
    _exit(got == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

int background_enter(GError **err)
{
    int fds[2];
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        return error_set_errno(err, -errno, "--daemonize: no pipe");
    }
    child = fork();
    if (child < 0) {
        int rc = -errno;

        close(fds[0]);
        close(fds[1]);
        return error_set_errno(err, rc, "--daemonize: cannot fork");
    }
    if (child > 0) {
        close(fds[1]);
        await_child(fds[0]);
    }
    close(fds[0]);
    (void)setsid(); /* fails for a session leader only, which a child is not */
    return fds[1];
}

bool background_keeps_errors(void)
{
    struct stat status;

    return fstat(STDERR_FILENO, &status) == 0 && S_ISREG(status.st_mode);
}

int background_ready(int fd, GError **err)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int last = background_keeps_errors() ? STDOUT_FILENO : STDERR_FILENO;
    ssize_t written;

    if (null < 0) {
        return error_set_errno(err, -errno, "cannot open /dev/null");
    }
    for (int i = 0; i <= last; i++) {
        if (dup2(null, i) < 0) {
            int rc = -errno;

            close(null);
            return error_set_errno(err, rc, "cannot leave the terminal");
        }
    }
    if (null > STDERR_FILENO) {
        close(null);
    }
    written = write(fd, "", 1);
    (void)written; /* the parent may be gone; that is no reason to stop */
    close(fd);
    return 0;
}
