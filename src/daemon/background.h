/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Going to the background (--daemonize): the process that the user started
 * waits until its child is ready, or has failed and said why on stderr.
 */
#ifndef DAEMON_BACKGROUND_H
#define DAEMON_BACKGROUND_H

#include <glib.h>
#include <stdbool.h>

/* Forks; must be called while there is one thread. Returns in the child, with
 * a descriptor for background_ready(), or -errno with err set. The parent
 * exits: with 0 when the child is ready, with 1 when it ends before. */
int background_enter(GError **err);

/* Whether standard error is kept in the background: it is if it is a file. */
bool background_keeps_errors(void);

/* Lets the parent go and turns away from its terminal, or from whatever waits
 * for the end of what it reads. */
int background_ready(int fd, GError **err);

#endif
