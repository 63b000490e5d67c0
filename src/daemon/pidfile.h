/* SPDX-License-Identifier: BSD-3-Clause */
/* The file that tells our process id, locked for as long as we run. */
#ifndef DAEMON_PIDFILE_H
#define DAEMON_PIDFILE_H

#include <glib.h>

struct pidfile;

/* Creates, locks and writes it. Refused while a living process holds it; what
 * a dead one left is taken over. NULL with err set. Blocks shortly. */
struct pidfile *pidfile_create(const char *path, GError **err);
/* Removes it. NULL is fine. */
void pidfile_remove(struct pidfile *pidfile);

#endif
