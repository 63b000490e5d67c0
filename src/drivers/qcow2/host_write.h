/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes to host clusters, that never go where they must not: data stays away
 * from metadata in use, and the file grows before something is written behind
 * its end. Coroutines of the home thread; results as of co_block_pwritev().
 */
#ifndef DRIVERS_QCOW2_HOST_WRITE_H
#define DRIVERS_QCOW2_HOST_WRITE_H

#include "drivers/qcow2/image.h"

/* May data be written there? If not, the image contradicts itself. */
bool qcow2_data_may_go(const struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t bytes);

/* Guest data, to where it is kept. `flags`: BLOCK_FLUSHED_SOON or 0. */
int co_qcow2_write_data(struct qcow2_image *image,
                        uint64_t host_offset,
                        uint64_t bytes,
                        const struct iovec *iov,
                        int iov_count,
                        unsigned int flags);
/* The same with zeroes; `flags` as of co_block_write_zeroes(). */
int co_qcow2_zero_data(struct qcow2_image *image,
                       uint64_t host_offset,
                       uint64_t bytes,
                       unsigned int flags);
/* Tables that are in use, whole or in part: their clusters are known. */
int co_qcow2_write_metadata(struct qcow2_image *image,
                            uint64_t host_offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count);
/* Tables that nothing names yet, in clusters just allocated. */
int co_qcow2_write_new_metadata(struct qcow2_image *image,
                                uint64_t host_offset,
                                uint64_t bytes,
                                const struct iovec *iov,
                                int iov_count);

#endif
