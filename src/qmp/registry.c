/* SPDX-License-Identifier: BSD-3-Clause */
/* The list of command tables: what the daemon serves. */
#include "qmp/command.h"

const struct qmp_command *const qmp_all_commands[] = {
    qmp_commands_session, qmp_commands_block,
    qmp_commands_create,  qmp_commands_bitmap,
    qmp_commands_job,     qmp_commands_backup,
    qmp_commands_outcome, qmp_commands_transaction,
    qmp_commands_export,  NULL,
};
