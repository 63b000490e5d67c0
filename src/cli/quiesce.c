/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guard waits for the end of a pipe, which comes when we close it, and when
 * we die. If it does not come within the time that freezing and the transaction
 * may take together, the guard thaws as well, and says by its exit status that
 * it was early. The guard holds no other descriptor, in particular not the
 * repository's lock, and is in a process group of its own, so that a
 * terminal's interrupt does not reach it.
 */
#include "cli/quiesce.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/run_command.h"
#include "repo/fd.h"

/* Beyond what the two may take by themselves. */
#define MARGIN_MS 2000

enum guard_status {
    GUARD_THAWED = 0,
    GUARD_FAILED = 1,
    GUARD_EARLY = 2,
};

struct quiesce {
    pid_t guard; /* 0: there is no thaw command */
    int pipe_fd;
};

static enum guard_status guard_run(int pipe_fd,
                                   const char *thaw_command,
                                   unsigned timeout_ms,
                                   struct interrupt *interrupt)
{
    g_autoptr(GError) why = NULL;
    struct pollfd wait = { .fd = pipe_fd, .events = POLLIN };
    int count;

    do {
        count = poll(&wait, 1, (int)(2 * timeout_ms + MARGIN_MS));
    } while (count < 0 && errno == EINTR);
    if (run_command("thaw", thaw_command, timeout_ms, interrupt, false, &why) <
        0) {
        (void)fprintf(stderr, "cohort: %s; the guest may still be frozen\n",
                      why->message);
        return GUARD_FAILED;
    }
    return count == 0 ? GUARD_EARLY : GUARD_THAWED;
}

static int start_guard(struct quiesce *quiesce,
                       const char *thaw_command,
                       unsigned timeout_ms,
                       struct interrupt *interrupt,
                       GError **err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return error_set_errno(err, -errno, "cannot make a pipe");
    }
    (void)fflush(NULL); /* nothing may be in the buffers twice */
    quiesce->guard = fork();
    if (quiesce->guard < 0) {
        int ret = error_set_errno(err, -errno, "cannot start the thaw guard");
        (void)close(ends[0]);
        (void)close(ends[1]);
        return ret;
    }
    if (quiesce->guard == 0) {
        (void)setpgid(0, 0);
        (void)dup2(STDERR_FILENO, STDOUT_FILENO);
        (void)dup2(ends[0], STDERR_FILENO + 1);
        (void)close_range(STDERR_FILENO + 2, ~0U, 0);
        interrupt->fd = -1;
        _exit(
            guard_run(STDERR_FILENO + 1, thaw_command, timeout_ms, interrupt));
    }
    (void)close(ends[0]);
    quiesce->pipe_fd = ends[1];
    return 0;
}

int quiesce_begin(const char *freeze_command,
                  const char *thaw_command,
                  unsigned timeout_ms,
                  struct interrupt *interrupt,
                  struct quiesce **ret_quiesce,
                  GError **err)
{
    struct quiesce *quiesce = g_new0(struct quiesce, 1);
    int ret = 0;

    quiesce->pipe_fd = -1;
    if (thaw_command != NULL) {
        ret = start_guard(quiesce, thaw_command, timeout_ms, interrupt, err);
    }
    if (ret < 0) {
        g_free(quiesce);
        return ret;
    }
    if (freeze_command != NULL) {
        ret = run_command("freeze", freeze_command, timeout_ms, interrupt, true,
                          err);
    }
    if (ret < 0) {
        (void)quiesce_end(quiesce, NULL); /* the guard has said what failed */
        return ret;
    }
    *ret_quiesce = quiesce;
    return 0;
}

int quiesce_end(struct quiesce *quiesce, GError **err)
{
    pid_t guard = quiesce->guard;
    int status = 0;

    if (guard > 0) {
        (void)close(quiesce->pipe_fd); /* what the guard waits for */
    }
    g_free(quiesce);
    if (guard == 0) {
        return 0;
    }
    while (waitpid(guard, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == GUARD_EARLY) {
        return error_set(err, -ETIME,
                         "the guest was thawed before the backup's instant "
                         "was certain, because it was frozen for too long");
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != GUARD_THAWED) {
        return error_set(err, -EIO,
                         "the thaw command failed; the guest may still be "
                         "frozen");
    }
    return 0;
}
