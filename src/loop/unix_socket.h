/* SPDX-License-Identifier: BSD-3-Clause */
/* Binding a UNIX socket to a path, though a dead process may have left one
 * there, and giving the path up. Any thread. */
#ifndef LOOP_UNIX_SOCKET_H
#define LOOP_UNIX_SOCKET_H

#include <glib.h>
#include <stdbool.h>

/* Listens at `path`. A descriptor, or a negative errno with err set. */
int unix_socket_listen_path(const char *path, GError **err);
/* As above, in the abstract name space. */
int unix_socket_listen_abstract(const char *name, bool tight, GError **err);
/* Removes `path` if it is a socket nobody listens on. */
void unix_socket_remove_stale(const char *path);

#endif
