/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The target of `drive-backup`: a file by name, made or found, opened as a node
 * for one job.
 *
 *     sync    the image that is made, and what the node reads below it
 *     full    all by itself
 *     top     over the source's backing file
 *     none    over the source itself: what has not been overwritten is there
 */
#ifndef QMP_BACKUP_TARGET_FILE_H
#define QMP_BACKUP_TARGET_FILE_H

#include "backup/backup_job.h"
#include "block/node.h"

/* `data`: the arguments of drive-backup. Makes the file (created or emptied, as
 * large as `source`, durable in its directory) or finds it (mode=existing), and
 * opens it as a node that has no name of the user's. A format that is not given
 * is the source's or, for an existing file, what it looks like; only raw and
 * qcow2 can be written. A file that was made stays when this fails later. Graph
 * lock held; main thread. */
int co_backup_target_open(struct block_node *source,
                          enum backup_sync sync,
                          const struct json_value *data,
                          struct block_node **ret_node,
                          GError **err);

#endif
