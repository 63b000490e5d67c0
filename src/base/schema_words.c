/* SPDX-License-Identifier: BSD-3-Clause */
/* Look-ups in schemas, and the words for what is wrong with a value. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/schema_priv.h"

/* As much of a client's text as an error repeats. */
#define QUOTE_BYTES_MAX 160

const struct schema_type schema_any = { .kind = SCHEMA_ANY };
const struct schema_type schema_null = { .kind = SCHEMA_NULL };
const struct schema_type schema_string = { .kind = SCHEMA_STRING };
const struct schema_type schema_bool = { .kind = SCHEMA_BOOL };
const struct schema_type schema_int = { .kind = SCHEMA_INT };
const struct schema_type schema_uint32 = { .kind = SCHEMA_UINT32 };
const struct schema_type schema_size = { .kind = SCHEMA_SIZE };
const struct schema_type schema_string_list = {
    .kind = SCHEMA_LIST,
    .element = &schema_string,
};

struct schema_place schema_place_member(const struct schema_place *parent,
                                        const char *name)
{
    return (struct schema_place){
        .parent = parent,
        .name = name,
        .depth = parent->depth + 1,
    };
}

struct schema_place schema_place_element(const struct schema_place *parent,
                                         size_t index)
{
    return (struct schema_place){
        .parent = parent,
        .index = index,
        .depth = parent->depth + 1,
    };
}

char *schema_place_path(const struct schema_place *place)
{
    GString *path = g_string_new(NULL);

    for (; place != NULL; place = place->parent) {
        if (place->parent == NULL && place->name == NULL) {
            break; /* the value itself has no name */
        }
        if (path->len > 0) {
            g_string_prepend_c(path, '.');
        }
        if (place->name != NULL) {
            g_string_prepend(path, place->name);
        } else {
            g_autofree char *index =
                g_strdup_printf("%" G_GSIZE_FORMAT, place->index);

            g_string_prepend(path, index);
        }
    }

    g_autofree char *whole = g_string_free(path, FALSE);

    return whole[0] != '\0' ? schema_quote(whole) : g_strdup("the value");
}

char *schema_quote(const char *text)
{
    bool cut = strlen(text) > QUOTE_BYTES_MAX;
    g_autofree char *start = g_strndup(text, QUOTE_BYTES_MAX);
    /* Cut in a character, or with a NUL in it as base/json.h keeps them. */
    g_autofree char *valid = g_utf8_make_valid(start, -1);

    return g_strdup_printf("'%s%s'", valid, cut ? "..." : "");
}

static char *branches_in_words(const struct schema_type *type)
{
    GString *words = g_string_new(NULL);

    for (const struct schema_branch *branch = type->branches;
         branch->type != NULL; branch++) {
        g_autofree char *kind = schema_kind_in_words(branch->type);

        g_string_append_printf(words, "%s%s", words->len > 0 ? " or " : "",
                               kind);
    }
    return g_string_free(words, FALSE);
}

char *schema_kind_in_words(const struct schema_type *type)
{
    static const char *const kinds[] = {
        [SCHEMA_ANY] = "a value",
        [SCHEMA_NULL] = "null",
        [SCHEMA_STRING] = "a string",
        [SCHEMA_BOOL] = "true or false",
        [SCHEMA_INT] = "an integer of 64 bits",
        [SCHEMA_UINT32] = "an integer from 0 to 4294967295",
        [SCHEMA_SIZE] = "an integer from 0 to 2^64-1",
        [SCHEMA_ENUM] = "a string",
        [SCHEMA_LIST] = "a list",
        [SCHEMA_STRUCT] = "an object",
        [SCHEMA_UNION] = "an object",
    };

    if (type->kind == SCHEMA_ALTERNATE) {
        return branches_in_words(type);
    }
    return g_strdup(kinds[type->kind]);
}

const char *schema_value_in_words(const struct json_value *value)
{
    switch (json_type_of(value)) {
    case JSON_NULL: return "null";
    case JSON_BOOL: return "a boolean";
    case JSON_INT: return "an integer";
    case JSON_UINT: return "an integer above 2^63-1";
    case JSON_DOUBLE: return "a number with a fraction or exponent";
    case JSON_STRING: return "a string";
    case JSON_LIST: return "a list";
    case JSON_DICT:
    default: return "an object";
    }
}

int schema_check_depth(const struct schema_place *place, GError **err)
{
    if (place->depth <= SCHEMA_NESTING_MAX) {
        return 0;
    }

    g_autofree char *path = schema_place_path(place);

    return error_set(err, -EINVAL, "%s nests deeper than %d levels", path,
                     SCHEMA_NESTING_MAX);
}

static const struct schema_member *member_in(const struct schema_type *type,
                                             const char *name)
{
    for (const struct schema_member *member = type->members;
         member != NULL && member->name != NULL; member++) {
        if (strcmp(member->name, name) == 0) {
            return member;
        }
    }
    return NULL;
}

const struct schema_member *schema_member_find(const struct schema_type *type,
                                               const struct schema_type *branch,
                                               const char *name)
{
    const struct schema_member *member = member_in(type, name);

    if (member == NULL && branch != NULL) {
        member = member_in(branch, name);
    }
    return member;
}

const char *schema_tag_value(const struct schema_type *type,
                             const struct json_value *dict)
{
    const struct json_value *value = json_dict_get(dict, type->tag);

    if (value == NULL) {
        const struct schema_member *member = member_in(type, type->tag);

        g_assert(member != NULL); /* the tag is one of the common members */
        return member->fallback;
    }
    return json_type_of(value) == JSON_STRING ? json_get_string(value) : NULL;
}

const struct schema_type *schema_branch_type(const struct schema_type *type,
                                             const char *tag_value)
{
    if (tag_value == NULL) {
        return NULL;
    }
    for (const struct schema_branch *branch = type->branches;
         branch->value != NULL; branch++) {
        if (strcmp(branch->value, tag_value) == 0) {
            return branch->type;
        }
    }
    return NULL;
}
