/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs a user's shell command with a time limit. Blocking; one thread. */
#ifndef CLI_RUN_COMMAND_H
#define CLI_RUN_COMMAND_H

#include <glib.h>

#include "cli/interrupt.h"

/* `sh -c command`, in a process group of its own, its output on standard error,
 * its input empty. -EIO when it exits with another status than 0, -ETIMEDOUT
 * when it takes longer (the whole group is killed), -ECANCELED when a signal
 * came and `heed` (likewise). `what` names it in errors. */
int run_command(const char *what,
                const char *command,
                unsigned timeout_ms,
                struct interrupt *interrupt,
                bool heed,
                GError **err);

#endif
