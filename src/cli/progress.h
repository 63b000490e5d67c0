/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tells people on standard error how far a command is: a bar per disk on a
 * terminal, a line now and then otherwise. Also says single sentences, without
 * tearing the bars. One thread.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct progress;

/* `quiet`: sentences yes, progress no. */
struct progress *progress_new(bool quiet);
/* Leaves the bars as they are last. */
void progress_free(struct progress *progress);

/* `phase`: a verb, "copy", "hash". A new phase starts the disk's bar anew. */
void progress_update(struct progress *progress,
                     const char *disk,
                     const char *phase,
                     uint64_t done,
                     uint64_t total);

void progress_say(struct progress *progress, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

#endif
