/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command table: one declarative entry per QMP command and event.
 *
 * The table drives dispatch, checking, query-commands, query-qmp-schema and the
 * reference page (docs/reference/qmp.md is generated from it).
 */
#ifndef QMP_COMMAND_H
#define QMP_COMMAND_H

#include "base/schema.h"
#include "qmp/engine.h"

struct qmp_command {
    const char *name;
    const char *doc;
    const struct schema_type *arguments; /* STRUCT or UNION; NULL: none */
    const struct schema_type *returns;   /* NULL: nothing, {} */
    const char *const *features;         /* NULL-terminated; NULL: none */
    /* Runs in a coroutine on the main thread, one command at a time in the
     * whole process. `arguments` are checked, an empty dict if none. Sets
     * `*ret` (initially NULL: {}) to a new value. */
    int (*co_run)(struct engine *engine,
                  const struct json_value *arguments,
                  struct json_value **ret,
                  GError **err);
};

struct qmp_event {
    const char *name;
    const char *doc;
    const struct schema_type *data; /* NULL: none */
};

/* Each file of handlers exports a table that ends with name NULL;
 * qmp_all_commands lists the tables, NULL-terminated. */
extern const struct qmp_command qmp_commands_session[];
extern const struct qmp_command qmp_commands_block[];
extern const struct qmp_command qmp_commands_create[];
extern const struct qmp_command qmp_commands_bitmap[];
extern const struct qmp_command qmp_commands_job[];
extern const struct qmp_command qmp_commands_backup[];
extern const struct qmp_command qmp_commands_outcome[];
extern const struct qmp_command qmp_commands_transaction[];
extern const struct qmp_command qmp_commands_export[];

extern const struct qmp_command *const qmp_all_commands[];
extern const struct qmp_event qmp_all_events[];

/* The command of that name in a list of tables (qmp_all_commands; tests bring
 * their own). NULL: no such command. */
const struct qmp_command *qmp_command_find(
    const struct qmp_command *const *tables,
    const char *name);

#endif
