/* SPDX-License-Identifier: BSD-3-Clause */
/* What zero.c does for resize.c: guest ranges that need not lie in the disk, but
 * have L1 entries. */
#ifndef DRIVERS_QCOW2_ZERO_H
#define DRIVERS_QCOW2_ZERO_H

#include "drivers/qcow2/image.h"

/* [offset, end) reads as zeroes afterwards. */
int co_qcow2_zero_behind_end(struct qcow2_image *image,
                             uint64_t offset,
                             uint64_t end);
/* [offset, end), whole clusters, are allocated no more. */
int co_qcow2_drop(struct qcow2_image *image, uint64_t offset, uint64_t end);

#endif
