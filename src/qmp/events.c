/* SPDX-License-Identifier: BSD-3-Clause */
/* Every event that the daemon may send. */
#include "qmp/command.h"

#include "qmp/job_types.h"

static const struct schema_member status_change_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "status", .type = &qmp_job_status_type, .required = true },
    { .name = NULL },
};
static const struct schema_type status_change_type = {
    .kind = SCHEMA_STRUCT,
    .members = status_change_members,
};

static const struct schema_member ended_members[] = {
    { .name = "type", .type = &qmp_job_type_type, .required = true },
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = "len", .type = &schema_int, .required = true },
    { .name = "offset", .type = &schema_int, .required = true },
    { .name = "speed", .type = &schema_int, .required = true },
    { .name = "error",
      .type = &schema_string,
      .doc = "Why the job failed; absent: it succeeded." },
    { .name = NULL },
};
static const struct schema_type completed_type = {
    .kind = SCHEMA_STRUCT,
    .members = ended_members,
};

static const struct schema_member cancelled_members[] = {
    { .name = "type", .type = &qmp_job_type_type, .required = true },
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = "len", .type = &schema_int, .required = true },
    { .name = "offset", .type = &schema_int, .required = true },
    { .name = "speed", .type = &schema_int, .required = true },
    { .name = NULL },
};
static const struct schema_type cancelled_type = {
    .kind = SCHEMA_STRUCT,
    .members = cancelled_members,
};

static const char *const operation_values[] = { "read", "write", NULL };
static const struct schema_type operation_type = {
    .kind = SCHEMA_ENUM,
    .name = "IoOperationType",
    .doc = "read: of the source; write: to the target.",
    .values = operation_values,
};
static const char *const action_values[] = { "ignore", "report", "stop", NULL };
static const struct schema_type action_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockErrorAction",
    .values = action_values,
};
static const struct schema_member error_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = "operation", .type = &operation_type, .required = true },
    { .name = "action", .type = &action_type, .required = true },
    { .name = NULL },
};
static const struct schema_type error_type = {
    .kind = SCHEMA_STRUCT,
    .members = error_members,
};

static const struct schema_member pending_members[] = {
    { .name = "type", .type = &qmp_job_type_type, .required = true },
    { .name = "id", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type pending_type = {
    .kind = SCHEMA_STRUCT,
    .members = pending_members,
};

static const struct schema_member export_deleted_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type export_deleted_type = {
    .kind = SCHEMA_STRUCT,
    .members = export_deleted_members,
};

static const struct schema_member in_doubt_members[] = {
    { .name = "txid", .type = &schema_string, .required = true },
    { .name = "id",
      .type = &schema_string,
      .doc = "x-cohort-transaction-id, if it had one." },
    { .name = "reason", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type in_doubt_type = {
    .kind = SCHEMA_STRUCT,
    .members = in_doubt_members,
};

static const struct schema_member tracking_failed_members[] = {
    { .name = "node-name", .type = &schema_string, .required = true },
    { .name = "reason", .type = &schema_string, .required = true },
    { .name = "durable",
      .type = &schema_bool,
      .doc = "false: that could not be stored; after a crash of the daemon the "
             "bitmaps may look consistent, and must not be believed.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type tracking_failed_type = {
    .kind = SCHEMA_STRUCT,
    .members = tracking_failed_members,
};

const struct qmp_event qmp_all_events[] = {
    { .name = "JOB_STATUS_CHANGE",
      .doc = "A job has reached another status.",
      .data = &status_change_type },
    { .name = "BLOCK_JOB_COMPLETED",
      .doc = "A block job has ended and was not cancelled: it succeeded, or "
             "it failed and `error` says why.",
      .data = &completed_type },
    { .name = "BLOCK_JOB_CANCELLED",
      .doc = "A block job has ended because it, or a job of its group, was "
             "cancelled or failed.",
      .data = &cancelled_type },
    { .name = "BLOCK_JOB_ERROR",
      .doc = "A block job has met an I/O error.",
      .data = &error_type },
    { .name = "BLOCK_JOB_PENDING",
      .doc = "A block job waits for job-finalize.",
      .data = &pending_type },
    { .name = "BLOCK_EXPORT_DELETED",
      .doc = "An export is gone; its id is free again.",
      .data = &export_deleted_type },
    { .name = "X_COHORT_TRANSACTION_IN_DOUBT",
      .doc = "The record of a transaction could not be written, and neither "
             "that it is aborted: its jobs stay pending until the state "
             "directory can be written again.",
      .data = &in_doubt_type },
    { .name = "X_COHORT_TRACKING_FAILED",
      .doc = "The persistent bitmaps of a node, or some of them, are "
             "inconsistent from now on, or were when it was opened. Guests are "
             "not affected.",
      .data = &tracking_failed_type },
    { .name = NULL },
};
