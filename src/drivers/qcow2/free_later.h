/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clusters on their way to being free.
 *
 *     named in memory -> gathered -> committed -> out of use -> free
 *
 * What a request stops naming is gathered. Once a metadata commit is durable,
 * nothing in the file names it either. Once all I/O has ended that was under way
 * then (qcow2_io), nobody reads it. Only then its refcount goes down, and it may
 * be allocated again. A crash on the way leaks it.
 *
 * Home thread.
 */
#ifndef DRIVERS_QCOW2_FREE_LATER_H
#define DRIVERS_QCOW2_FREE_LATER_H

#include "drivers/qcow2/image.h"

enum qcow2_free_cause {
    QCOW2_FREE_DISCARDED, /* a guest's discard, or zeroes that may unmap */
    QCOW2_FREE_REPLACED,  /* anything else */
};

struct qcow2_frees *qcow2_frees_new(struct qcow2_image *image);
void qcow2_frees_free(struct qcow2_frees *frees);

/* The clusters that hold these bytes will be named by nothing once what is dirty
 * now is durable. */
void qcow2_free_later(struct qcow2_image *image,
                      uint64_t host_offset,
                      uint64_t bytes,
                      enum qcow2_free_cause cause);

/*
 * For metadata_commit.c. A commit takes what is gathered and says how it went:
 * durable, or not (then it is gathered again).
 */
void qcow2_frees_take(struct qcow2_image *image);
void qcow2_frees_settle(struct qcow2_image *image, bool durable);
/* Lowers the refcounts of all that is out of use. What cannot be lowered is
 * leaked. */
void co_qcow2_frees_carry_out(struct qcow2_image *image);
/* Is anything on its way? */
bool qcow2_frees_pending(const struct qcow2_image *image);

#endif
