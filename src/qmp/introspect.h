/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * query-qmp-schema: the command table, told to machines (QEMU QMP Reference
 * Manual, "QMP introspection").
 *
 * Pure: any thread.
 */
#ifndef QMP_INTROSPECT_H
#define QMP_INTROSPECT_H

#include "qmp/command.h"

/* SchemaInfoList: a new list of every command, event and type reached from
 * them. Names are unique. `tables` as qmp_all_commands, `events` ends with name
 * NULL. */
struct json_value *qmp_introspect(const struct qmp_command *const *tables,
                                  const struct qmp_event *events);

extern const struct schema_type qmp_schema_info_list_type;

#endif
