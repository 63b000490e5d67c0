/* SPDX-License-Identifier: BSD-3-Clause */
/* What bitmaps.c, bitmap_data.c and bitmap_store.c share. */
#ifndef DRIVERS_QCOW2_BITMAPS_PRIV_H
#define DRIVERS_QCOW2_BITMAPS_PRIV_H

#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/image.h"

#define QCOW2_BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)
#define QCOW2_BITMAP_ALL_ONES       UINT64_C(1)

struct qcow2_bitmaps {
    GPtrArray *stored;    /* struct qcow2_stored_bitmap, owned; as the file has
                          them, but for `in_use` that was set by us: see there */
    struct co_mutex lock; /* who changes any of it */
};

/* How many bytes of bits the disk has in such a bitmap. */
uint64_t qcow2_bitmap_bytes(uint64_t size_bytes, unsigned int granularity_bits);

/* What one table of bitmap data takes of a file, cluster after cluster: `visit` is
 * called for each entry that names a cluster. Stops at what is not valid:
 * -EINVAL; or at what `visit` returns. bitmap_data.c */
int co_qcow2_bitmap_visit(struct qcow2_image *image,
                          const struct qcow2_stored_bitmap *bitmap,
                          int (*visit)(void *opaque, uint64_t host_offset),
                          void *opaque);

#endif
