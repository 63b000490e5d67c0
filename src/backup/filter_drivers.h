/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The drivers that a backup brings along, for block_graph_add_drivers():
 *
 *     copy-before-write   passes everything to its `file`; what is about to be
 *                         overwritten there goes to its `target` first
 *     snapshot-access     shows what the `file` of a copy-before-write node held
 *                         when that was opened
 *
 * Their options are with those of the other drivers (drivers/drivers.h).
 */
#ifndef BACKUP_FILTER_DRIVERS_H
#define BACKUP_FILTER_DRIVERS_H

#include "block/driver.h"

/* NULL-terminated. */
extern const struct block_driver *const backup_drivers[];

/* Options of a copy-before-write node without a target: it only passes on. A
 * job's filter, whose work the job does at the source. New. */
struct json_value *filter_node_options(const char *name,
                                       const struct block_node *file);
/* Is it such a one? */
bool filter_node_is(const struct block_node *node);

#endif
