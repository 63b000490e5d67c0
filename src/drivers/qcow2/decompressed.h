/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The clusters that were decompressed last: a small cache, since who reads a
 * compressed cluster in small steps would decompress it once for each.
 *
 * A cluster is named by the place of its stream. Who wants one that is being
 * made waits for it. Home thread.
 */
#ifndef DRIVERS_QCOW2_DECOMPRESSED_H
#define DRIVERS_QCOW2_DECOMPRESSED_H

#include "drivers/qcow2/image.h"

struct decompressed_cache *decompressed_new(struct qcow2_image *image);
/* Nobody waits. NULL is fine. */
void decompressed_free(struct decompressed_cache *cache);

/* The cluster whose stream is at `host_offset`, if it is in memory; else NULL.
 * Valid until the caller yields. */
const uint8_t *decompressed_find(struct decompressed_cache *cache,
                                 uint64_t host_offset);
/* As above, making it if need be, for a mapping of kind COMPRESSED; the caller
 * holds a qcow2_io. A stream that is broken makes the image corrupt. */
int co_decompressed_get(struct decompressed_cache *cache,
                        const struct qcow2_mapping *mapping,
                        const uint8_t **ret_cluster);
/* Another stream is about to be written to where these bytes are: what was made
 * from the old one is forgotten. To be called before the write, when no reader
 * can come upon the old stream any more. */
void decompressed_forget(struct decompressed_cache *cache,
                         uint64_t host_offset,
                         uint64_t bytes);

#endif
