/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/job_types.h"

#include "job/job_state.h"

static const char *const job_type_values[] = { "backup", "create", NULL };
const struct schema_type qmp_job_type_type = {
    .kind = SCHEMA_ENUM,
    .name = "JobType",
    .values = job_type_values,
};

const struct schema_type qmp_job_status_type = {
    .kind = SCHEMA_ENUM,
    .name = "JobStatus",
    .doc = "Where a job stands.",
    .values = job_state_names,
};

static const struct schema_member job_info_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "type", .type = &qmp_job_type_type, .required = true },
    { .name = "status", .type = &qmp_job_status_type, .required = true },
    { .name = "current-progress",
      .type = &schema_int,
      .doc = "Done so far, in the unit of total-progress.",
      .required = true },
    { .name = "total-progress",
      .type = &schema_int,
      .doc = "May change while the job runs.",
      .required = true },
    { .name = "error",
      .type = &schema_string,
      .doc = "Why the job failed; absent in a concluded job: it succeeded." },
    { .name = NULL },
};
static const struct schema_type job_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "JobInfo",
    .doc = "A job.",
    .members = job_info_members,
};
const struct schema_type qmp_job_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &job_info_type,
};

static const char *const io_status_values[] = { "ok", "failed", "nospace",
                                                NULL };
static const struct schema_type io_status_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockDeviceIoStatus",
    .values = io_status_values,
};

static const struct schema_member block_job_info_members[] = {
    { .name = "type", .type = &qmp_job_type_type, .required = true },
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = "len", .type = &schema_int, .required = true },
    { .name = "offset",
      .type = &schema_int,
      .doc = "Done so far, of len.",
      .required = true },
    { .name = "busy",
      .type = &schema_bool,
      .doc = "False once a paused job is quiet.",
      .required = true },
    { .name = "paused",
      .type = &schema_bool,
      .doc = "True as soon as pausing has been asked for.",
      .required = true },
    { .name = "speed",
      .type = &schema_int,
      .doc = "Bytes per second; 0: no limit.",
      .required = true },
    { .name = "io-status", .type = &io_status_type, .required = true },
    { .name = "ready",
      .type = &schema_bool,
      .doc = "Always false for backups.",
      .required = true },
    { .name = "status", .type = &qmp_job_status_type, .required = true },
    { .name = "auto-finalize", .type = &schema_bool, .required = true },
    { .name = "auto-dismiss", .type = &schema_bool, .required = true },
    { .name = "error", .type = &schema_string },
    { .name = NULL },
};
static const struct schema_type block_job_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockJobInfo",
    .doc = "A block job, in the older form.",
    .members = block_job_info_members,
};
const struct schema_type qmp_block_job_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &block_job_info_type,
};
