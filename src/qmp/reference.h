/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * docs/reference/qmp.md, written from the command table.
 *
 * Pure: any thread.
 */
#ifndef QMP_REFERENCE_H
#define QMP_REFERENCE_H

#include "qmp/command.h"

/* The page as Markdown; owned by the caller. */
char *qmp_reference_page(const struct qmp_command *const *tables,
                         const struct qmp_event *events);

#endif
