/* SPDX-License-Identifier: BSD-3-Clause */
/* Comparing two trees, without recursion: pairs of containers still to compare
 * wait on a list. The order of a dict's members does not matter. */
#include <string.h>

#include "base/json.h"

/* Are two values equal, given that their children are compared later? */
static bool equal_shallow(const struct json_value *a,
                          const struct json_value *b)
{
    int64_t integers[2];
    uint64_t naturals[2];

    if (json_type_of(a) != json_type_of(b)) {
        return false;
    }
    switch (json_type_of(a)) {
    case JSON_BOOL: return json_get_bool(a) == json_get_bool(b);
    case JSON_INT:
        return json_get_int(a, &integers[0]) && json_get_int(b, &integers[1]) &&
               integers[0] == integers[1];
    case JSON_UINT:
        return json_get_uint(a, &naturals[0]) &&
               json_get_uint(b, &naturals[1]) && naturals[0] == naturals[1];
    case JSON_DOUBLE:
        return !(json_get_double(a) < json_get_double(b)) &&
               !(json_get_double(a) > json_get_double(b));
    case JSON_STRING:
        return strcmp(json_get_string(a), json_get_string(b)) == 0;
    case JSON_LIST: return json_list_length(a) == json_list_length(b);
    case JSON_DICT: return json_dict_length(a) == json_dict_length(b);
    case JSON_NULL:
    default: return true;
    }
}

static bool equal_child(GPtrArray *pending,
                        const struct json_value *a,
                        const struct json_value *b)
{
    if (b == NULL || !equal_shallow(a, b)) {
        return false;
    }
    if (json_type_of(a) == JSON_LIST || json_type_of(a) == JSON_DICT) {
        g_ptr_array_add(pending, (gpointer)(uintptr_t)a);
        g_ptr_array_add(pending, (gpointer)(uintptr_t)b);
    }
    return true;
}

static const struct json_value *take_last(GPtrArray *pending)
{
    return g_ptr_array_remove_index_fast(pending, pending->len - 1);
}

bool json_equal(const struct json_value *a, const struct json_value *b)
{
    g_autoptr(GPtrArray) pending = g_ptr_array_new();
    bool equal = equal_child(pending, a, b);

    while (equal && pending->len > 0) {
        b = take_last(pending);
        a = take_last(pending);

        bool is_list = json_type_of(a) == JSON_LIST;
        size_t length = is_list ? json_list_length(a) : json_dict_length(a);

        for (size_t i = 0; equal && i < length; i++) {
            if (is_list) {
                equal = equal_child(pending, json_list_get(a, i),
                                    json_list_get(b, i));
            } else {
                const char *key;
                const struct json_value *child = json_dict_entry(a, i, &key);

                equal = equal_child(pending, child, json_dict_get(b, key));
            }
        }
    }
    return equal;
}
