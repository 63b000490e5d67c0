/* SPDX-License-Identifier: BSD-3-Clause */
/* `transaction`, and its argument's type composed of the actions' types. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "qmp/actions.h"
#include "qmp/backup_types.h"
#include "qmp/command.h"

static const struct schema_type abort_data_type = {
    .kind = SCHEMA_STRUCT,
    .name = "Abort",
    .members = (const struct schema_member[]){ { .name = NULL } },
};

/* One arm of the union: {"type": NAME, "data": DATA}. */
#define ACTION(action_name, data_type)                              \
 {                                                                  \
  .value = (action_name), .type = &(const struct schema_type)       \
  {                                                                 \
   .kind = SCHEMA_STRUCT, .members = (const struct schema_member[]) \
   {                                                                \
    { .name = "data",                                               \
      .type = &(data_type),                                         \
      .required = true,                                             \
      .doc = "What the command of that name takes." },              \
        { .name = NULL },                                           \
   }                                                                \
  }                                                                 \
 }

static const struct schema_branch action_branches[] = {
    ACTION("abort", abort_data_type),
    ACTION("block-dirty-bitmap-add", bitmap_add_type),
    ACTION("block-dirty-bitmap-clear", bitmap_name_type),
    ACTION("block-dirty-bitmap-disable", bitmap_name_type),
    ACTION("block-dirty-bitmap-enable", bitmap_name_type),
    ACTION("block-dirty-bitmap-merge", bitmap_merge_type),
    ACTION("block-dirty-bitmap-remove", bitmap_name_type),
    ACTION("blockdev-backup", blockdev_backup_type),
    ACTION("blockdev-snapshot", snapshot_type),
    ACTION("blockdev-snapshot-sync", snapshot_sync_type),
    ACTION("drive-backup", drive_backup_type),
    { .value = NULL },
};

static const struct schema_type action_kind_type = {
    .kind = SCHEMA_ENUM,
    .name = "TransactionActionKind",
    .values =
        (const char *const[]){
            "abort",
            "block-dirty-bitmap-add",
            "block-dirty-bitmap-clear",
            "block-dirty-bitmap-disable",
            "block-dirty-bitmap-enable",
            "block-dirty-bitmap-merge",
            "block-dirty-bitmap-remove",
            "blockdev-backup",
            "blockdev-snapshot",
            "blockdev-snapshot-sync",
            "drive-backup",
            NULL,
        },
};

static const struct schema_type action_type = {
    .kind = SCHEMA_UNION,
    .name = "TransactionAction",
    .tag = "type",
    .members =
        (const struct schema_member[]){
            { .name = "type",
              .type = &action_kind_type,
              .required = true,
              .doc = "Which action." },
            { .name = NULL },
        },
    .branches = action_branches,
};

static const struct schema_type action_list_type = {
    .kind = SCHEMA_LIST,
    .element = &action_type,
};

static const struct schema_type completion_mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "ActionCompletionMode",
    .doc = "Whether the jobs of a transaction end each by itself, or together.",
    .values = (const char *const[]){ "individual", "grouped", NULL },
};

static const struct schema_type properties_type = {
    .kind = SCHEMA_STRUCT,
    .name = "TransactionProperties",
    .members =
        (const struct schema_member[]){
            { .name = "completion-mode",
              .type = &completion_mode_type,
              .fallback = "individual",
              .doc = "grouped: all jobs succeed, or none does." },
            { .name = "x-cohort-transaction-id",
              .type = &schema_string,
              .doc = "A name to ask for its outcome by, also after a restart, "
                     "if a persistent bitmap takes part "
                     "(x-cohort-query-transactions). It is kept until it is "
                     "acknowledged (x-cohort-acknowledge)." },
            { .name = NULL },
        },
};

const struct schema_type transaction_arguments_type = {
    .kind = SCHEMA_STRUCT,
    .members =
        (const struct schema_member[]){
            { .name = "actions",
              .type = &action_list_type,
              .required = true,
              .doc = "What to do, all at one instant, or nothing of it." },
            { .name = "properties",
              .type = &properties_type,
              .doc = "How its jobs belong together." },
            { .name = NULL },
        },
};

static int co_run_transaction(struct engine *engine,
                              const struct json_value *arguments,
                              struct json_value **ret,
                              GError **err)
{
    const struct json_value *properties =
        json_dict_get(arguments, "properties");
    const char *mode =
        properties == NULL
            ? "individual"
            : json_dict_string(properties, "completion-mode", "individual");
    const char *client_id =
        properties == NULL
            ? NULL
            : json_dict_string(properties, "x-cohort-transaction-id", NULL);

    if (client_id != NULL &&
        (client_id[0] == '\0' || strlen(client_id) > LIMIT_ID_BYTES)) {
        return error_set(err, -EINVAL,
                         "'x-cohort-transaction-id' has 1 to %d bytes",
                         LIMIT_ID_BYTES);
    }

    (void)ret; /* {} */
    return co_actions_run(engine, json_dict_get(arguments, "actions"),
                          strcmp(mode, "grouped") == 0, client_id, err);
}

const struct qmp_command qmp_commands_transaction[] = {
    { .name = "transaction",
      .doc = "Carries out all actions at one instant, the same for all nodes "
             "they name, or none of them. Success means that the jobs among "
             "them have started.",
      .arguments = &transaction_arguments_type,
      .co_run = co_run_transaction },
    { .name = NULL },
};
