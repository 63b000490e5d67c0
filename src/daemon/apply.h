/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What each option does to the daemon that is starting. Coroutines of the main
 * thread. `text` is the option's argument: key=value pairs, or JSON if it
 * begins with a brace.
 */
#ifndef DAEMON_APPLY_H
#define DAEMON_APPLY_H

#include <glib.h>

#include "journal/tracking_settings.h"

struct daemon;

int co_apply_blockdev(struct daemon *daemon, const char *text, GError **err);
int co_apply_chardev(struct daemon *daemon, const char *text, GError **err);
int co_apply_monitor(struct daemon *daemon, const char *text, GError **err);
int co_apply_nbd_server(struct daemon *daemon, const char *text, GError **err);
int co_apply_export(struct daemon *daemon, const char *text, GError **err);
int co_apply_object(struct daemon *daemon, const char *text, GError **err);
int co_apply_trace(struct daemon *daemon, const char *text, GError **err);

/* --tracking, which no daemon is needed for; `text` NULL: not given. Over what is
 * in `*settings`. Any thread, no coroutine. */
int apply_tracking_defaults(const char *text,
                            struct tracking_settings *settings,
                            GError **err);

#endif
