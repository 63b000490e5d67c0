/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One backup: from a locked, settled repository and a connected daemon to a
 * published point. docs/internals/repository-protocol.md has the steps and what
 * a death at each of them leaves behind. One thread; blocking.
 */
#ifndef CLI_BACKUP_H
#define CLI_BACKUP_H

#include <glib.h>
#include <stdbool.h>

#include "cli/daemon_features.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/qmp_client.h"
#include "repo/increment.h"
#include "repo/repository.h"

struct backup_options {
    const char *freeze_command; /* NULL: none */
    const char *thaw_command;   /* NULL: none */
    unsigned freeze_timeout_ms;
    bool compress; /* the images */
};

struct backup {
    const struct backup_options *options; /* borrowed, as all of these */
    struct repository *repository;
    struct qmp_client *client;
    struct daemon_features features;
    struct interrupt *interrupt;
    struct progress *progress;
    struct manifest *point; /* owned until it is published */
    GArray **extents; /* per disk: struct increment_extent; NULL if full */
    int directory_fd; /* of the partial point */
    bool thaw_failed;
};

/* Makes the point that `*point` plans (consumed). On failure nothing of it is
 * left. The published manifest is borrowed from the repository. `thaw_failed`
 * tells of the guest in either case. */
int backup_run(struct backup *backup,
               struct manifest **point,
               const struct manifest **ret_published,
               GError **err);

/* From the pending jobs to a durable, prepared point: backup_seal.c. */
int backup_seal(struct backup *backup, GError **err);

/* The image file of a disk's point while it is made, as the daemon must name
 * it; a new string. */
char *backup_image_path(const struct backup *backup,
                        const struct manifest_disk *disk);

#endif
