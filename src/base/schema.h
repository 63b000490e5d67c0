/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Declarative types for everything that comes in as JSON or as key=value:
 * QMP arguments, block device options, command-line options.
 *
 * A type is a constant; each room declares its own and the QMP room composes
 * them. One declaration drives checking, coercion of command-line strings,
 * introspection (query-qmp-schema) and the generated reference page. What a
 * schema has accepted is read with the json_dict_*() shorthands.
 *
 * Pure functions over constants: any thread.
 */
#ifndef BASE_SCHEMA_H
#define BASE_SCHEMA_H

#include "base/json.h"
#include "base/keyval.h"

enum schema_kind {
    SCHEMA_ANY,  /* any JSON value */
    SCHEMA_NULL, /* null only: a branch of an alternate */
    SCHEMA_STRING,
    SCHEMA_BOOL,
    SCHEMA_INT, /* signed 64 bit */
    SCHEMA_UINT32,
    SCHEMA_SIZE, /* unsigned 64 bit; key=value form takes k, M, G, T, P, E */
    SCHEMA_ENUM,
    SCHEMA_LIST,
    SCHEMA_STRUCT,
    SCHEMA_UNION,     /* members, plus those that the tag's value selects */
    SCHEMA_ALTERNATE, /* one of several types, told apart by JSON type */
};

struct schema_member {
    const char *name;
    const struct schema_type *type;
    const char *doc;      /* a sentence for the reference page */
    const char *fallback; /* the default, as a person reads it; NULL: none */
    const char *const *features; /* NULL-terminated, NULL: none */
    bool required;
};

/* One arm of a union (by tag value) or of an alternate (value unused). */
struct schema_branch {
    const char *value;
    const struct schema_type *type; /* union: a STRUCT; NULL: nothing more */
};

struct schema_type {
    enum schema_kind kind;
    const char *name; /* as in QAPI: "BlockdevOptions"; NULL: anonymous */
    const char *doc;
    const char *const *values;         /* ENUM: NULL-terminated */
    const struct schema_type *element; /* LIST */
    const struct schema_member
        *members;    /* STRUCT, UNION; ends with name NULL */
    const char *tag; /* UNION: the enum member that picks */
    const struct schema_branch *branches; /* UNION: ends with value NULL;
                                             ALTERNATE: ends with type NULL */
};

/* The scalars, ready for use. */
extern const struct schema_type schema_any;
extern const struct schema_type schema_null;
extern const struct schema_type schema_string;
extern const struct schema_type schema_bool;
extern const struct schema_type schema_int;
extern const struct schema_type schema_uint32;
extern const struct schema_type schema_size;
extern const struct schema_type schema_string_list;

/* How deep a checked value may nest, lists and structs counted together: a
 * bound for the stack, far above what any tree of nodes needs. */
#define SCHEMA_NESTING_MAX 32

/* Is `value` of `type`, wholly: nothing missing, unknown, ill-typed or out of
 * range? A tag that is absent takes its `fallback`, if it has one; otherwise a
 * fallback is for the reference page only, and nothing is filled in. A value of
 * a union's tag that has no branch adds no members.
 * Returns 0, or -EINVAL with a sentence that names the member by its path
 * ("arguments.file.filename"). `what` starts that path (NULL: nothing does). */
int schema_check(const struct schema_type *type,
                 const struct json_value *value,
                 const char *what,
                 GError **err);

/* Turns the strings in a keyval tree into what `type` asks for and checks it as
 * schema_check(): on/off, yes/no, true/false, y/n; integers in decimal or with
 * 0x; sizes with a binary suffix ("64k", "1.5G"); a dict whose keys are 0, 1,
 * 2... where a list is asked for. What is no string is only checked.
 * Of an alternate, a string takes the string or enum branch (else its one
 * scalar branch), a dict the struct or union branch (else the list branch).
 * Returns a new tree, NULL with err set. */
struct json_value *schema_coerce(const struct schema_type *type,
                                 const struct json_value *value,
                                 const char *what,
                                 GError **err);

#endif
