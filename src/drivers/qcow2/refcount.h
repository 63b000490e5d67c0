/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refcounts: which clusters of the file are in use, and by how many.
 *
 * Refcount blocks are cached (table_cache.h) and grow with the file; the table
 * of blocks is in memory and moves when it is full. Allocation hands out runs,
 * the lowest free ones first, so that writes in a row lie in a row. Clusters
 * behind the old end of the file are known to read as zeroes, which spares
 * filling them.
 *
 * Coroutines of the home thread.
 */
#ifndef DRIVERS_QCOW2_REFCOUNT_H
#define DRIVERS_QCOW2_REFCOUNT_H

#include "drivers/qcow2/image.h"

struct qcow2_run {
    uint64_t host_offset;
    uint64_t clusters;
    bool reads_zero; /* all of it is behind what was ever written */
};

int co_qcow2_refcounts_open(struct qcow2_image *image, GError **err);
void qcow2_refcounts_free(struct qcow2_refcounts *refcounts);

int co_qcow2_refcount_get(struct qcow2_image *image,
                          uint64_t host_offset,
                          uint64_t *ret_count);
/* 1 to `clusters` clusters in one run, counted 1 in memory. -ENOSPC, -EFBIG. */
int co_qcow2_allocate(struct qcow2_image *image,
                      uint64_t clusters,
                      struct qcow2_run *ret_run);
/* The same, at most to be given back at once: what was not used after all. */
int co_qcow2_give_back(struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t clusters);
/* Down by one; for metadata_commit.c, when nothing names them any more, and for
 * snapshots and bitmaps. Below zero: the image is corrupt. */
int co_qcow2_refcount_decrease(struct qcow2_image *image,
                               uint64_t host_offset,
                               uint64_t clusters);

#endif
