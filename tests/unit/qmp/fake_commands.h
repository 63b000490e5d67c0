/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A command table for tests: `echo` returns its argument, `fail` fails with the
 * class it is told, `nothing` returns nothing, `old` is deprecated. Each counts
 * its runs in `fake_runs`.
 */
#ifndef TESTS_UNIT_QMP_FAKE_COMMANDS_H
#define TESTS_UNIT_QMP_FAKE_COMMANDS_H

#include "qmp/command.h"

extern unsigned int fake_runs;
extern const struct qmp_command *const fake_tables[];
extern const struct qmp_event fake_events[];

#endif
