/* SPDX-License-Identifier: BSD-3-Clause */
/* Opens the socket of a QMP monitor. Any thread; blocking. */
#ifndef CLI_QMP_CONNECT_H
#define CLI_QMP_CONNECT_H

#include <glib.h>

/* `address`: "unix:PATH", "tcp:HOST:PORT", a path (with a slash, or of a file
 * that exists), or "HOST:PORT"; a host with colons stands in brackets. A
 * connected descriptor, owned by the caller, or -EINVAL (no such form) or
 * -ECONNREFUSED with a sentence. */
int qmp_connect(const char *address, unsigned timeout_ms, GError **err);

#endif
