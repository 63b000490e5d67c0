/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/command.h"

#include <string.h>

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
