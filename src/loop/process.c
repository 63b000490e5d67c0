/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop/process.h"

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* "PF_EXITING" of the flags in /proc/PID/stat: it has begun to exit. */
#define FLAG_EXITING 0x4U

/* The file of that name about the process. Owned by the caller; NULL: none. */
static char *read_about(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, name);
    char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? text : NULL;
}

static bool stat_tells_end(const char *stat)
{
    /* The command's name, in parentheses, may contain anything. */
    const char *after_name = stat != NULL ? strrchr(stat, ')') : NULL;
    unsigned int flags;
    char state;

    if (after_name == NULL || sscanf(after_name, ") %c %*d %*d %*d %*d %*d %u",
                                     &state, &flags) != 2) {
        return false;
    }
    return state == 'Z' || state == 'X' || (flags & FLAG_EXITING) != 0;
}

/* `key`: "SigPnd:" (of the thread) or "ShdPnd:" (of the whole process). */
static bool status_tells_kill(const char *status, const char *key)
{
    const char *at = status != NULL ? strstr(status, key) : NULL;
    guint64 pending =
        at != NULL ? g_ascii_strtoull(at + strlen(key), NULL, 16) : 0;

    return (pending & (UINT64_C(1) << (SIGKILL - 1))) != 0;
}

bool process_is_ending(pid_t pid)
{
    g_autofree char *stat = NULL;
    g_autofree char *status = NULL;

    if (pid <= 0) {
        return false; /* 0: of another name space, which we cannot see */
    }
    if (kill(pid, 0) < 0 && errno == ESRCH) {
        return true;
    }
    stat = read_about(pid, "stat");
    status = read_about(pid, "status");
    return stat_tells_end(stat) || status_tells_kill(status, "SigPnd:") ||
           status_tells_kill(status, "ShdPnd:");
}
