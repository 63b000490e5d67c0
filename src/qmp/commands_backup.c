/* SPDX-License-Identifier: BSD-3-Clause */
/* Backup commands: each start is a transaction of one action. */
#include <errno.h>

#include "backup/backup_job.h"
#include "base/error.h"
#include "qmp/actions.h"
#include "qmp/backup_types.h"
#include "qmp/command.h"

#define EXTENTS_DEFAULT 4096
#define EXTENTS_MAX     65536

static int co_run_blockdev_backup(struct engine *engine,
                                  const struct json_value *arguments,
                                  struct json_value **ret,
                                  GError **err)
{
    (void)ret; /* {} */
    return co_action_run(engine, "blockdev-backup", arguments, err);
}

static int co_run_drive_backup(struct engine *engine,
                               const struct json_value *arguments,
                               struct json_value **ret,
                               GError **err)
{
    (void)ret; /* {} */
    return co_action_run(engine, "drive-backup", arguments, err);
}

static int co_run_extents(struct engine *engine,
                          const struct json_value *arguments,
                          struct json_value **ret,
                          GError **err)
{
    const char *id = json_dict_string(arguments, "id", "");
    int64_t limit = json_dict_int(arguments, "limit", EXTENTS_DEFAULT);
    struct job *job = job_find(engine->jobs, id);
    enum job_state state;
    struct json_value *extents;
    uint64_t next;
    int code;

    if (job == NULL || !job_is_backup(job)) {
        return error_set(err, -ENOENT, "There is no backup job '%s'", id);
    }
    if (limit < 1 || limit > EXTENTS_MAX) {
        return error_set(err, -EINVAL, "'limit' must be from 1 to %d",
                         EXTENTS_MAX);
    }
    /* Only here is the job's bitmap sure to stand still. */
    state = job_state_of(job);
    if (state != JOB_PENDING) {
        return error_set(err, -EPERM,
                         "Job '%s' is in state '%s': what it has copied can be "
                         "asked while it is 'pending'",
                         id, job_state_name(state));
    }
    code = co_backup_extents(job, json_dict_uint(arguments, "start", 0),
                             (uint64_t)limit, &extents, &next, err);
    if (code < 0) {
        return code;
    }
    *ret = json_dict_new();
    json_dict_set(*ret, "extents", extents);
    if (next != UINT64_MAX) {
        json_dict_set_uint(*ret, "next", next);
    }
    return 0;
}

static const struct schema_type extent_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortExtent",
    .members =
        (const struct schema_member[]){
            { .name = "offset",
              .type = &schema_size,
              .required = true,
              .doc = "Where it begins, in bytes." },
            { .name = "length",
              .type = &schema_size,
              .required = true,
              .doc = "Its length in bytes." },
            { .name = NULL },
        },
};

static const struct schema_type extent_list_type = {
    .kind = SCHEMA_LIST,
    .element = &extent_type,
};

static const struct schema_type extents_arguments_type = {
    .kind = SCHEMA_STRUCT,
    .members =
        (const struct schema_member[]){
            { .name = "id",
              .type = &schema_string,
              .required = true,
              .doc = "Name of a backup job in state `pending`." },
            { .name = "start",
              .type = &schema_size,
              .fallback = "0",
              .doc = "Where to begin." },
            { .name = "limit",
              .type = &schema_int,
              .fallback = "4096",
              .doc = "How many extents at most, up to 65536." },
            { .name = NULL },
        },
};

static const struct schema_type extents_result_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortBackupExtents",
    .members =
        (const struct schema_member[]){
            { .name = "extents",
              .type = &extent_list_type,
              .required = true,
              .doc = "Ascending, whole clusters of the job." },
            { .name = "next",
              .type = &schema_size,
              .doc = "The `start` to go on with; absent at the end." },
            { .name = NULL },
        },
};

static const char *const deprecated[] = { "deprecated", NULL };
static const char *const unstable[] = { "unstable", NULL };

const struct qmp_command qmp_commands_backup[] = {
    { .name = "blockdev-backup",
      .doc = "Starts a job that copies a node, as it is now, to another node. "
             "Guests go on writing.",
      .arguments = &blockdev_backup_type,
      .co_run = co_run_blockdev_backup },
    { .name = "drive-backup",
      .doc = "Starts a job that copies a node, as it is now, to a file.",
      .arguments = &drive_backup_type,
      .features = deprecated,
      .co_run = co_run_drive_backup },
    { .name = "x-cohort-query-backup-extents",
      .doc = "Which parts of the disk a finished backup job, not finalized "
             "yet, has copied.",
      .arguments = &extents_arguments_type,
      .returns = &extents_result_type,
      .features = unstable,
      .co_run = co_run_extents },
    { .name = NULL },
};
