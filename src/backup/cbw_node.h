/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of a copy-before-write node, which snapshot-access nodes look into.
 * Home thread.
 */
#ifndef BACKUP_CBW_NODE_H
#define BACKUP_CBW_NODE_H

#include "backup/block_copy.h"
#include "block/driver.h"

struct cbw_node {
    struct block_node *file;   /* children; shared with the graph */
    struct block_node *target; /* NULL: the filter of a job */
    struct block_copy *copy;   /* NULL with target NULL */
    struct bitmap *access;     /* the clusters that can be read as of then */
    bool watches;              /* reads of the target */
};

extern const struct block_driver driver_copy_before_write;
extern const struct block_driver driver_snapshot_access;

#endif
