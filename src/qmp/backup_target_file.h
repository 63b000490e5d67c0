/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The target of `drive-backup`: a file by name, made or found, opened as a node
 * for one job.
 */
#ifndef QMP_BACKUP_TARGET_FILE_H
#define QMP_BACKUP_TARGET_FILE_H

#include "block/node.h"

/* Makes the file (`existing` false: created or emptied, `size_bytes` long, and
 * durable in its directory) or finds it, and opens it as a raw node that has no
 * name of the user's. `format` NULL: the source's, or for an existing file what
 * it looks like; anything but raw is refused. Graph lock held; main thread. */
int co_backup_target_open(struct block_graph *graph,
                          const char *path,
                          const char *format,
                          bool existing,
                          uint64_t size_bytes,
                          struct block_node **ret_node,
                          GError **err);

#endif
