/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/create_types.h"

#include "block/driver.h"
#include "drivers/preallocate.h"

const char *const create_compression_names[] = { "zlib", "zstd", NULL };

static const struct schema_type preallocation_type = {
    .kind = SCHEMA_ENUM,
    .name = "PreallocMode",
    .doc = "off: nothing. metadata: the image's tables. falloc: the space "
           "is reserved, too. full: zeroes are written to all of it.",
    .values = preallocation_names,
};

static const struct schema_type version_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevQcow2Version",
    .values = (const char *const[]){ "v2", "v3", NULL },
};

static const struct schema_type compression_type = {
    .kind = SCHEMA_ENUM,
    .name = "Qcow2CompressionType",
    .values = create_compression_names,
};

static const struct schema_type driver_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevCreateDriver",
    .doc = "What can be created.",
    .values = (const char *const[]){ "file", "qcow2", NULL },
};

#define OPTIONAL(key, kind, otherwise, text)                              \
 {                                                                        \
  .name = (key), .type = &(kind), .fallback = (otherwise), .doc = (text), \
 }
#define REQUIRED(key, kind, text)                                  \
 {                                                                 \
  .name = (key), .type = &(kind), .doc = (text), .required = true, \
 }

static const struct schema_type create_file_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevCreateOptionsFile",
    .members =
        (const struct schema_member[]){
            REQUIRED("filename",
                     schema_string,
                     "The file to make, or to empty."),
            REQUIRED("size", schema_size, "Its size in bytes."),
            OPTIONAL("preallocation",
                     preallocation_type,
                     "off",
                     "What space it gets at once; not `metadata`."),
            { .name = NULL },
        },
};

static const struct schema_type create_qcow2_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevCreateOptionsQcow2",
    .members =
        (const struct schema_member[]){
            REQUIRED("file",
                     blockdev_ref_type,
                     "Where the image goes; what is there is lost."),
            REQUIRED("size",
                     schema_size,
                     "The disk's size in bytes, a multiple of 512."),
            OPTIONAL("data-file",
                     blockdev_ref_type,
                     NULL,
                     "Where the guest's data goes; it grows as needed."),
            OPTIONAL("data-file-raw",
                     schema_bool,
                     "false",
                     "Keep the data file readable as a raw image; what it "
                     "holds stays."),
            OPTIONAL("extended-l2",
                     schema_bool,
                     "false",
                     "Allocate in 32nds of a cluster."),
            OPTIONAL("version", version_type, "v3", "Of the format."),
            OPTIONAL("backing-file",
                     schema_string,
                     NULL,
                     "Name of the image below, as it is written into this "
                     "one; it is not opened."),
            OPTIONAL("backing-fmt", blockdev_driver_type, NULL, "Its format."),
            OPTIONAL("cluster-size",
                     schema_size,
                     "65536",
                     "Bytes, a power of two from 512 to 2 MiB."),
            OPTIONAL("preallocation",
                     preallocation_type,
                     "off",
                     "What is allocated at once."),
            OPTIONAL("lazy-refcounts",
                     schema_bool,
                     "false",
                     "Allow refcounts to be behind after a crash."),
            OPTIONAL("refcount-bits",
                     schema_int,
                     "16",
                     "Width of a refcount, a power of two up to 64."),
            OPTIONAL("compression-type",
                     compression_type,
                     "zlib",
                     "How compressed clusters are."),
            { .name = NULL },
        },
};

static const struct schema_type create_options_type = {
    .kind = SCHEMA_UNION,
    .name = "BlockdevCreateOptions",
    .doc = "An image to create.",
    .members =
        (const struct schema_member[]){
            REQUIRED("driver", driver_type, "What to create."),
            { .name = NULL },
        },
    .tag = "driver",
    .branches =
        (const struct schema_branch[]){
            { "file", &create_file_type },
            { "qcow2", &create_qcow2_type },
            { NULL, NULL },
        },
};

const struct schema_type blockdev_create_type = {
    .kind = SCHEMA_STRUCT,
    .members =
        (const struct schema_member[]){
            REQUIRED("job-id", schema_string, "Name of the job."),
            REQUIRED("options", create_options_type, "What to create."),
            { .name = NULL },
        },
};
