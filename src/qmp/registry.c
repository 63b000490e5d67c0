/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of command tables. */
#include "qmp/command.h"

#include <string.h>

const struct qmp_command *const qmp_all_commands[] = {
    qmp_commands_session, qmp_commands_block,
    qmp_commands_bitmap,  qmp_commands_job,
    qmp_commands_backup,  qmp_commands_transaction,
    qmp_commands_export,  NULL,
};

const struct qmp_command *qmp_command_find(
    const struct qmp_command *const *tables,
    const char *name)
{
    for (; *tables != NULL; tables++) {
        for (const struct qmp_command *command = *tables; command->name != NULL;
             command++) {
            if (strcmp(command->name, name) == 0) {
                return command;
            }
        }
    }
    return NULL;
}
