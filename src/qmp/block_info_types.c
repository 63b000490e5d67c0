/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/block_info_types.h"

#include "qmp/backup_types.h"

static const struct schema_type base_list_type = {
    .kind = SCHEMA_LIST,
    .element = &qmp_bitmap_base_type,
};

static const struct schema_member recovered_members[] = {
    { .name = "regions",
      .type = &schema_int,
      .doc = "Regions of the disk that may have been written to since the "
             "last checkpoint.",
      .required = true },
    { .name = "bytes",
      .type = &schema_int,
      .doc = "Bytes of them that have become dirty by that.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type recovered_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortRecovered",
    .doc = "What was marked when a crash was recovered from.",
    .members = recovered_members,
};

static const struct schema_member dirty_info_members[] = {
    { .name = "name",
      .type = &schema_string,
      .doc = "Absent for what records in place of a bitmap that a job reads." },
    { .name = "count",
      .type = &schema_int,
      .doc = "Dirty bytes: set bits times granularity.",
      .required = true },
    { .name = "granularity", .type = &schema_uint32, .required = true },
    { .name = "recording",
      .type = &schema_bool,
      .doc = "Are new writes recorded?",
      .required = true },
    { .name = "busy",
      .type = &schema_bool,
      .doc = "In use by a job or an export: it cannot be changed.",
      .required = true },
    { .name = "persistent",
      .type = &schema_bool,
      .doc = "Does it outlive the daemon?",
      .required = true },
    { .name = "inconsistent",
      .type = &schema_bool,
      .doc = "Present and true: of no use, can only be removed." },
    { .name = "x-cohort-reason",
      .type = &schema_string,
      .doc = "Why it is inconsistent." },
    { .name = "x-cohort-base",
      .type = &base_list_type,
      .doc = "Of a persistent bitmap: the backups that it is a difference to. "
             "None, one, or, when the outcome of a transaction is unknown, "
             "two: it serves either." },
    { .name = "x-cohort-recovered",
      .type = &recovered_type,
      .doc = "Of a persistent bitmap: present if the daemon had crashed, "
             "until a backup has taken what was marked." },
    { .name = NULL },
};
static const struct schema_type dirty_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockDirtyInfo",
    .doc = "A dirty bitmap.",
    .members = dirty_info_members,
};
static const struct schema_type dirty_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &dirty_info_type,
};

static const struct schema_member snapshot_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "name", .type = &schema_string, .required = true },
    { .name = "vm-state-size", .type = &schema_int, .required = true },
    { .name = "date-sec", .type = &schema_int, .required = true },
    { .name = "date-nsec", .type = &schema_int, .required = true },
    { .name = "vm-clock-sec", .type = &schema_int, .required = true },
    { .name = "vm-clock-nsec", .type = &schema_int, .required = true },
    { .name = "icount",
      .type = &schema_int,
      .doc = "Guest instructions until then, if they were counted." },
    { .name = NULL },
};
static const struct schema_type snapshot_type = {
    .kind = SCHEMA_STRUCT,
    .name = "SnapshotInfo",
    .doc = "An internal snapshot of an image.",
    .members = snapshot_members,
};
static const struct schema_type snapshot_list_type = {
    .kind = SCHEMA_LIST,
    .element = &snapshot_type,
};

static const char *const stored_bitmap_flags[] = { "in-use", "auto", NULL };
static const struct schema_type stored_bitmap_flag_type = {
    .kind = SCHEMA_ENUM,
    .name = "Qcow2BitmapInfoFlags",
    .values = stored_bitmap_flags,
};
static const struct schema_type stored_bitmap_flag_list_type = {
    .kind = SCHEMA_LIST,
    .element = &stored_bitmap_flag_type,
};
static const struct schema_member stored_bitmap_members[] = {
    { .name = "name", .type = &schema_string, .required = true },
    { .name = "granularity", .type = &schema_uint32, .required = true },
    { .name = "flags",
      .type = &stored_bitmap_flag_list_type,
      .doc = "in-use: was not stored when its image was last written to; auto: "
             "records when the image is opened.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type stored_bitmap_type = {
    .kind = SCHEMA_STRUCT,
    .name = "Qcow2BitmapInfo",
    .doc = "A bitmap as its image stores it.",
    .members = stored_bitmap_members,
};
static const struct schema_type stored_bitmap_list_type = {
    .kind = SCHEMA_LIST,
    .element = &stored_bitmap_type,
};

static const char *const compression_values[] = { "zlib", "zstd", NULL };
static const struct schema_type compression_type = {
    .kind = SCHEMA_ENUM,
    .name = "Qcow2CompressionType",
    .values = compression_values,
};
static const struct schema_member qcow2_members[] = {
    { .name = "compat",
      .type = &schema_string,
      .doc = "0.10: version 2; 1.1: version 3.",
      .required = true },
    { .name = "data-file", .type = &schema_string },
    { .name = "data-file-raw", .type = &schema_bool },
    { .name = "extended-l2", .type = &schema_bool },
    { .name = "lazy-refcounts", .type = &schema_bool },
    { .name = "corrupt", .type = &schema_bool },
    { .name = "refcount-bits", .type = &schema_int, .required = true },
    { .name = "compression-type", .type = &compression_type, .required = true },
    { .name = "bitmaps",
      .type = &stored_bitmap_list_type,
      .doc = "As the file has them; what is in memory shows in "
             "`dirty-bitmaps`." },
    { .name = NULL },
};
static const struct schema_type qcow2_type = {
    .kind = SCHEMA_STRUCT,
    .name = "ImageInfoSpecificQCow2",
    .members = qcow2_members,
};
static const struct schema_member qcow2_wrapper_members[] = {
    { .name = "data", .type = &qcow2_type, .required = true },
    { .name = NULL },
};
static const struct schema_type qcow2_wrapper_type = {
    .kind = SCHEMA_STRUCT,
    .name = "ImageInfoSpecificQCow2Wrapper",
    .members = qcow2_wrapper_members,
};
static const char *const specific_kinds[] = { "qcow2", NULL };
static const struct schema_type specific_kind_type = {
    .kind = SCHEMA_ENUM,
    .name = "ImageInfoSpecificKind",
    .values = specific_kinds,
};
static const struct schema_member specific_members[] = {
    { .name = "type", .type = &specific_kind_type, .required = true },
    { .name = NULL },
};
static const struct schema_branch specific_branches[] = {
    { "qcow2", &qcow2_wrapper_type },
    { NULL, NULL },
};
static const struct schema_type specific_type = {
    .kind = SCHEMA_UNION,
    .name = "ImageInfoSpecific",
    .doc = "What only one format has.",
    .members = specific_members,
    .tag = "type",
    .branches = specific_branches,
};

static const struct schema_type image_info_type;
static const struct schema_member image_info_members[] = {
    { .name = "filename", .type = &schema_string, .required = true },
    { .name = "format", .type = &schema_string, .required = true },
    { .name = "virtual-size",
      .type = &schema_int,
      .doc = "Bytes that a guest sees.",
      .required = true },
    { .name = "actual-size",
      .type = &schema_int,
      .doc = "Bytes that the image takes on its file system." },
    { .name = "cluster-size", .type = &schema_int },
    { .name = "dirty-flag", .type = &schema_bool },
    { .name = "encrypted", .type = &schema_bool },
    { .name = "compressed", .type = &schema_bool },
    { .name = "backing-filename", .type = &schema_string },
    { .name = "full-backing-filename", .type = &schema_string },
    { .name = "backing-filename-format", .type = &schema_string },
    { .name = "snapshots",
      .type = &snapshot_list_type,
      .doc = "Absent if there are none." },
    { .name = "format-specific", .type = &specific_type },
    { .name = "backing-image",
      .type = &image_info_type,
      .doc = "Absent with flat." },
    { .name = NULL },
};
static const struct schema_type image_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "ImageInfo",
    .doc = "An image.",
    .members = image_info_members,
};

static const struct schema_member cache_info_members[] = {
    { .name = "writeback", .type = &schema_bool, .required = true },
    { .name = "direct",
      .type = &schema_bool,
      .doc = "Around the page cache?",
      .required = true },
    { .name = "no-flush", .type = &schema_bool, .required = true },
    { .name = NULL },
};
static const struct schema_type cache_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevCacheInfo",
    .members = cache_info_members,
};

static const char *const detect_zeroes_values[] = { "off", "on", "unmap",
                                                    NULL };
static const struct schema_type detect_zeroes_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevDetectZeroesOptions",
    .values = detect_zeroes_values,
};

static const struct schema_member child_members[] = {
    { .name = "child",
      .type = &schema_string,
      .doc = "Its role: file, backing and the like.",
      .required = true },
    { .name = "node-name", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type child_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevChild",
    .doc = "A node that another lies on.",
    .members = child_members,
};
static const struct schema_type child_list_type = {
    .kind = SCHEMA_LIST,
    .element = &child_type,
};

static const struct schema_member device_info_members[] = {
    { .name = "file", .type = &schema_string, .required = true },
    { .name = "node-name", .type = &schema_string },
    { .name = "ro",
      .type = &schema_bool,
      .doc = "Read-only?",
      .required = true },
    { .name = "drv",
      .type = &schema_string,
      .doc = "The driver's name.",
      .required = true },
    { .name = "backing_file", .type = &schema_string },
    { .name = "backing_file_depth", .type = &schema_int, .required = true },
    { .name = "children", .type = &child_list_type, .required = true },
    { .name = "active",
      .type = &schema_bool,
      .doc = "Always true.",
      .required = true },
    { .name = "encrypted", .type = &schema_bool, .required = true },
    { .name = "detect_zeroes", .type = &detect_zeroes_type, .required = true },
    { .name = "bps",
      .type = &schema_int,
      .doc = "This and the five below: 0, nothing is throttled.",
      .required = true },
    { .name = "bps_rd", .type = &schema_int, .required = true },
    { .name = "bps_wr", .type = &schema_int, .required = true },
    { .name = "iops", .type = &schema_int, .required = true },
    { .name = "iops_rd", .type = &schema_int, .required = true },
    { .name = "iops_wr", .type = &schema_int, .required = true },
    { .name = "cache", .type = &cache_info_type, .required = true },
    { .name = "write_threshold", .type = &schema_int, .required = true },
    { .name = "dirty-bitmaps",
      .type = &dirty_info_list_type,
      .doc = "Absent if the node has none." },
    { .name = "image", .type = &image_info_type, .required = true },
    { .name = NULL },
};
static const struct schema_type device_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockDeviceInfo",
    .doc = "A block node.",
    .members = device_info_members,
};

static const struct schema_member block_info_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "Empty: a storage daemon has nodes, not devices.",
      .required = true },
    { .name = "type",
      .type = &schema_string,
      .doc = "Always \"unknown\".",
      .required = true },
    { .name = "removable", .type = &schema_bool, .required = true },
    { .name = "locked", .type = &schema_bool, .required = true },
    { .name = "inserted", .type = &device_info_type },
    { .name = NULL },
};
static const struct schema_type block_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockInfo",
    .doc = "A disk: a node that no other node uses.",
    .members = block_info_members,
};

const struct schema_type qmp_block_device_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &device_info_type,
};
const struct schema_type qmp_block_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &block_info_type,
};
