/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A data file that stands for itself ("raw"): whoever reads only that file must
 * see the disk, at any instant. So an entry never says that its cluster is zero
 * while data is written there: it is made to name its cluster first, durably.
 *
 * Coroutines of the home thread.
 */
#ifndef DRIVERS_QCOW2_RAW_DATA_H
#define DRIVERS_QCOW2_RAW_DATA_H

#include "drivers/qcow2/image.h"

/* Is all that co_qcow2_map_raw() has done durable? Before it is, no data may be
 * written into a cluster that may be one of those. */
bool qcow2_raw_is_settled(const struct qcow2_image *image);
/* Makes it durable. */
int co_qcow2_settle_raw(struct qcow2_image *image);

/* All clusters that [offset, end) touches have data in the data file afterwards
 * and read as before; what of them lies behind `limit` has no place there yet.
 * Durable when settled. */
int co_qcow2_map_raw(struct qcow2_image *image,
                     uint64_t offset,
                     uint64_t end,
                     uint64_t limit);

#endif
