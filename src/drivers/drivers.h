/* SPDX-License-Identifier: BSD-3-Clause */
/* The block drivers of this build. */
#ifndef DRIVERS_DRIVERS_H
#define DRIVERS_DRIVERS_H

#include "block/driver.h"

extern const struct block_driver driver_file;
extern const struct block_driver driver_host_device;
extern const struct block_driver driver_raw;
extern const struct block_driver driver_qcow2;
extern const struct block_driver driver_null;
extern const struct block_driver driver_blkdebug;

/* Their options: members beyond the common ones. */
extern const struct schema_type driver_file_options;
extern const struct schema_type driver_raw_options;
extern const struct schema_type driver_qcow2_options;
extern const struct schema_type driver_null_options;
extern const struct schema_type driver_blkdebug_options;

/* ... and those of drivers that are in the room `backup`. */
extern const struct schema_type driver_copy_before_write_options;
extern const struct schema_type driver_snapshot_access_options;

/* XCohortTracking: how the persistent bitmaps of a node are kept. What it means is
 * journal/tracking_settings.h. */
extern const struct schema_type tracking_options_type;

/* All of this room, NULL-terminated. */
extern const struct block_driver *const block_drivers[];

#endif
