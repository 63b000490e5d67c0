/* SPDX-License-Identifier: BSD-3-Clause */
/* Writing compressed clusters. For write.c. */
#ifndef DRIVERS_QCOW2_COMPRESSED_WRITE_H
#define DRIVERS_QCOW2_COMPRESSED_WRITE_H

#include "drivers/qcow2/image.h"

/* Whole clusters, but that the last one may end with the disk: else -EINVAL.
 * -ENOTSUP: the image cannot hold compressed clusters. What does not become
 * smaller is stored as it is. */
int co_qcow2_write_compressed(struct qcow2_image *image,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct iovec *iov,
                              int iov_count);

#endif
