/* SPDX-License-Identifier: BSD-3-Clause */
/* The drivers, and the types of BlockdevOptions composed from them. */
#include "drivers/drivers.h"

#include <stddef.h>

const struct block_driver *const block_drivers[] = {
    &driver_file, &driver_host_device, &driver_raw, &driver_qcow2,
    &driver_null, &driver_blkdebug,    NULL,
};

static const char *const driver_names[] = {
    "file",
    "host_device",
    "raw",
    "qcow2",
    "null-co",
    "blkdebug",
    "copy-before-write",
    "snapshot-access",
    NULL,
};

const struct schema_type blockdev_driver_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevDriver",
    .doc = "The drivers of this build.",
    .values = driver_names,
};

static const char *const discard_words[] = { "ignore", "unmap", NULL };

static const struct schema_type discard_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevDiscardOptions",
    .values = discard_words,
};

static const char *const detect_zeroes_words[] = { "off", "on", "unmap", NULL };

static const struct schema_type detect_zeroes_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevDetectZeroesOptions",
    .values = detect_zeroes_words,
};

static const struct schema_member cache_members[] = {
    { .name = "direct",
      .type = &schema_bool,
      .doc = "Go past the page cache of the host (O_DIRECT).",
      .fallback = "false" },
    { .name = "no-flush",
      .type = &schema_bool,
      .doc = "Do nothing on flush: fast, and a power loss costs the image.",
      .fallback = "false" },
    { .name = NULL },
};

static const struct schema_type cache_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevCacheOptions",
    .members = cache_members,
};

const struct schema_member blockdev_common_members[] = {
    { .name = "driver",
      .type = &blockdev_driver_type,
      .doc = "What kind of node this is.",
      .required = true },
    { .name = "node-name",
      .type = &schema_string,
      .doc = "The node's name: a letter, then letters, digits, '-', '.' and "
             "'_', 31 characters at most. Required at top level; a nested "
             "node without one gets a name that starts with '#'." },
    { .name = "discard",
      .type = &discard_type,
      .doc = "Whether a discard gives space back. A nested child leaves it to "
             "its parent.",
      .fallback = "ignore" },
    { .name = "cache",
      .type = &cache_type,
      .doc = "How the host caches; nested children inherit it." },
    { .name = "read-only",
      .type = &schema_bool,
      .doc = "Refuse writes; nested children inherit it. A node over a "
             "read-only child is read-only, too.",
      .fallback = "false" },
    { .name = "auto-read-only",
      .type = &schema_bool,
      .doc = "Open read-only when the image cannot be opened for writing.",
      .fallback = "false" },
    { .name = "force-share",
      .type = &schema_bool,
      .doc = "Take no locks, so that others may write meanwhile; needs "
             "read-only.",
      .fallback = "false" },
    { .name = "detect-zeroes",
      .type = &detect_zeroes_type,
      .doc = "Turn writes of nothing but zeroes into zeroing; unmap: which may "
             "make holes, needs discard=unmap.",
      .fallback = "off" },
    { .name = "x-cohort-tracking",
      .type = &tracking_options_type,
      .doc = "How persistent dirty bitmaps of this node are kept. Only for a "
             "node that is added by itself, writable, and can have such "
             "bitmaps. What is left out is as the daemon's --tracking says." },
    { .name = NULL },
};

static const struct schema_branch driver_branches[] = {
    { "file", &driver_file_options },
    { "host_device", &driver_file_options },
    { "raw", &driver_raw_options },
    { "qcow2", &driver_qcow2_options },
    { "copy-before-write", &driver_copy_before_write_options },
    { "snapshot-access", &driver_snapshot_access_options },
    { "null-co", &driver_null_options },
    { "blkdebug", &driver_blkdebug_options },
    { NULL, NULL },
};

const struct schema_type blockdev_options_type = {
    .kind = SCHEMA_UNION,
    .name = "BlockdevOptions",
    .doc = "A block node to open.",
    .members = blockdev_common_members,
    .tag = "driver",
    .branches = driver_branches,
};

static const struct schema_branch ref_or_null_branches[] = {
    { "definition", &blockdev_options_type },
    { "reference", &schema_string },
    { "none", &schema_null },
    { NULL, NULL },
};

const struct schema_type blockdev_ref_or_null_type = {
    .kind = SCHEMA_ALTERNATE,
    .name = "BlockdevRefOrNull",
    .doc = "The name of a node, the options of one to open, or null for none; "
           "an empty name is null, too.",
    .branches = ref_or_null_branches,
};

static const struct schema_branch ref_branches[] = {
    { "definition", &blockdev_options_type },
    { "reference", &schema_string },
    { NULL, NULL },
};

const struct schema_type blockdev_ref_type = {
    .kind = SCHEMA_ALTERNATE,
    .name = "BlockdevRef",
    .doc = "The name of a node, or the options of one to open.",
    .branches = ref_branches,
};
