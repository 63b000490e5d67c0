/* SPDX-License-Identifier: BSD-3-Clause */
/* What refcount.c, refcount_growth.c and allocate.c share. */
#ifndef DRIVERS_QCOW2_REFCOUNT_PRIV_H
#define DRIVERS_QCOW2_REFCOUNT_PRIV_H

#include "drivers/qcow2/refcount.h"

/* Clusters that became free lately, to be used first. */
struct qcow2_free_run {
    uint64_t cluster;
    uint64_t clusters;
};

struct qcow2_refcounts {
    struct table_cache *slices;
    unsigned int cluster_bits;
    unsigned int order;      /* a refcount has 1 << order bits */
    uint64_t count_max;      /* what that many bits can say */
    unsigned int slice_bits; /* a slice has 1 << slice_bits refcounts */
    unsigned int block_bits; /* ... and a refcount block */

    /* Changed under `allocating` only. */
    uint64_t *table; /* host offsets of blocks, 0: all are free */
    uint64_t table_count;
    uint64_t next_free;   /* a cluster: below it only `freed` are free */
    uint64_t high_offset; /* from here on nothing was ever written */
    struct co_mutex allocating;

    GArray *freed;          /* struct qcow2_free_run */
    uint64_t packed_offset; /* where compressed data goes on; 0: nowhere */
    struct co_mutex growing_file;
};

/* The slice with the count of `cluster`, pinned, and its index there. 1: there
 * is no refcount block for it, it is free. */
int co_qcow2_refcount_slice(struct qcow2_image *image,
                            uint64_t cluster,
                            bool may_commit,
                            struct table_block **ret_slice,
                            uint64_t *ret_index);

/* refcount_growth.c: makes a refcount block for `cluster`, which is free and has
 * none, and takes that cluster or some from there on for it. `allocating` is
 * held. */
int co_qcow2_refcount_block_add(struct qcow2_image *image, uint64_t cluster);
/* As above in one cluster that was allocated for it; the table has an entry. */
int co_qcow2_refcount_block_place(struct qcow2_image *image,
                                  uint64_t cluster,
                                  const struct qcow2_run *place);

/* allocate.c: they are free now. */
void qcow2_refcounts_note_free(struct qcow2_refcounts *refcounts,
                               uint64_t cluster,
                               uint64_t clusters);

#endif
