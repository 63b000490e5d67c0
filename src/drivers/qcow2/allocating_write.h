/* SPDX-License-Identifier: BSD-3-Clause */
/* A write that changes the mapping. For write.c and compressed_write.c. */
#ifndef DRIVERS_QCOW2_ALLOCATING_WRITE_H
#define DRIVERS_QCOW2_ALLOCATING_WRITE_H

#include "drivers/qcow2/image.h"
#include "drivers/qcow2/vectors.h"

/* Writes the next bytes of the request, `bytes` at most, and says how many: at
 * least one. The caller holds the range of the whole clusters. */
int co_qcow2_write_allocating(struct qcow2_image *image,
                              uint64_t offset,
                              uint64_t bytes,
                              struct vector_cursor *cursor,
                              unsigned int flags,
                              uint64_t *ret_bytes);

#endif
