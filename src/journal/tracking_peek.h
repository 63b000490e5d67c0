/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A look at a tracking file before its image is opened, let alone tracked.
 */
#ifndef JOURNAL_TRACKING_PEEK_H
#define JOURNAL_TRACKING_PEEK_H

#include <stdbool.h>

struct storage;

/* Is there a tracking file that nobody has open, and that does not say that it was
 * closed cleanly? Also one that cannot be read; false only for what is surely well,
 * or somebody's who lives. Changes nothing. Coroutines of any loop. */
bool co_tracking_was_cut_off(struct storage *storage, const char *path);

#endif
