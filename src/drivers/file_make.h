/* SPDX-License-Identifier: BSD-3-Clause */
/* Making files that nodes are then opened on. */
#ifndef DRIVERS_FILE_MAKE_H
#define DRIVERS_FILE_MAKE_H

#include "drivers/preallocate.h"

/* The file at `path`, durable in its directory; one that exists stays as it is,
 * since someone may have it open. Any coroutine. */
int co_file_make(const char *path, GError **err);

/* Empties an open file, then makes it `size_bytes` of zeroes, durable. `how`:
 * not METADATA, which a file has none of. `stop`: see preallocate.h. A coroutine of
 * the node's home. */
int co_file_fill(struct block_node *node,
                 uint64_t size_bytes,
                 enum preallocation how,
                 const struct preallocation_stop *stop,
                 GError **err);

/* Opens the file at `path` with driver "file", for writing, under a name that
 * nobody else has; for co_block_del(). A coroutine of the main thread that holds
 * the graph's lock. */
int co_file_open(struct block_graph *graph,
                 const char *path,
                 struct block_node **ret_node,
                 GError **err);

#endif
