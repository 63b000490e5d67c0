/* SPDX-License-Identifier: BSD-3-Clause */
/* Options of the drivers that a backup brings along. */
#include "drivers/drivers.h"

static const char *const error_words[] = { "break-guest-write",
                                           "break-snapshot", NULL };

static const struct schema_type error_type = {
    .kind = SCHEMA_ENUM,
    .name = "OnCbwError",
    .values = error_words,
};

static const struct schema_member bitmap_members[] = {
    { .name = "node",
      .type = &schema_string,
      .doc = "`file`, or a node below it.",
      .required = true },
    { .name = "name", .type = &schema_string, .required = true },
    { .name = NULL },
};

static const struct schema_type bitmap_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevCbwBitmap",
    .members = bitmap_members,
};

static const struct schema_member copy_before_write_members[] = {
    { .name = "file",
      .type = &blockdev_ref_type,
      .doc = "The disk: reads and writes go there.",
      .required = true },
    { .name = "target",
      .type = &blockdev_ref_type,
      .doc = "Where the old content of what is overwritten goes; as large as "
             "`file`.",
      .required = true },
    { .name = "bitmap",
      .type = &bitmap_type,
      .doc = "Only what is dirty there is saved, and can be read through "
             "snapshot-access." },
    { .name = "on-cbw-error",
      .type = &error_type,
      .doc = "What fails when old content cannot be saved.",
      .fallback = "break-guest-write" },
    { .name = "cbw-timeout",
      .type = &schema_uint32,
      .doc = "Seconds after which saving has failed; 0: never.",
      .fallback = "0" },
    { .name = "min-cluster-size",
      .type = &schema_size,
      .doc = "Bytes that are saved at least at once, a power of two.",
      .fallback = "0: 64 KiB, or the target's cluster" },
    { .name = NULL },
};

const struct schema_type driver_copy_before_write_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsCbw",
    .members = copy_before_write_members,
};

static const struct schema_member snapshot_access_members[] = {
    { .name = "file",
      .type = &blockdev_ref_type,
      .doc = "A copy-before-write node.",
      .required = true },
    { .name = NULL },
};

const struct schema_type driver_snapshot_access_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsSnapshotAccess",
    .members = snapshot_access_members,
};
