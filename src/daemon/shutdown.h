/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking a daemon down, and telling what holds that up.
 *
 *     shutdown_begin()    it was asked for: from then on standard error tells
 *                         every five seconds what is waited for
 *     co_shutdown()       takes everything down; returns when all is gone
 *     shutdown_force()    somebody does not want to wait: ends the process
 *
 * Main thread.
 */
#ifndef DAEMON_SHUTDOWN_H
#define DAEMON_SHUTDOWN_H

#include <glib.h>
#include <stdbool.h>

#include "loop/co_lock.h"

struct daemon;

/* What is being waited for, in this order. */
enum shutdown_stage {
    SHUTDOWN_START,    /* an option that acts, if the start is not over */
    SHUTDOWN_COMMANDS, /* the QMP command that runs, if any */
    SHUTDOWN_EXPORTS,
    SHUTDOWN_JOBS,
    SHUTDOWN_NODES,
    SHUTDOWN_CLIENTS, /* of the monitors: they get what is still to be said */
};

struct shutdown {
    enum shutdown_stage stage;
    bool over;
    bool reporting;       /* a coroutine does */
    struct co_queue wake; /* `over` has changed, or `reporting` */
};

void shutdown_init(struct shutdown *shutdown);
/* May be called again. Any callback. */
void shutdown_begin(struct daemon *daemon);
/* Exports, jobs, nodes, monitors, threads. */
void co_shutdown(struct daemon *daemon);
/* Says what was left, and ends the process at once with exit code 1. */
G_GNUC_NORETURN void shutdown_force(struct daemon *daemon);

#endif
