/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON values: a tree in memory, its accessors and its writer.
 *
 * Integers keep their exact value over the whole range of int64 and uint64
 * (QAPI's `int` and `size`). A value is owned by one holder; putting it into a
 * list or dict hands it over. Reading QMP's dialect from a stream is done by
 * base/json_reader.h. Not shared between threads; handing over is fine.
 *
 * Strings are UTF-8 and end with NUL. A U+0000 that a client sent inside one is
 * kept as the bytes C0 80 and written as \u0000 again, so that an `id` comes
 * back as it was; schema_check() refuses it wherever a string is asked for.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_INT,  /* fits int64 */
    JSON_UINT, /* above INT64_MAX, fits uint64 */
    JSON_DOUBLE,
    JSON_STRING,
    JSON_LIST,
    JSON_DICT,
};

/* The typedef exists for g_autoptr(json_value) only. */
typedef struct json_value json_value;
struct json_value;

struct json_value *json_null_new(void);
struct json_value *json_bool_new(bool value);
struct json_value *json_int_new(int64_t value);
struct json_value *json_uint_new(uint64_t value); /* JSON_INT if it fits */
struct json_value *json_double_new(double value);
struct json_value *json_string_new(const char *value); /* UTF-8, copied */
struct json_value *json_string_take(char *value); /* as above, taken over */
struct json_value *json_list_new(void);
struct json_value *json_dict_new(void);
/* Deep. This and json_equal() are called otherwise in the object files: jansson,
 * which `cohort` links too, has functions of these names. */
struct json_value *json_copy(const struct json_value *value) __asm__(
    "base_json_copy");
void json_free(struct json_value *value); /* NULL is fine; deep */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_value, json_free)

enum json_type json_type_of(const struct json_value *value);
const char *json_type_name(enum json_type type); /* "string", for errors */

/* Scalars. The value must be of that type (assertion), except that
 * json_get_int() and json_get_uint() also serve the other integer type and
 * return false, writing nothing, when the number does not fit or `value` is no
 * integer. */
bool json_get_bool(const struct json_value *value);
bool json_get_int(const struct json_value *value, int64_t *ret);
bool json_get_uint(const struct json_value *value, uint64_t *ret);
double json_get_double(const struct json_value *value);      /* any number */
const char *json_get_string(const struct json_value *value); /* borrowed */

/* Lists. */
size_t json_list_length(const struct json_value *list);
const struct json_value *json_list_get(const struct json_value *list,
                                       size_t index); /* borrowed */
void json_list_append(struct json_value *list,
                      struct json_value *item); /* takes item */

/* Dicts keep insertion order. Setting replaces. */
void json_dict_set(struct json_value *dict,
                   const char *key,
                   struct json_value *value); /* takes value, copies key */
void json_dict_remove(struct json_value *dict, const char *key);
const struct json_value *json_dict_get(const struct json_value *dict,
                                       const char *key); /* NULL: absent */
struct json_value *json_dict_get_mutable(struct json_value *dict,
                                         const char *key);
size_t json_dict_length(const struct json_value *dict);
/* Entry `index` in insertion order; key and value borrowed. */
const struct json_value *json_dict_entry(const struct json_value *dict,
                                         size_t index,
                                         const char **ret_key);

/* Shorthands for building. */
void json_dict_set_string(struct json_value *dict,
                          const char *key,
                          const char *value);
void json_dict_set_int(struct json_value *dict, const char *key, int64_t value);
void json_dict_set_uint(struct json_value *dict,
                        const char *key,
                        uint64_t value);
void json_dict_set_bool(struct json_value *dict, const char *key, bool value);

/* Shorthands for reading a dict that a schema has checked: the member's value,
 * or `otherwise` when it is absent (or null). A wrong type is our own mistake
 * (assertion). Strings are borrowed from the dict. */
const char *json_dict_string(const struct json_value *dict,
                             const char *key,
                             const char *otherwise);
int64_t json_dict_int(const struct json_value *dict,
                      const char *key,
                      int64_t otherwise);
uint64_t json_dict_uint(const struct json_value *dict,
                        const char *key,
                        uint64_t otherwise);
bool json_dict_bool(const struct json_value *dict,
                    const char *key,
                    bool otherwise);

bool json_equal(const struct json_value *a,
                const struct json_value *b) __asm__("base_json_equal");

/* Appends the value's text to `out`: one line, ASCII only (everything else as
 * \u escapes, surrogate pairs above U+FFFF), double quotes, ", " and ": "
 * between. `pretty` breaks lines and indents by four (sixteen levels at most). */
void json_write(const struct json_value *value, bool pretty, GString *out);

#endif
