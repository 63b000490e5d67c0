/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon: the engine plus what it runs on.
 *
 *     daemon_run()   start up (options in order), serve until quit or a signal,
 *                    shut down: exports, jobs, nodes, monitors, threads
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include "daemon/chardev.h"
#include "daemon/iothread.h"
#include "daemon/options.h"
#include "daemon/shutdown.h"
#include "daemon/state.h"
#include "loop/co_lock.h"
#include "loop/io.h"
#include "qmp/engine.h"

/* Whom to tell that everything is ready; may fail the start. */
struct daemon_ready {
    int (*call)(struct daemon_ready *ready, GError **err);
};

struct daemon {
    struct engine engine; /* first: engine callbacks find the daemon by it */
    const struct daemon_settings *settings;
    const struct daemon_step *step; /* which acts now; NULL: none */
    struct chardev_list chardevs;
    struct iothread_list iothreads;
    struct daemon_state state;
    bool quitting;
    bool signalled; /* by SIGTERM or SIGINT, that is */
    struct shutdown shutdown;
    struct co_queue quit; /* the main coroutine waits for `quitting` */
    /* Ends a start-up that waits for a first client (--chardev wait=on). */
    struct io_canceller start_canceller;
    int signal_fd;
    struct io_canceller signal_canceller;
    bool watches_signals; /* the coroutine that does runs */
    struct daemon_ready *ready;
    GError *error; /* why it could not start */
};

/* Runs a daemon on this thread, from start to end. SIGTERM, SIGINT and SIGHUP
 * must be blocked in the calling thread. Returns 0, or a negative errno with
 * err set if it could not start; all is undone then. */
int daemon_run(const struct daemon_settings *settings,
               struct daemon_ready *ready,
               GError **err);

#endif
