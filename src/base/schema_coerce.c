/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Typing the strings of a key=value tree.
 *
 * A new tree is built along the type, in which a string stands for what the
 * type asks for; then schema_check() judges it, so that both forms of options
 * are held to the same rules. What has no place in the type is copied as it is
 * and left for the check to refuse.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/schema.h"
#include "base/schema_priv.h"

static struct json_value *coerce(const struct schema_type *type,
                                 const struct json_value *value,
                                 const struct schema_place *place,
                                 GError **err);

static struct json_value *refuse(const char *text,
                                 const char *wanted,
                                 const struct schema_place *place,
                                 GError **err)
{
    g_autofree char *path = schema_place_path(place);
    g_autofree char *quoted = schema_quote(text);

    error_set(err, -EINVAL, "%s must be %s, not %s", path, wanted, quoted);
    return NULL;
}

static struct json_value *coerce_bool(const char *text,
                                      const struct schema_place *place,
                                      GError **err)
{
    static const char *const words[] = { "off",   "on",   "no", "yes",
                                         "false", "true", "n",  "y" };

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (strcmp(words[i], text) == 0) {
            return json_bool_new(i % 2 == 1);
        }
    }
    return refuse(text, "'on' or 'off'", place, err);
}

/* Reads digits (decimal, or hexadecimal after 0x) up to `*ret_end`. A leading
 * zero is refused: it means octal to some and nothing to others. */
static bool parse_digits(const char *text, uint64_t *ret, const char **ret_end)
{
    bool hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hexadecimal ? text + 2 : text;
    char *end;

    if (hexadecimal ? !g_ascii_isxdigit(*digits) : !g_ascii_isdigit(*digits)) {
        return false;
    }
    if (!hexadecimal && text[0] == '0' && g_ascii_isdigit(text[1])) {
        return false;
    }
    errno = 0;
    *ret = g_ascii_strtoull(digits, &end, hexadecimal ? 16 : 10);
    *ret_end = end;
    return errno == 0;
}

static struct json_value *coerce_integer(const char *text,
                                         const struct schema_type *type,
                                         const struct schema_place *place,
                                         GError **err)
{
    bool negative = type->kind == SCHEMA_INT && text[0] == '-';
    const char *end;
    uint64_t magnitude;
    bool ok = parse_digits(negative ? text + 1 : text, &magnitude, &end) &&
              *end == '\0';

    if (ok && negative && magnitude <= (uint64_t)INT64_MAX + 1) {
        return json_int_new((int64_t)(0 - magnitude));
    }
    if (ok && !negative) {
        return json_uint_new(magnitude);
    }

    g_autofree char *wanted = schema_kind_in_words(type);

    return refuse(text, wanted, place, err);
}

/* The fraction of a size, ".5" of "1.5G", as bytes rounded down. Digits past
 * the 18th weigh less than a byte of any size that fits, and are skipped. */
static uint64_t parse_fraction(const char **text, unsigned int shift)
{
    uint64_t numerator = 0;
    uint64_t denominator = 1;

    for ((*text)++; g_ascii_isdigit(**text); (*text)++) {
        if (denominator < UINT64_C(1000000000000000000)) {
            numerator = numerator * 10 + (uint64_t)(**text - '0');
            denominator *= 10;
        }
    }
    return (uint64_t)(((__uint128_t)numerator << shift) / denominator);
}

/* "65536", "64k", "1.5G", "0x10000". */
static bool parse_size(const char *text, uint64_t *ret)
{
    static const char suffixes[] = "bkmgtpe";
    size_t length = strlen(text);
    unsigned int shift = 0;
    const char *suffix;
    const char *end;
    uint64_t whole;
    uint64_t fraction = 0;

    if (!parse_digits(text, &whole, &end) ||
        (*end != '\0' && g_ascii_tolower(text[1]) == 'x')) {
        return false; /* hexadecimal stands alone: is 0x1e a suffix? */
    }
    suffix = strchr(suffixes, g_ascii_tolower(text[length - 1]));
    if (*end != '\0' && suffix != NULL) {
        shift = 10 * (unsigned int)(suffix - suffixes);
    }
    if (*end == '.' && g_ascii_isdigit(end[1])) {
        fraction = parse_fraction(&end, shift);
        if (shift == 0) {
            return false; /* half a byte */
        }
    }
    if (*end != '\0' && (suffix == NULL || end != text + length - 1)) {
        return false;
    }
    if (whole > UINT64_MAX >> shift ||
        fraction > UINT64_MAX - (whole << shift)) {
        return false;
    }
    *ret = (whole << shift) + fraction;
    return true;
}

static struct json_value *coerce_size(const char *text,
                                      const struct schema_place *place,
                                      GError **err)
{
    uint64_t size;

    if (parse_size(text, &size)) {
        return json_uint_new(size);
    }
    return refuse(text, "a size in bytes such as 65536, 64k or 1.5G", place,
                  err);
}

static struct json_value *coerce_list(const struct schema_type *type,
                                      const struct json_value *value,
                                      const struct schema_place *place,
                                      GError **err)
{
    bool is_list = json_type_of(value) == JSON_LIST;
    size_t length = is_list ? json_list_length(value) : json_dict_length(value);
    g_autoptr(json_value) list = json_list_new();

    for (size_t i = 0; i < length; i++) {
        struct schema_place step = schema_place_element(place, i);
        g_autofree char *key = g_strdup_printf("%" G_GSIZE_FORMAT, i);
        const struct json_value *item =
            is_list ? json_list_get(value, i) : json_dict_get(value, key);

        if (item == NULL) {
            return json_copy(value); /* no list: the check says so */
        }

        struct json_value *coerced = coerce(type->element, item, &step, err);

        if (coerced == NULL) {
            return NULL;
        }
        json_list_append(list, coerced);
    }
    return g_steal_pointer(&list);
}

static struct json_value *coerce_dict(const struct schema_type *type,
                                      const struct json_value *value,
                                      const struct schema_place *place,
                                      GError **err)
{
    const struct schema_type *branch = NULL;
    g_autoptr(json_value) dict = json_dict_new();
    size_t length = json_dict_length(value);

    if (type->kind == SCHEMA_UNION) {
        branch = schema_branch_type(type, schema_tag_value(type, value));
    }
    for (size_t i = 0; i < length; i++) {
        const char *key;
        const struct json_value *item = json_dict_entry(value, i, &key);
        struct schema_place step = schema_place_member(place, key);
        const struct schema_member *member =
            schema_member_find(type, branch, key);
        struct json_value *coerced =
            member != NULL ? coerce(member->type, item, &step, err)
                           : json_copy(item);

        if (coerced == NULL) {
            return NULL;
        }
        json_dict_set(dict, key, coerced);
    }
    return g_steal_pointer(&dict);
}

/* How well a branch of an alternate suits a value of the tree; 0: not. */
static int branch_rank(enum schema_kind kind, enum json_type type)
{
    switch (kind) {
    case SCHEMA_STRING:
    case SCHEMA_ENUM: return type == JSON_STRING ? 2 : 0;
    case SCHEMA_BOOL:
    case SCHEMA_INT:
    case SCHEMA_UINT32:
    case SCHEMA_SIZE: return type == JSON_STRING ? 1 : 0;
    case SCHEMA_STRUCT:
    case SCHEMA_UNION: return type == JSON_DICT ? 2 : 0;
    case SCHEMA_LIST: return type == JSON_LIST ? 2 : type == JSON_DICT;
    case SCHEMA_ANY:
    case SCHEMA_NULL:
    case SCHEMA_ALTERNATE:
    default: return 0;
    }
}

static struct json_value *coerce_alternate(const struct schema_type *type,
                                           const struct json_value *value,
                                           const struct schema_place *place,
                                           GError **err)
{
    const struct schema_type *best = NULL;
    int best_rank = 0;

    for (const struct schema_branch *branch = type->branches;
         branch->type != NULL; branch++) {
        int rank = branch_rank(branch->type->kind, json_type_of(value));

        if (rank > best_rank) {
            best = branch->type;
            best_rank = rank;
        }
    }
    return best != NULL ? coerce(best, value, place, err) : json_copy(value);
}

static struct json_value *coerce_string(const struct schema_type *type,
                                        const struct json_value *value,
                                        const struct schema_place *place,
                                        GError **err)
{
    const char *text = json_get_string(value);

    switch (type->kind) {
    case SCHEMA_BOOL: return coerce_bool(text, place, err);
    case SCHEMA_INT:
    case SCHEMA_UINT32: return coerce_integer(text, type, place, err);
    case SCHEMA_SIZE: return coerce_size(text, place, err);
    case SCHEMA_ANY:
    case SCHEMA_NULL:
    case SCHEMA_STRING:
    case SCHEMA_ENUM:
    case SCHEMA_LIST:
    case SCHEMA_STRUCT:
    case SCHEMA_UNION:
    case SCHEMA_ALTERNATE:
    default: return json_copy(value);
    }
}

static struct json_value *coerce(const struct schema_type *type,
                                 const struct json_value *value,
                                 const struct schema_place *place,
                                 GError **err)
{
    enum json_type json_type = json_type_of(value);
    bool is_dict = json_type == JSON_DICT;

    if (schema_check_depth(place, err) < 0) {
        return NULL;
    }
    if (type->kind == SCHEMA_ALTERNATE) {
        return coerce_alternate(type, value, place, err);
    }
    if (type->kind == SCHEMA_LIST && (is_dict || json_type == JSON_LIST)) {
        return coerce_list(type, value, place, err);
    }
    if (is_dict &&
        (type->kind == SCHEMA_STRUCT || type->kind == SCHEMA_UNION)) {
        return coerce_dict(type, value, place, err);
    }
    if (json_type == JSON_STRING) {
        return coerce_string(type, value, place, err);
    }
    return json_copy(value);
}

struct json_value *schema_coerce(const struct schema_type *type,
                                 const struct json_value *value,
                                 const char *what,
                                 GError **err)
{
    struct schema_place root = { .name = what };
    g_autoptr(json_value) tree = coerce(type, value, &root, err);

    if (tree == NULL || schema_check(type, tree, what, err) < 0) {
        return NULL;
    }
    return g_steal_pointer(&tree);
}
