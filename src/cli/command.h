/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The commands of `cohort`, one table (main.c). Each parses its own options and
 * returns an exit code; results go to standard output, all else to standard
 * error. Main thread.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <glib.h>
#include <jansson.h>

#include "cli/exit_code.h"

typedef int (*command_fn)(int argc, char **argv);

int command_backup(int argc, char **argv);
int command_check(int argc, char **argv);
int command_list(int argc, char **argv);
int command_restore(int argc, char **argv);
int command_status(int argc, char **argv);
int command_verify(int argc, char **argv);

/* Parses options; what is left, `minimum` to `maximum` words, is in `*ret_words`
 * (owned by the caller; NULL-terminated). `usage` is what follows the command's
 * name, `description` the rest of its help, with an example. Returns EXIT_OK or
 * EXIT_USAGE, having said why. */
int command_parse(int argc,
                  char **argv,
                  const GOptionEntry *entries,
                  const char *usage,
                  const char *description,
                  guint minimum,
                  guint maximum,
                  char ***ret_words);

/* Says the error once and gives its exit code. Frees it. */
int command_fail(int error, GError **err);

/* Prints the value to standard output and drops it. */
void command_print_json(json_t *value);

#endif
