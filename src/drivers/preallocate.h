/* SPDX-License-Identifier: BSD-3-Clause */
/* Giving a file or an image the space that it was promised. */
#ifndef DRIVERS_PREALLOCATE_H
#define DRIVERS_PREALLOCATE_H

#include "block/node.h"

/* PreallocMode, in the order of its names. */
enum preallocation {
    PREALLOCATION_OFF,
    PREALLOCATION_METADATA, /* of formats that have any: all tables */
    PREALLOCATION_FALLOC,   /* and the space is reserved */
    PREALLOCATION_FULL,     /* and zeroes are written to all of it */
};

extern const char *const preallocation_names[];

/* Asked between pieces of what may take long; true: stop, with -ECANCELED. */
struct preallocation_stop {
    bool (*is_asked)(void *opaque);
    void *opaque;
};

/* Makes a range read as zeroes, with as much space behind it as asked for. `stop`
 * may be NULL. A coroutine of the node's home; 0 or a negative errno. */
int co_preallocate(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   enum preallocation how,
                   const struct preallocation_stop *stop);

#endif
