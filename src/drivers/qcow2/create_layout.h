/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where everything lies in a new qcow2 image, and what its tables hold.
 *
 *     | header | refcount table | refcount blocks | L1 | L2 ... | data ... |
 *
 * L2 tables and data are there only with preallocation; data not, if it is in
 * an external data file. Every cluster of the file has refcount 1. Source:
 * docs/interop/qcow2.txt, "Host cluster management", "Cluster mapping",
 * "Extended L2 Entries". No I/O; any thread.
 */
#ifndef DRIVERS_QCOW2_CREATE_LAYOUT_H
#define DRIVERS_QCOW2_CREATE_LAYOUT_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What determines a layout; checked by the caller. */
struct qcow2_shape {
    uint64_t size_bytes;
    uint64_t cluster_bytes;
    unsigned int refcount_order;
    bool extended_l2;
    bool preallocated;
    bool external_data; /* host offset equals guest offset */
    bool has_backing; /* extended_l2: what is preallocated is not in use yet */
};

/* A run of whole clusters in the file. */
struct qcow2_area {
    uint64_t offset_bytes;
    uint64_t clusters;
};

struct qcow2_layout {
    struct qcow2_shape shape;
    struct qcow2_area refcount_table;
    struct qcow2_area refcount_blocks;
    struct qcow2_area l1;
    struct qcow2_area l2;
    struct qcow2_area data; /* offset 0 if external */
    uint32_t l1_count;
    uint64_t file_bytes;
};

/* -EFBIG with a sentence when the format has no room for such a disk. */
int qcow2_layout_init(struct qcow2_layout *layout,
                      const struct qcow2_shape *shape,
                      GError **err);

/* Fills `buffer` (zeroed by the caller) with `bytes` of a table, from its byte
 * `position`; both multiples of 16. */
typedef void qcow2_layout_fill(const struct qcow2_layout *layout,
                               uint64_t position,
                               uint8_t *buffer,
                               size_t bytes);

qcow2_layout_fill qcow2_layout_fill_refcount_table;
qcow2_layout_fill qcow2_layout_fill_refcount_blocks;
qcow2_layout_fill qcow2_layout_fill_l1;
qcow2_layout_fill qcow2_layout_fill_l2;

#endif
