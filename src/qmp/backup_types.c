/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/backup_types.h"

const char *const backup_bitmap_mode_names[] = { "on-success", "never",
                                                 "always", NULL };
const char *const backup_error_policy_names[] = { "report", "ignore", "enospc",
                                                  "stop",   "auto",   NULL };

static const struct schema_type sync_type = {
    .kind = SCHEMA_ENUM,
    .name = "MirrorSyncMode",
    .doc = "What a backup copies: everything (full), what the node's own layer "
           "holds (top), only what guests overwrite (none), what a bitmap says "
           "(bitmap). incremental is bitmap with bitmap-mode on-success.",
    .values = (const char *const[]){ "full", "top", "none", "incremental",
                                     "bitmap", NULL },
};

static const struct schema_type bitmap_mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "BitmapSyncMode",
    .doc = "When the bitmap gives up what has been copied.",
    .values = backup_bitmap_mode_names,
};

static const struct schema_type error_policy_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevOnError",
    .doc = "report: the job fails. ignore: it tries again. stop: it pauses, "
           "and tries again when resumed. enospc, auto: stop when space is "
           "short, else report.",
    .values = backup_error_policy_names,
};

static const struct schema_type cbw_error_type = {
    .kind = SCHEMA_ENUM,
    .name = "OnCbwError",
    .doc = "Who pays when old content cannot be saved before a guest "
           "overwrites it: its write, or the backup.",
    .values =
        (const char *const[]){ "break-guest-write", "break-snapshot", NULL },
};

#define OPTIONAL(key, kind, otherwise, text)                              \
 {                                                                        \
  .name = (key), .type = &(kind), .fallback = (otherwise), .doc = (text), \
 }
#define REQUIRED(key, kind, text)                                  \
 {                                                                 \
  .name = (key), .type = &(kind), .doc = (text), .required = true, \
 }

static const struct schema_type performance_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BackupPerf",
    .members =
        (const struct schema_member[]){
            OPTIONAL("use-copy-range",
                     schema_bool,
                     "false",
                     "Let the kernel copy, as long as that works: where both "
                     "nodes are plain files on its page cache."),
            OPTIONAL("max-workers",
                     schema_int,
                     "64",
                     "Transfers under way at once."),
            OPTIONAL("max-chunk",
                     schema_int,
                     "0: 1 MiB",
                     "Bytes of the largest transfer of data."),
            OPTIONAL("min-cluster-size",
                     schema_size,
                     "0: 64 KiB, or the target's cluster",
                     "Bytes of the smallest transfer, a power of two."),
            { .name = NULL },
        },
};

const struct schema_type new_image_mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "NewImageMode",
    .values = (const char *const[]){ "existing", "absolute-paths", NULL },
};

const struct schema_type qmp_bitmap_base_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortBase",
    .doc = "The backup that a bitmap is a difference to.",
    .members =
        (const struct schema_member[]){
            REQUIRED("txid", schema_string, "Of the transaction that made it."),
            REQUIRED("disk", schema_string, "The disk's id."),
            { .name = NULL },
        },
};

#define BACKUP_COMMON                                                        \
 OPTIONAL("job-id", schema_string, NULL,                                     \
          "Name of the job; needed, since nodes have no device name."),      \
     REQUIRED("device", schema_string, "Name of the node to back up."),      \
     REQUIRED("sync", sync_type, "What to copy."),                           \
     OPTIONAL("speed", schema_int, "0: no limit",                            \
              "Bytes per second of the background copy."),                   \
     OPTIONAL("bitmap", schema_string, NULL,                                 \
              "Name of a dirty bitmap on `device`."),                        \
     OPTIONAL("bitmap-mode", bitmap_mode_type, NULL,                         \
              "Needed with a bitmap, unless sync is `incremental`."),        \
     OPTIONAL("x-cohort-base", qmp_bitmap_base_type, NULL,                   \
              "Refuse unless the bitmap is a difference to this, and "       \
              "records. As query-block shows it."),                          \
     OPTIONAL("auto-finalize", schema_bool, "true",                          \
              "false: wait in `pending` for job-finalize."),                 \
     OPTIONAL("auto-dismiss", schema_bool, "true",                           \
              "false: stay in `concluded` until job-dismiss."),              \
     OPTIONAL("compress", schema_bool, "false",                              \
              "Write compressed. Refused where the target cannot."),         \
     OPTIONAL("on-source-error", error_policy_type, "report",                \
              "What the background copy does when reading fails."),          \
     OPTIONAL("on-target-error", error_policy_type, "report",                \
              "What the background copy does when writing fails."),          \
     OPTIONAL("on-cbw-error", cbw_error_type, "break-snapshot",              \
              "Who pays when copy-before-write fails."),                     \
     OPTIONAL("x-cohort-cbw-timeout", schema_uint32, "5",                    \
              "Seconds after which copy-before-write has failed; 0: "        \
              "never."),                                                     \
     OPTIONAL("filter-node-name", schema_string, NULL,                       \
              "Name of a node that is put above `device`, in its place for " \
              "all who use it, as long as the job lives."),                  \
     OPTIONAL("discard-source", schema_bool, "false",                        \
              "Discard from `device` what has been copied in the "           \
              "background."),                                                \
     OPTIONAL("x-perf", performance_type, NULL, "How copying is done.")

const struct schema_type blockdev_backup_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevBackup",
    .members =
        (const struct schema_member[]){
            BACKUP_COMMON,
            REQUIRED("target",
                     schema_string,
                     "Name of the node to write to, as large as `device`."),
            { .name = NULL },
        },
};

const struct schema_type drive_backup_type = {
    .kind = SCHEMA_STRUCT,
    .name = "DriveBackup",
    .members =
        (const struct schema_member[]){
            BACKUP_COMMON,
            REQUIRED("target", schema_string, "Name of the file to write to."),
            OPTIONAL("format",
                     schema_string,
                     "that of `device`",
                     "Format of the file; raw or qcow2."),
            OPTIONAL("mode",
                     new_image_mode_type,
                     "absolute-paths",
                     "Whether to make the file or to use it as it is."),
            { .name = NULL },
        },
};
