/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/point_argument.h"

#include <errno.h>

#include "base/error.h"

const struct manifest *point_argument(const struct repository *repository,
                                      const char *id,
                                      GError **err)
{
    const struct manifest *point = id == NULL ? repository_newest(repository)
                                              : repository_find(repository, id);

    if (point == NULL && id == NULL) {
        (void)error_set(err, -ENOENT,
                        "'%s' holds no restore point that can "
                        "be read",
                        repository->path);
    } else if (point == NULL) {
        (void)error_set(err, -ENOENT,
                        "'%s' has no point '%s' that can be read; cohort list "
                        "shows those it has",
                        repository->path, id);
    }
    return point;
}

bool content_show_step(void *opaque,
                       const char *disk,
                       uint64_t done,
                       uint64_t total)
{
    struct content_show *show = opaque;

    progress_update(show->progress, disk, show->phase, done, total);
    return !interrupt_came(show->interrupt);
}
