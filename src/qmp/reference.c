/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * First the protocol in prose, then a section for each command and event with a
 * table of its members, then one for each type that has a name, in the order of
 * the alphabet. Types without a name are written out where they are used.
 */
#include "qmp/reference.h"

#include <string.h>

#include "base/limits.h"
#include "qmp/version.h"

struct reference {
    GString *page;
    GHashTable *seen; /* named types, by address */
    GQueue named;     /* the same, to be sorted */
};

static void note_type(struct reference *reference,
                      const struct schema_type *type);

static void note_members(struct reference *reference,
                         const struct schema_member *member)
{
    for (; member != NULL && member->name != NULL; member++) {
        note_type(reference, member->type);
    }
}

/* Remembers every named type that is reached from `type`. */
static void note_type(struct reference *reference,
                      const struct schema_type *type)
{
    if (type == NULL || type->kind < SCHEMA_ENUM ||
        !g_hash_table_add(reference->seen, (gpointer)(uintptr_t)type)) {
        return;
    }
    if (type->name != NULL && type->kind != SCHEMA_LIST) {
        g_queue_push_tail(&reference->named, (gpointer)(uintptr_t)type);
    }
    note_type(reference, type->element);
    note_members(reference, type->members);
    for (const struct schema_branch *branch = type->branches;
         branch != NULL && (branch->value != NULL || branch->type != NULL);
         branch++) {
        note_type(reference, branch->type);
    }
}

static void write_type(GString *page, const struct schema_type *type);

static void write_values(GString *page, const char *const *values)
{
    for (const char *const *value = values; *value != NULL; value++) {
        g_string_append_printf(page, "%s`%s`", value == values ? "" : ", ",
                               *value);
    }
}

static void write_alternate(GString *page, const struct schema_type *type)
{
    for (const struct schema_branch *branch = type->branches;
         branch->type != NULL; branch++) {
        if (branch != type->branches) {
            g_string_append(page, " or ");
        }
        write_type(page, branch->type);
    }
}

/* A type as it stands in a table: a word, or a link to its section. */
static void write_type(GString *page, const struct schema_type *type)
{
    switch (type->kind) {
    case SCHEMA_ANY: g_string_append(page, "any value"); return;
    case SCHEMA_NULL: g_string_append(page, "null"); return;
    case SCHEMA_STRING: g_string_append(page, "string"); return;
    case SCHEMA_BOOL: g_string_append(page, "boolean"); return;
    case SCHEMA_INT: g_string_append(page, "int"); return;
    case SCHEMA_UINT32: g_string_append(page, "uint32"); return;
    case SCHEMA_SIZE: g_string_append(page, "size"); return;
    case SCHEMA_LIST:
        g_string_append(page, "list of ");
        write_type(page, type->element);
        return;
    case SCHEMA_ENUM:
    case SCHEMA_STRUCT:
    case SCHEMA_UNION:
    case SCHEMA_ALTERNATE: break;
    }
    if (type->name != NULL) {
        g_autofree char *anchor = g_ascii_strdown(type->name, -1);

        g_string_append_printf(page, "[%s](#%s)", type->name, anchor);
    } else if (type->kind == SCHEMA_ENUM) {
        write_values(page, type->values);
    } else if (type->kind == SCHEMA_ALTERNATE) {
        write_alternate(page, type);
    } else {
        g_string_append(page, "object");
    }
}

/* A table cell must not hold what separates cells. */
static void write_cell(GString *page, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            g_string_append_c(page, '\\');
        }
        g_string_append_c(page, *text == '\n' ? ' ' : *text);
    }
}

static bool has_feature(const char *const *features, const char *name)
{
    return features != NULL && g_strv_contains(features, name);
}

static void write_rows(GString *page, const struct schema_member *member)
{
    for (; member != NULL && member->name != NULL; member++) {
        g_string_append_printf(page, "| `%s`%s | ", member->name,
                               member->required ? "" : " (optional)");
        write_type(page, member->type);
        g_string_append(page, " | ");
        if (has_feature(member->features, "deprecated")) {
            g_string_append(page, "**Deprecated.** ");
        }
        if (has_feature(member->features, "unstable")) {
            g_string_append(page, "**Unstable.** ");
        }
        if (member->doc != NULL) {
            write_cell(page, member->doc);
        }
        if (member->fallback != NULL) {
            g_string_append(page,
                            member->doc != NULL ? " Default: " : "Default: ");
            write_cell(page, member->fallback);
            g_string_append_c(page, '.');
        }
        g_string_append(page, " |\n");
    }
}

static void write_table_head(GString *page)
{
    g_string_append(page, "\n| member | type | |\n| --- | --- | --- |\n");
}

static bool has_members(const struct schema_type *type)
{
    return type != NULL && type->members != NULL &&
           type->members[0].name != NULL;
}

static void write_branches(GString *page, const struct schema_type *type)
{
    for (const struct schema_branch *branch = type->branches;
         branch->value != NULL; branch++) {
        if (!has_members(branch->type)) {
            continue;
        }
        if (branch->type->name != NULL) {
            g_string_append_printf(page, "\nWith `%s` `%s`, also ", type->tag,
                                   branch->value);
            write_type(page, branch->type);
            g_string_append(page, ".\n");
            continue;
        }
        g_string_append_printf(page, "\nWith `%s` `%s`, also:\n", type->tag,
                               branch->value);
        write_table_head(page);
        write_rows(page, branch->type->members);
    }
}

/* The members of a struct or union, as one or more tables. */
static void write_members(GString *page, const struct schema_type *type)
{
    if (has_members(type)) {
        write_table_head(page);
        write_rows(page, type->members);
    }
    if (type->kind == SCHEMA_UNION) {
        write_branches(page, type);
    }
}

static void write_arguments(GString *page,
                            const char *title,
                            const struct schema_type *type)
{
    bool is_inline =
        type != NULL && type->name == NULL &&
        (type->kind == SCHEMA_STRUCT || type->kind == SCHEMA_UNION);

    if (type == NULL) {
        return;
    }
    if (is_inline) {
        g_string_append_printf(page, "\n%s:\n", title);
        write_members(page, type);
        return;
    }
    g_string_append_printf(page, "\n%s: ", title);
    write_type(page, type);
    g_string_append(page, ".\n");
}

static void write_doc(GString *page, const char *doc)
{
    if (doc != NULL) {
        g_string_append_printf(page, "\n%s\n", doc);
    }
}

static void write_command(GString *page, const struct qmp_command *command)
{
    g_string_append_printf(page, "\n### %s\n", command->name);
    if (has_feature(command->features, "deprecated")) {
        g_string_append(page, "\n**Deprecated.**\n");
    }
    if (has_feature(command->features, "unstable")) {
        g_string_append(page, "\n**Unstable:** may change or go.\n");
    }
    write_doc(page, command->doc);
    write_arguments(page, "Arguments", command->arguments);
    write_arguments(page, "Returns", command->returns);
}

static void write_named_type(GString *page, const struct schema_type *type)
{
    g_string_append_printf(page, "\n### %s\n", type->name);
    write_doc(page, type->doc);
    switch (type->kind) {
    case SCHEMA_ENUM:
        g_string_append(page, "\nOne of ");
        write_values(page, type->values);
        g_string_append(page, ".\n");
        return;
    case SCHEMA_ALTERNATE:
        g_string_append(page, "\nOne of: ");
        write_alternate(page, type);
        g_string_append(page, ".\n");
        return;
    case SCHEMA_STRUCT:
    case SCHEMA_UNION: write_members(page, type); return;
    case SCHEMA_ANY:
    case SCHEMA_NULL:
    case SCHEMA_STRING:
    case SCHEMA_BOOL:
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE:
    case SCHEMA_LIST: return;
    }
}

static int compare_names(gconstpointer a, gconstpointer b, gpointer unused)
{
    const struct schema_type *first = a;
    const struct schema_type *second = b;

    (void)unused;
    return g_ascii_strcasecmp(first->name, second->name);
}

static void write_types(struct reference *reference)
{
    const char *last = NULL;
    const struct schema_type *type;

    g_queue_sort(&reference->named, compare_names, NULL);
    while ((type = g_queue_pop_head(&reference->named)) != NULL) {
        /* Rooms may declare one QAPI type each for themselves. */
        if (last == NULL || strcmp(last, type->name) != 0) {
            write_named_type(reference->page, type);
        }
        last = type->name;
    }
}

static void write_protocol(GString *page)
{
    g_string_append_printf(
        page,
        "# QMP reference\n\n"
        "What `cohortd` understands on its monitors. This page is made from "
        "the table\nthat the daemon itself checks requests against "
        "(`build/src/qmp/qmp-reference`);\ndo not edit it.\n\n"
        "The interface is that of QEMU's storage daemon, release %d.%d, as far "
        "as it is\nlisted here; `query-version` says so. `query-qmp-schema` "
        "tells the same to\nprograms.\n\n"
        "## Framing\n\n"
        "- A client sends JSON objects, in UTF-8, with or without anything "
        "between them;\n  strings may stand in single quotes, too. The daemon "
        "sends one object per line,\n  ended by CR LF, in ASCII (with "
        "`pretty=on` an object spreads over lines).\n"
        "- Of one value at most %d MiB of text, %d tokens and %d levels of "
        "nesting are\n  taken; beyond, or where it is no JSON, comes an error "
        "without `id`, and reading\n  goes on.\n"
        "- A control character (or byte FF) drops what was half sent: a way to "
        "begin\n  anew.\n"
        "- A client that does not read is dropped when %d MiB wait for it. "
        "%d clients may\n  be connected at a time.\n\n"
        "## A session\n\n"
        "```\n"
        "S: {\"QMP\": {\"version\": ..., \"capabilities\": []}}\n"
        "C: {\"execute\": \"qmp_capabilities\"}\n"
        "S: {\"return\": {}}\n"
        "C: {\"execute\": \"query-jobs\", \"id\": 1}\n"
        "S: {\"return\": [], \"id\": 1}\n"
        "```\n\n"
        "Until `qmp_capabilities` no other command runs and no event comes. "
        "Commands of a\nsession are answered in the order sent; one command "
        "runs at a time in the whole\ndaemon. A client that closes its side "
        "still gets its answers; of one that is gone,\nwhat has not been "
        "started is forgotten, and what has been runs to its end.\n\n"
        "An error is `{\"error\": {\"class\": ..., \"desc\": ...}}`. `desc` is "
        "for people; `class` is\n`CommandNotFound` (also: not now), "
        "`DeviceNotActive` (`block-job-*` without such a\njob), "
        "`DeviceNotFound` or `GenericError`. An argument that is missing, "
        "unknown or\nof the wrong type is refused before anything is done.\n",
        QMP_QEMU_MAJOR, QMP_QEMU_MINOR, (int)(LIMIT_JSON_TEXT_BYTES / MIB),
        (int)LIMIT_JSON_TOKENS, LIMIT_JSON_NESTING,
        (int)(LIMIT_QMP_OUTPUT_BYTES / MIB), LIMIT_QMP_SESSIONS);
}

char *qmp_reference_page(const struct qmp_command *const *tables,
                         const struct qmp_event *events)
{
    struct reference reference = {
        .page = g_string_new(NULL),
        .seen = g_hash_table_new(NULL, NULL),
        .named = G_QUEUE_INIT,
    };

    write_protocol(reference.page);
    g_string_append(reference.page, "\n## Commands\n");
    for (; *tables != NULL; tables++) {
        for (const struct qmp_command *command = *tables; command->name != NULL;
             command++) {
            write_command(reference.page, command);
            note_type(&reference, command->arguments);
            note_type(&reference, command->returns);
        }
    }
    g_string_append(reference.page, "\n## Events\n");
    for (; events->name != NULL; events++) {
        g_string_append_printf(reference.page, "\n### %s\n", events->name);
        write_doc(reference.page, events->doc);
        write_arguments(reference.page, "Data", events->data);
        note_type(&reference, events->data);
    }
    g_string_append(reference.page,
                    "\n## Types\n\n"
                    "`int` is a signed, `size` an unsigned integer of 64 bits, "
                    "`uint32` an unsigned one\nof 32; a `size` on the command "
                    "line takes k, M, G, T, P, E.\n");
    write_types(&reference);
    g_hash_table_unref(reference.seen);
    return g_string_free(reference.page, FALSE);
}
