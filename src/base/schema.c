/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checking a value against its type.
 *
 * The walk follows type and value together, at most SCHEMA_NESTING_MAX deep.
 * The first thing that is wrong ends it with a sentence. Of a struct, members
 * that are unknown are reported before those that are missing: a required
 * member with a typing error in its name is both, and the name helps more.
 */
#include "base/schema.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/schema_priv.h"
#include "base/spelling.h"

static int check(const struct schema_type *type,
                 const struct json_value *value,
                 const struct schema_place *place,
                 GError **err);

static int refuse_type(const struct schema_type *type,
                       const struct json_value *value,
                       const struct schema_place *place,
                       GError **err)
{
    g_autofree char *path = schema_place_path(place);
    g_autofree char *wanted = schema_kind_in_words(type);
    int64_t number;

    if (json_get_int(value, &number)) {
        return error_set(err, -EINVAL, "%s must be %s, not %" G_GINT64_FORMAT,
                         path, wanted, number);
    }
    return error_set(err, -EINVAL, "%s must be %s, not %s", path, wanted,
                     schema_value_in_words(value));
}

static int check_enum(const struct schema_type *type,
                      const struct json_value *value,
                      const struct schema_place *place,
                      GError **err)
{
    const char *text = json_get_string(value);
    struct spelling spelling = { .word = text };
    g_autoptr(GString) values = g_string_new(NULL);

    for (const char *const *known = type->values; *known != NULL; known++) {
        if (strcmp(*known, text) == 0) {
            return 0;
        }
    }
    for (const char *const *known = type->values; *known != NULL; known++) {
        spelling_offer(&spelling, *known);
        g_string_append_printf(values, "%s%s", values->len > 0 ? ", " : "",
                               *known);
    }

    g_autofree char *path = schema_place_path(place);
    g_autofree char *quoted = schema_quote(text);

    if (spelling.nearest != NULL) {
        return error_set(err, -EINVAL,
                         "%s cannot be %s; did you mean '%s'? "
                         "It takes one of: %s",
                         path, quoted, spelling.nearest, values->str);
    }
    return error_set(err, -EINVAL, "%s cannot be %s; it takes one of: %s", path,
                     quoted, values->str);
}

static int check_string(const struct json_value *value,
                        const struct schema_place *place,
                        GError **err)
{
    if (strstr(json_get_string(value), "\xc0\x80") == NULL) {
        return 0;
    }

    g_autofree char *path = schema_place_path(place);

    return error_set(err, -EINVAL, "%s contains a NUL character (\\u0000)",
                     path);
}

static int check_list(const struct schema_type *type,
                      const struct json_value *value,
                      const struct schema_place *place,
                      GError **err)
{
    size_t length = json_list_length(value);

    for (size_t i = 0; i < length; i++) {
        struct schema_place element = schema_place_element(place, i);
        int ret = check(type->element, json_list_get(value, i), &element, err);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void offer_members(struct spelling *spelling,
                          const struct schema_type *type)
{
    const struct schema_member *member = type != NULL ? type->members : NULL;

    for (; member != NULL && member->name != NULL; member++) {
        spelling_offer(spelling, member->name);
    }
}

static int refuse_unknown(const struct schema_type *type,
                          const struct schema_type *branch,
                          const char *tag_value,
                          const struct schema_place *place,
                          GError **err)
{
    struct spelling spelling = { .word = place->name };
    g_autofree char *path = schema_place_path(place);
    g_autofree char *with = NULL;

    offer_members(&spelling, type);
    offer_members(&spelling, branch);
    if (tag_value != NULL) {
        g_autofree char *quoted = schema_quote(tag_value);

        with = g_strdup_printf(" with %s %s", type->tag, quoted);
    }
    if (spelling.nearest != NULL) {
        return error_set(err, -EINVAL,
                         "%s is not known here%s; did you mean '%s'?", path,
                         with != NULL ? with : "", spelling.nearest);
    }
    return error_set(err, -EINVAL, "%s is not known here%s", path,
                     with != NULL ? with : "");
}

/* The members that `type` itself declares: there if required, and well. */
static int check_members(const struct schema_type *type,
                         const struct json_value *dict,
                         const struct schema_place *place,
                         GError **err)
{
    for (const struct schema_member *member = type->members;
         member != NULL && member->name != NULL; member++) {
        struct schema_place step = schema_place_member(place, member->name);
        const struct json_value *value = json_dict_get(dict, member->name);
        int ret = 0;

        if (value != NULL) {
            ret = check(member->type, value, &step, err);
        } else if (member->required) {
            g_autofree char *path = schema_place_path(&step);

            ret = error_set(err, -EINVAL, "%s is missing", path);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int check_unknown(const struct schema_type *type,
                         const struct schema_type *branch,
                         const char *tag_value,
                         const struct json_value *dict,
                         const struct schema_place *place,
                         GError **err)
{
    size_t length = json_dict_length(dict);

    for (size_t i = 0; i < length; i++) {
        const char *key;

        (void)json_dict_entry(dict, i, &key); /* only the name matters */
        if (schema_member_find(type, branch, key) == NULL) {
            struct schema_place step = schema_place_member(place, key);

            return refuse_unknown(type, branch, tag_value, &step, err);
        }
    }
    return 0;
}

static int refuse_missing_tag(const struct schema_type *type,
                              const struct json_value *dict,
                              const struct schema_place *place,
                              GError **err)
{
    struct spelling spelling = { .word = type->tag };
    g_autofree char *path = schema_place_path(place);

    for (size_t i = 0; i < json_dict_length(dict); i++) {
        const char *key;

        (void)json_dict_entry(dict, i, &key); /* only the name matters */
        spelling_offer(&spelling, key);
    }
    if (spelling.nearest != NULL) {
        return error_set(err, -EINVAL, "%s is missing; is '%s' meant for it?",
                         path, spelling.nearest);
    }
    return error_set(err, -EINVAL, "%s is missing", path);
}

/* The tag decides what else is known, so it is looked at before all else. */
static int check_tag(const struct schema_type *type,
                     const struct json_value *dict,
                     const struct schema_place *place,
                     GError **err)
{
    struct schema_place step = schema_place_member(place, type->tag);
    const struct json_value *value = json_dict_get(dict, type->tag);

    if (value != NULL) {
        return check(schema_member_find(type, NULL, type->tag)->type, value,
                     &step, err);
    }
    return schema_tag_value(type, dict) != NULL
               ? 0
               : refuse_missing_tag(type, dict, &step, err);
}

static int check_dict(const struct schema_type *type,
                      const struct json_value *dict,
                      const struct schema_place *place,
                      GError **err)
{
    const struct schema_type *branch = NULL;
    const char *tag_value = NULL;
    int ret;

    if (type->kind == SCHEMA_UNION) {
        ret = check_tag(type, dict, place, err);
        if (ret < 0) {
            return ret;
        }
        tag_value = schema_tag_value(type, dict);
        branch = schema_branch_type(type, tag_value);
    }
    ret = check_unknown(type, branch, tag_value, dict, place, err);
    if (ret == 0) {
        ret = check_members(type, dict, place, err);
    }
    if (ret == 0 && branch != NULL) {
        ret = check_members(branch, dict, place, err);
    }
    return ret;
}

/* May a value of this JSON type be of `kind`, ranges aside? */
static bool kind_takes(enum schema_kind kind, enum json_type type)
{
    switch (kind) {
    case SCHEMA_ANY: return true;
    case SCHEMA_NULL: return type == JSON_NULL;
    case SCHEMA_STRING:
    case SCHEMA_ENUM: return type == JSON_STRING;
    case SCHEMA_BOOL: return type == JSON_BOOL;
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE: return type == JSON_INT || type == JSON_UINT;
    case SCHEMA_LIST: return type == JSON_LIST;
    case SCHEMA_STRUCT:
    case SCHEMA_UNION: return type == JSON_DICT;
    case SCHEMA_ALTERNATE:
    default: g_assert_not_reached(); /* alternates do not nest */
    }
}

static int check_alternate(const struct schema_type *type,
                           const struct json_value *value,
                           const struct schema_place *place,
                           GError **err)
{
    for (const struct schema_branch *branch = type->branches;
         branch->type != NULL; branch++) {
        if (kind_takes(branch->type->kind, json_type_of(value))) {
            return check(branch->type, value, place, err);
        }
    }
    return refuse_type(type, value, place, err);
}

static bool integer_in_range(const struct schema_type *type,
                             const struct json_value *value)
{
    int64_t integer;
    uint64_t natural;

    if (type->kind == SCHEMA_INT) {
        return json_get_int(value, &integer);
    }
    return json_get_uint(value, &natural) &&
           (type->kind == SCHEMA_SIZE || natural <= UINT32_MAX);
}

static int check(const struct schema_type *type,
                 const struct json_value *value,
                 const struct schema_place *place,
                 GError **err)
{
    int ret = schema_check_depth(place, err);

    if (ret < 0) {
        return ret;
    }
    if (type->kind == SCHEMA_ALTERNATE) {
        return check_alternate(type, value, place, err);
    }
    if (!kind_takes(type->kind, json_type_of(value))) {
        return refuse_type(type, value, place, err);
    }
    switch (type->kind) {
    case SCHEMA_STRING: return check_string(value, place, err);
    case SCHEMA_ENUM: return check_enum(type, value, place, err);
    case SCHEMA_LIST: return check_list(type, value, place, err);
    case SCHEMA_STRUCT:
    case SCHEMA_UNION: return check_dict(type, value, place, err);
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE:
        return integer_in_range(type, value)
                   ? 0
                   : refuse_type(type, value, place, err);
    case SCHEMA_ANY:
    case SCHEMA_NULL:
    case SCHEMA_BOOL:
    case SCHEMA_ALTERNATE:
    default: return 0; /* the JSON type says it all */
    }
}

int schema_check(const struct schema_type *type,
                 const struct json_value *value,
                 const char *what,
                 GError **err)
{
    struct schema_place root = { .name = what };

    return check(type, value, &root, err);
}
