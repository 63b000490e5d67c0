/* SPDX-License-Identifier: BSD-3-Clause */
/* Block drivers over a file of a storage: "simimage", option `path`. So an image
 * and its tracking file crash together. The other, "file", is the same under the
 * name by which the journal knows what it can track. */
#ifndef SIM_JOURNAL_IMAGE_DISK_H
#define SIM_JOURNAL_IMAGE_DISK_H

#include "block/driver.h"
#include "journal/storage.h"

extern const struct block_driver *const image_disk_drivers[];

/* For all nodes that are opened from now on; borrowed. */
void image_disk_use(struct storage *storage);

#endif
