/* SPDX-License-Identifier: BSD-3-Clause */
/* A restore point as a user names it, and work on its content. Main thread. */
#ifndef CLI_POINT_ARGUMENT_H
#define CLI_POINT_ARGUMENT_H

#include "cli/interrupt.h"
#include "cli/progress.h"
#include "repo/content.h"

/* The point with this id, or the newest one for NULL; borrowed. NULL with err
 * set (-ENOENT). */
const struct manifest *point_argument(const struct repository *repository,
                                      const char *id,
                                      GError **err);

/* Shows what content_*() tells, under one verb, until a signal comes. */
struct content_show {
    struct progress *progress;
    struct interrupt *interrupt;
    const char *phase;
};

bool content_show_step(void *show,
                       const char *disk,
                       uint64_t done,
                       uint64_t total);

#endif
