/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which disks the next point holds, and which of them in full.
 * One thread; blocking.
 */
#ifndef CLI_PLAN_H
#define CLI_PLAN_H

#include <glib.h>
#include <stdbool.h>

#include "cli/daemon_features.h"
#include "cli/qmp_client.h"
#include "repo/repository.h"

/* A manifest, owned by the caller, for the disks `names` (NULL-terminated; NULL:
 * all that the daemon serves): everything that is known before the instant.
 * Each disk that can is incremental, unless `full`. -ENOENT when a disk is not
 * there. */
int plan_point(const struct repository *repository,
               struct qmp_client *client,
               const struct daemon_features *features,
               char *const *names,
               bool full,
               struct manifest **ret_point,
               GError **err);

#endif
