/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cohortd: reads the command line, prepares the process (signals, descriptors,
 * background) and runs the daemon.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/trace.h"
#include "daemon/background.h"
#include "daemon/daemon.h"
#include "daemon/options.h"
#include "daemon/pidfile.h"
#include "qmp/version.h"

/* What main() holds for the time that the daemon runs. */
struct process {
    struct daemon_ready ready; /* first */
    const struct daemon_settings *settings;
    struct pidfile *pidfile;
    int background_fd; /* -1: in the foreground */
};

static void print_version(void)
{
    printf("cohortd %s (QMP as in QEMU %d.%d)\n", COHORT_VERSION,
           QMP_QEMU_MAJOR, QMP_QEMU_MINOR);
}

static void print_trace_events(void)
{
    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        printf("%s\n", trace_descriptions[i].name);
    }
}

/* Every image, client and coroutine offload takes descriptors. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* the old limit serves, too */
    }
}

/* The daemon reads these from a descriptor; threads inherit the mask. */
static void block_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int process_ready(struct daemon_ready *ready, GError **err)
{
    struct process *process = (struct process *)(void *)ready;

    if (process->settings->pidfile != NULL) {
        process->pidfile = pidfile_create(process->settings->pidfile, err);
        if (process->pidfile == NULL) {
            g_prefix_error(err, "--pidfile: ");
            return -EIO;
        }
    }
    if (process->background_fd >= 0) {
        return background_ready(process->background_fd, err);
    }
    return 0;
}

static int run(const struct daemon_settings *settings, GError **err)
{
    struct process process = {
        .ready = { .call = process_ready },
        .settings = settings,
        .background_fd = -1,
    };
    int rc;

    if (settings->daemonize) {
        process.background_fd = background_enter(err);
        if (process.background_fd < 0) {
            return process.background_fd;
        }
    }
    block_signals();
    raise_descriptor_limit();
    rc = daemon_run(settings, &process.ready, err);
    pidfile_remove(process.pidfile);
    return rc;
}

int main(int argc, char **argv)
{
    struct daemon_settings settings;
    g_autoptr(GError) err = NULL;
    int rc = daemon_settings_parse(argc, argv, &settings, &err);

    if (rc == 0) {
        switch (settings.action) {
        case DAEMON_RUN: rc = run(&settings, &err); break;
        case DAEMON_SHOW_HELP: daemon_help_print(stdout); break;
        case DAEMON_SHOW_VERSION: print_version(); break;
        case DAEMON_SHOW_TRACE_EVENTS: print_trace_events(); break;
        }
        daemon_settings_release(&settings);
    }
    if (rc < 0) {
        fprintf(stderr, "cohortd: %s\n", err->message);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
