/* SPDX-License-Identifier: BSD-3-Clause */
/* What checking and coercing share: where in the value we are, and look-ups. */
#ifndef BASE_SCHEMA_PRIV_H
#define BASE_SCHEMA_PRIV_H

#include "base/schema.h"

/* One step of a path. Steps live on the stack of the walk and are put into
 * words only when something is wrong. */
struct schema_place {
    const struct schema_place *parent; /* NULL: the value itself */
    const char *name;                  /* NULL: `index` of a list */
    size_t index;
    unsigned int depth;
};

/* The step from `parent` to a member or to an element. */
struct schema_place schema_place_member(const struct schema_place *parent,
                                        const char *name);
struct schema_place schema_place_element(const struct schema_place *parent,
                                         size_t index);

/* "'arguments.file.filename'" in quotes, or "the value"; to be freed. */
char *schema_place_path(const struct schema_place *place);

/* `text` in quotes, cut short if a client sent something long; to be freed. */
char *schema_quote(const char *text);

/* "a string", "an integer from 0 to 4294967295"; to be freed. */
char *schema_kind_in_words(const struct schema_type *type);

/* What `value` is, in words ("a string", "an object"). */
const char *schema_value_in_words(const struct json_value *value);

/* Refuses what nests deeper than SCHEMA_NESTING_MAX. */
int schema_check_depth(const struct schema_place *place, GError **err);

/* The value of a union's tag in `dict`: its fallback when absent. NULL: absent
 * without a fallback, or no string. */
const char *schema_tag_value(const struct schema_type *type,
                             const struct json_value *dict);

/* What the union's tag adds: a STRUCT, or NULL for nothing. */
const struct schema_type *schema_branch_type(const struct schema_type *type,
                                             const char *tag_value);

/* The member `name` of a STRUCT or UNION, `branch` (may be NULL) included. */
const struct schema_member *schema_member_find(const struct schema_type *type,
                                               const struct schema_type *branch,
                                               const char *name);

#endif
