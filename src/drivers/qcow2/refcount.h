/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refcounts: which clusters of the file are in use, and by how many.
 *
 * Refcount blocks are cached in slices (table_cache.h) and grow with the file;
 * the table of blocks is in memory and moves when it is full. Allocation hands
 * out runs, what was freed lately first, then the lowest free ones, so that
 * writes in a row lie in a row. Clusters behind the old end of the file are
 * known to read as zeroes, which spares filling them.
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
/* 1 to `clusters` clusters in one run, counted 1 in memory, and within the file,
 * which grows for them. -ENOSPC, -EFBIG. */
int co_qcow2_allocate(struct qcow2_image *image,
                      uint64_t clusters,
                      struct qcow2_run *ret_run);
/* As above, all of it in one run behind all that is in use. */
int co_qcow2_allocate_contiguous(struct qcow2_image *image,
                                 uint64_t clusters,
                                 struct qcow2_run *ret_run);
/* Room for `bytes` (at most a cluster) of compressed data, next to what was
 * packed before; the clusters that it touches are counted one up. */
int co_qcow2_allocate_packed(struct qcow2_image *image,
                             uint64_t bytes,
                             uint64_t *ret_host_offset);
/* The same, at most to be given back at once: what was not used after all. */
int co_qcow2_give_back(struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t clusters);
/* Up by one; for snapshots and bitmaps. -ERANGE: more than the width of this
 * image's refcounts can say; nothing is changed then. */
int co_qcow2_refcount_increase(struct qcow2_image *image,
                               uint64_t host_offset,
                               uint64_t clusters);
/* Down by one; when nothing in the file names them any more (free_later.h).
 * Never waits for a commit. Below zero: the image is corrupt. */
int co_qcow2_refcount_decrease(struct qcow2_image *image,
                               uint64_t host_offset,
                               uint64_t clusters);
/* Are all counted exactly 1? Nothing is packed into them from then on, so
 * whoever holds the last use of them may punch them out of the file. */
bool co_qcow2_refcount_last_use(struct qcow2_image *image,
                                uint64_t host_offset,
                                uint64_t clusters);

/* The file reaches to `host_end` afterwards, growing in large steps. */
int co_qcow2_grow_file(struct qcow2_image *image, uint64_t host_end);
/* Cuts off what was grown and not used. */
int co_qcow2_trim_file(struct qcow2_image *image);

#endif
