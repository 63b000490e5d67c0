/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/run_command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "repo/fd.h"

/* Between the polite and the final signal. */
#define GRACE_MS 2000

static int spawn_shell(const char *command,
                       const struct interrupt *interrupt,
                       pid_t *ret_pid)
{
    const char *const arguments[] = { "sh", "-c", command, NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int code;

    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes,
                             POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &interrupt->before);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null",
                                     O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
    code = posix_spawn(ret_pid, "/bin/sh", &files, &attributes,
                       (char *const *)(guintptr)arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return -code;
}

/* Waits for the child: 0 ended, -ETIMEDOUT, -ECANCELED. */
static int wait_ended(int pid_fd,
                      unsigned timeout_ms,
                      struct interrupt *interrupt,
                      bool heed)
{
    int64_t deadline_us = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;

    for (;;) {
        struct pollfd fds[] = {
            { .fd = pid_fd, .events = POLLIN },
            { .fd = heed ? interrupt->fd : -1, .events = POLLIN },
        };
        int64_t left_us = deadline_us - g_get_monotonic_time();
        if (heed && interrupt_came(interrupt)) {
            return -ECANCELED;
        }
        if (poll(fds, G_N_ELEMENTS(fds),
                 (int)CLAMP(left_us / 1000 + 1, 0, 60000)) > 0 &&
            fds[0].revents != 0) {
            return 0;
        }
        if (g_get_monotonic_time() >= deadline_us) {
            return -ETIMEDOUT;
        }
    }
}

static void kill_group(pid_t pid, int pid_fd, struct interrupt *interrupt)
{
    (void)kill(-pid, SIGTERM); /* may be gone already */
    (void)wait_ended(pid_fd, GRACE_MS, interrupt, false);
    (void)kill(-pid, SIGKILL); /* also what the shell left behind */
}

static int judge(const char *what, int status, GError **err)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return 0;
    }
    if (WIFEXITED(status)) {
        return error_set(err, -EIO, "the %s command exited with status %d",
                         what, WEXITSTATUS(status));
    }
    return error_set(err, -EIO, "the %s command was ended by signal %d (%s)",
                     what, WTERMSIG(status), strsignal(WTERMSIG(status)));
}

int run_command(const char *what,
                const char *command,
                unsigned timeout_ms,
                struct interrupt *interrupt,
                bool heed,
                GError **err)
{
    pid_t pid;
    int status = 0;
    int ret = spawn_shell(command, interrupt, &pid);

    if (ret < 0) {
        return error_set_errno(err, ret, "cannot start the %s command", what);
    }
    auto_fd int pid_fd = pidfd_open(pid, 0);
    ret = pid_fd < 0 ? -errno : wait_ended(pid_fd, timeout_ms, interrupt, heed);
    if (ret < 0) {
        kill_group(pid, pid_fd, interrupt);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (ret == -ETIMEDOUT) {
        return error_set(err, ret,
                         "the %s command took longer than %u ms and was killed",
                         what, timeout_ms);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "the %s command was stopped", what);
    }
    return judge(what, status, err);
}
