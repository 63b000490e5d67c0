/* SPDX-License-Identifier: BSD-3-Clause */
/* Shorthands over json_dict_set() and json_dict_get(). */
#include "base/json.h"

void json_dict_set_string(struct json_value *dict,
                          const char *key,
                          const char *value)
{
    json_dict_set(dict, key, json_string_new(value));
}

void json_dict_set_int(struct json_value *dict, const char *key, int64_t value)
{
    json_dict_set(dict, key, json_int_new(value));
}

void json_dict_set_uint(struct json_value *dict,
                        const char *key,
                        uint64_t value)
{
    json_dict_set(dict, key, json_uint_new(value));
}

void json_dict_set_bool(struct json_value *dict, const char *key, bool value)
{
    json_dict_set(dict, key, json_bool_new(value));
}

/* The member's value; NULL when it is absent or null. */
static const struct json_value *present(const struct json_value *dict,
                                        const char *key)
{
    const struct json_value *value = json_dict_get(dict, key);

    return value == NULL || json_type_of(value) == JSON_NULL ? NULL : value;
}

const char *json_dict_string(const struct json_value *dict,
                             const char *key,
                             const char *otherwise)
{
    const struct json_value *value = present(dict, key);

    return value != NULL ? json_get_string(value) : otherwise;
}

int64_t json_dict_int(const struct json_value *dict,
                      const char *key,
                      int64_t otherwise)
{
    const struct json_value *value = present(dict, key);

    if (value != NULL) {
        bool fits = json_get_int(value, &otherwise);

        g_assert(fits);
    }
    return otherwise;
}

uint64_t json_dict_uint(const struct json_value *dict,
                        const char *key,
                        uint64_t otherwise)
{
    const struct json_value *value = present(dict, key);

    if (value != NULL) {
        bool fits = json_get_uint(value, &otherwise);

        g_assert(fits);
    }
    return otherwise;
}

bool json_dict_bool(const struct json_value *dict,
                    const char *key,
                    bool otherwise)
{
    const struct json_value *value = present(dict, key);

    return value != NULL ? json_get_bool(value) : otherwise;
}
