/* SPDX-License-Identifier: BSD-3-Clause */
/* The schema of x-cohort-tracking, and of the daemon's --tracking. */
#include "drivers/drivers.h"

static const char *const durability_words[] = { "power", "process", NULL };

static const struct schema_type durability_type = {
    .kind = SCHEMA_ENUM,
    .name = "XCohortDurability",
    .doc = "What persistent bitmaps survive. power: also a loss of power. "
           "process: that the daemon is killed, but not that the machine "
           "stops; nothing waits for the disk then, and after a crash of the "
           "machine the bitmaps are inconsistent.",
    .values = durability_words,
};

static const char *const on_error_words[] = { "report", "stop", NULL };

static const struct schema_type on_error_type = {
    .kind = SCHEMA_ENUM,
    .name = "XCohortOnTrackingError",
    .doc = "What becomes of writes when changes can no longer be recorded, and "
           "not even that can be stored. report: they go on, and an event "
           "says that after a crash the bitmaps must not be believed. stop: "
           "they fail with EIO.",
    .values = on_error_words,
};

static const char *const location_words[] = { "beside", "state-dir", NULL };

static const struct schema_type location_type = {
    .kind = SCHEMA_ENUM,
    .name = "XCohortTrackingLocation",
    .doc = "Where a tracking file is made. beside: beside the image, as "
           "NAME.cbt; of a block device always in the state directory.",
    .values = location_words,
};

static const struct schema_member tracking_members[] = {
    { .name = "durability",
      .type = &durability_type,
      .doc = "What the bitmaps survive. power is refused where the daemon's "
             "own default is process: its log would not keep to it.",
      .fallback = "power" },
    { .name = "on-tracking-error",
      .type = &on_error_type,
      .doc = "What becomes of writes when not even the loss of the bitmaps can "
             "be stored.",
      .fallback = "report" },
    { .name = "over-marking",
      .type = &schema_size,
      .doc = "How many bytes recovery after a crash may mark beyond what was "
             "written, about; 16 MiB at least. Less means more checkpoints, "
             "and more writes that wait for the disk. Default: 1 GiB or half a "
             "percent of the disk, whichever is more." },
    { .name = "checkpoint-interval",
      .type = &schema_uint32,
      .doc = "Milliseconds from the first change to the checkpoint that makes "
             "the bits durable; 10 at least.",
      .fallback = "5000" },
    { .name = "location",
      .type = &location_type,
      .doc = "Where a tracking file is made. One that is there already is used "
             "where it is.",
      .fallback = "beside" },
    { .name = NULL },
};

const struct schema_type tracking_options_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortTracking",
    .doc = "How persistent dirty bitmaps are kept.",
    .members = tracking_members,
};
