/* SPDX-License-Identifier: BSD-3-Clause */
/* Types of the arguments of `blockdev-backup` and `drive-backup`. */
#ifndef QMP_BACKUP_TYPES_H
#define QMP_BACKUP_TYPES_H

#include "base/schema.h"

extern const struct schema_type blockdev_backup_type;
extern const struct schema_type drive_backup_type;
extern const struct schema_type new_image_mode_type;
/* The backup that a bitmap is a difference to. */
extern const struct schema_type qmp_bitmap_base_type;

/* Values of enumerations, NULL-terminated, in the order of enum
 * backup_bitmap_mode and enum backup_error_policy (then "auto"). */
extern const char *const backup_bitmap_mode_names[];
extern const char *const backup_error_policy_names[];

#endif
