/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON values in memory.
 *
 * A value is 16 bytes; strings, lists and dicts hang off it. A dict is an
 * array of entries in insertion order. Once it grows past a handful a balanced
 * tree finds its keys: unlike a hash table it has no worst case that a client
 * could aim at.
 *
 * Values nest as deep as the reader allows, and coroutine stacks are small, so
 * nothing here recurses: free and copy keep a list of the containers still to
 * visit.
 */
#include "base/json.h"

#include <math.h>
#include <string.h>

/* Up to here a linear search beats the tree. */
#define DICT_LINEAR_MAX 12

struct json_dict {
    GPtrArray *entries; /* struct json_entry, owned */
    GTree *index;       /* key to entry, both borrowed; NULL: small */
};

struct json_entry {
    size_t position; /* in entries */
    struct json_value *value;
    char key[];
};

struct json_value {
    enum json_type type;

    union {
        bool boolean;
        int64_t integer;
        uint64_t natural;
        double number;
        char *string;
        GPtrArray *list;
        struct json_dict *dict;
    };
};

static struct json_value *value_new(enum json_type type)
{
    struct json_value *value = g_new0(struct json_value, 1);

    value->type = type;
    return value;
}

static bool is_container(const struct json_value *value)
{
    return value->type == JSON_LIST || value->type == JSON_DICT;
}

struct json_value *json_null_new(void)
{
    return value_new(JSON_NULL);
}

struct json_value *json_bool_new(bool value)
{
    struct json_value *json = value_new(JSON_BOOL);

    json->boolean = value;
    return json;
}

struct json_value *json_int_new(int64_t value)
{
    struct json_value *json = value_new(JSON_INT);

    json->integer = value;
    return json;
}

struct json_value *json_uint_new(uint64_t value)
{
    if (value <= INT64_MAX) {
        return json_int_new((int64_t)value);
    }

    struct json_value *json = value_new(JSON_UINT);

    json->natural = value;
    return json;
}

struct json_value *json_double_new(double value)
{
    g_assert(isfinite(value));

    struct json_value *json = value_new(JSON_DOUBLE);

    json->number = value;
    return json;
}

struct json_value *json_string_take(char *value)
{
    g_assert(value != NULL);

    struct json_value *json = value_new(JSON_STRING);

    json->string = value;
    return json;
}

struct json_value *json_string_new(const char *value)
{
    return json_string_take(g_strdup(value));
}

struct json_value *json_list_new(void)
{
    struct json_value *json = value_new(JSON_LIST);

    json->list = g_ptr_array_new();
    return json;
}

struct json_value *json_dict_new(void)
{
    struct json_value *json = value_new(JSON_DICT);

    json->dict = g_new0(struct json_dict, 1);
    json->dict->entries = g_ptr_array_new();
    return json;
}

/* Frees one value; containers it held go to `pending` instead. */
static void free_shallow(struct json_value *value, GPtrArray *pending)
{
    if (value->type == JSON_STRING) {
        g_free(value->string);
    } else if (value->type == JSON_LIST) {
        for (guint i = 0; i < value->list->len; i++) {
            g_ptr_array_add(pending, value->list->pdata[i]);
        }
        g_ptr_array_free(value->list, TRUE);
    } else if (value->type == JSON_DICT) {
        GPtrArray *entries = value->dict->entries;

        for (guint i = 0; i < entries->len; i++) {
            struct json_entry *entry = entries->pdata[i];

            g_ptr_array_add(pending, entry->value);
            g_free(entry);
        }
        g_ptr_array_free(entries, TRUE);
        g_clear_pointer(&value->dict->index, g_tree_unref);
        g_free(value->dict);
    }
    g_free(value);
}

void json_free(struct json_value *value)
{
    if (value == NULL) {
        return;
    }
    if (!is_container(value)) {
        free_shallow(value, NULL);
        return;
    }

    g_autoptr(GPtrArray) pending = g_ptr_array_new();

    g_ptr_array_add(pending, value);
    while (pending->len > 0) {
        free_shallow(g_ptr_array_remove_index_fast(pending, pending->len - 1),
                     pending);
    }
}

/* A copy of a scalar; of a container, an empty one of its kind. */
static struct json_value *copy_shallow(const struct json_value *value)
{
    switch (value->type) {
    case JSON_STRING: return json_string_new(value->string);
    case JSON_LIST: return json_list_new();
    case JSON_DICT: return json_dict_new();
    case JSON_NULL:
    case JSON_BOOL:
    case JSON_INT:
    case JSON_UINT:
    case JSON_DOUBLE:
    default: return g_memdup2(value, sizeof(*value));
    }
}

/* Two containers of one kind, yet to be visited side by side. */
struct pair {
    const struct json_value *from;
    struct json_value *to;
};

static struct json_value *copy_child(GArray *pending,
                                     const struct json_value *child)
{
    struct json_value *copy = copy_shallow(child);

    if (is_container(child)) {
        struct pair pair = { child, copy };

        g_array_append_val(pending, pair);
    }
    return copy;
}

struct json_value *json_copy(const struct json_value *value)
{
    g_autoptr(GArray) pending = g_array_new(FALSE, FALSE, sizeof(struct pair));
    struct json_value *root = copy_child(pending, value);

    while (pending->len > 0) {
        struct pair pair =
            g_array_index(pending, struct pair, pending->len - 1);
        size_t length = pair.from->type == JSON_LIST
                            ? json_list_length(pair.from)
                            : json_dict_length(pair.from);

        g_array_set_size(pending, pending->len - 1);
        for (size_t i = 0; i < length; i++) {
            if (pair.from->type == JSON_LIST) {
                json_list_append(
                    pair.to, copy_child(pending, json_list_get(pair.from, i)));
            } else {
                const char *key;
                const struct json_value *child =
                    json_dict_entry(pair.from, i, &key);

                json_dict_set(pair.to, key, copy_child(pending, child));
            }
        }
    }
    return root;
}

enum json_type json_type_of(const struct json_value *value)
{
    return value->type;
}

const char *json_type_name(enum json_type type)
{
    static const char *const names[] = {
        [JSON_NULL] = "null",     [JSON_BOOL] = "boolean",
        [JSON_INT] = "integer",   [JSON_UINT] = "integer",
        [JSON_DOUBLE] = "number", [JSON_STRING] = "string",
        [JSON_LIST] = "list",     [JSON_DICT] = "object",
    };

    return names[type];
}

bool json_get_bool(const struct json_value *value)
{
    g_assert(value->type == JSON_BOOL);
    return value->boolean;
}

bool json_get_int(const struct json_value *value, int64_t *ret)
{
    if (value->type != JSON_INT) {
        return false;
    }
    *ret = value->integer;
    return true;
}

bool json_get_uint(const struct json_value *value, uint64_t *ret)
{
    if (value->type == JSON_UINT) {
        *ret = value->natural;
        return true;
    }
    if (value->type == JSON_INT && value->integer >= 0) {
        *ret = (uint64_t)value->integer;
        return true;
    }
    return false;
}

double json_get_double(const struct json_value *value)
{
    if (value->type == JSON_INT) {
        return (double)value->integer;
    }
    if (value->type == JSON_UINT) {
        return (double)value->natural;
    }
    g_assert(value->type == JSON_DOUBLE);
    return value->number;
}

const char *json_get_string(const struct json_value *value)
{
    g_assert(value->type == JSON_STRING);
    return value->string;
}

size_t json_list_length(const struct json_value *list)
{
    g_assert(list->type == JSON_LIST);
    return list->list->len;
}

const struct json_value *json_list_get(const struct json_value *list,
                                       size_t index)
{
    g_assert(index < json_list_length(list));
    return list->list->pdata[index];
}

void json_list_append(struct json_value *list, struct json_value *item)
{
    g_assert(list->type == JSON_LIST && item != NULL);
    g_ptr_array_add(list->list, item);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(a, b);
}

static struct json_entry *dict_find(const struct json_value *value,
                                    const char *key)
{
    g_assert(value->type == JSON_DICT);

    const struct json_dict *dict = value->dict;

    if (dict->index != NULL) {
        return g_tree_lookup(dict->index, key);
    }
    for (guint i = 0; i < dict->entries->len; i++) {
        struct json_entry *entry = dict->entries->pdata[i];

        if (strcmp(entry->key, key) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void dict_build_index(struct json_dict *dict)
{
    dict->index = g_tree_new(compare_keys);
    for (guint i = 0; i < dict->entries->len; i++) {
        struct json_entry *entry = dict->entries->pdata[i];

        g_tree_insert(dict->index, entry->key, entry);
    }
}

void json_dict_set(struct json_value *dict,
                   const char *key,
                   struct json_value *value)
{
    g_assert(value != NULL);

    struct json_entry *entry = dict_find(dict, key);

    if (entry != NULL) {
        json_free(entry->value);
        entry->value = value;
        return;
    }

    size_t key_bytes = strlen(key) + 1;

    entry = g_malloc(sizeof(*entry) + key_bytes);
    entry->position = dict->dict->entries->len;
    entry->value = value;
    memcpy(entry->key, key, key_bytes);
    g_ptr_array_add(dict->dict->entries, entry);
    if (dict->dict->index != NULL) {
        g_tree_insert(dict->dict->index, entry->key, entry);
    } else if (dict->dict->entries->len > DICT_LINEAR_MAX) {
        dict_build_index(dict->dict);
    }
}

void json_dict_remove(struct json_value *dict, const char *key)
{
    struct json_entry *entry = dict_find(dict, key);

    if (entry == NULL) {
        return;
    }

    GPtrArray *entries = dict->dict->entries;

    if (dict->dict->index != NULL) {
        g_tree_remove(dict->dict->index, entry->key);
    }
    g_ptr_array_remove_index(entries, (guint)entry->position);
    for (guint i = (guint)entry->position; i < entries->len; i++) {
        struct json_entry *later = entries->pdata[i];

        later->position = i;
    }
    json_free(entry->value);
    g_free(entry);
}

const struct json_value *json_dict_get(const struct json_value *dict,
                                       const char *key)
{
    const struct json_entry *entry = dict_find(dict, key);

    return entry != NULL ? entry->value : NULL;
}

struct json_value *json_dict_get_mutable(struct json_value *dict,
                                         const char *key)
{
    struct json_entry *entry = dict_find(dict, key);

    return entry != NULL ? entry->value : NULL;
}

size_t json_dict_length(const struct json_value *dict)
{
    g_assert(dict->type == JSON_DICT);
    return dict->dict->entries->len;
}

const struct json_value *json_dict_entry(const struct json_value *dict,
                                         size_t index,
                                         const char **ret_key)
{
    g_assert(index < json_dict_length(dict));

    const struct json_entry *entry = dict->dict->entries->pdata[index];

    *ret_key = entry->key;
    return entry->value;
}
