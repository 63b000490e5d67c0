/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Parsing dotted key=value text.
 *
 * Each part is split into key and value, and the key is walked from the root
 * dict, making dicts on the way. At the end the dicts whose keys are all
 * numbers become lists; only then is it known that no number is missing.
 */
#include "base/keyval.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

/* As much of a part as an error repeats. */
#define SHOWN_BYTES_MAX 80

static bool is_name_character(char c)
{
    return g_ascii_isalnum(c) || c == '-' || c == '_';
}

/* Length of the piece of a key at `key`, 0 if it is ill-formed. */
static size_t piece_length(const char *key, bool first)
{
    size_t length = 0;

    if (g_ascii_isdigit(key[0])) {
        while (g_ascii_isdigit(key[length])) {
            length++;
        }
        return first ? 0 : length;
    }
    if (g_str_has_prefix(key, "__")) {
        length = 2;
        while (g_ascii_isalnum(key[length]) || key[length] == '.' ||
               key[length] == '-') {
            length++;
        }
        if (length == 2 || key[length] != '_') {
            return 0;
        }
        length++;
    }
    if (!g_ascii_isalpha(key[length])) {
        return 0;
    }
    while (is_name_character(key[length])) {
        length++;
    }
    return length;
}

static bool is_index(const char *key)
{
    return g_ascii_isdigit(key[0]);
}

/* "00" and "0" are the same index. */
static const char *without_leading_zeros(const char *piece)
{
    while (piece[0] == '0' && g_ascii_isdigit(piece[1])) {
        piece++;
    }
    return piece;
}

static int refuse_key(const char *key, GError **err)
{
    if (key[0] == '\0') {
        return error_set(err, -EINVAL,
                         "there is an option without a name: a comma that "
                         "belongs to a value must be doubled");
    }
    return error_set(err, -EINVAL,
                     "'%.*s' is no option name: it needs a letter, then "
                     "letters, digits, '-' or '_', with dots between pieces",
                     SHOWN_BYTES_MAX, key);
}

static int refuse_mix(const char *key, GError **err)
{
    return error_set(err, -EINVAL,
                     "'%s' contradicts an option before it: one of them gives "
                     "a value where the other goes into it",
                     key);
}

/* Puts `value` at `key` below `root`. */
static int insert(struct json_value *root,
                  const char *key,
                  const char *value,
                  GError **err)
{
    struct json_value *dict = root;
    const char *rest = key;

    for (;;) {
        size_t length = piece_length(rest, rest == key);

        if (length == 0 || (rest[length] != '.' && rest[length] != '\0')) {
            return refuse_key(key, err);
        }

        g_autofree char *piece = g_strndup(rest, length);
        const char *name = without_leading_zeros(piece);
        struct json_value *child = json_dict_get_mutable(dict, name);
        bool last = rest[length] == '\0';

        if (child != NULL && (json_type_of(child) == JSON_DICT) == last) {
            return refuse_mix(key, err);
        }
        if (last) {
            json_dict_set_string(dict, name, value);
            return 0;
        }
        if (child == NULL) {
            child = json_dict_new();
            json_dict_set(dict, name, child);
        }
        dict = child;
        rest += length + 1;
    }
}

/* Takes the value at `*text`, up to a single comma, which is taken too. */
static char *take_value(const char **text)
{
    GString *value = g_string_new(NULL);

    for (;;) {
        size_t plain = strcspn(*text, ",");

        g_string_append_len(value, *text, (gssize)plain);
        *text += plain;
        if (**text == '\0') {
            break;
        }
        (*text)++;
        if (**text != ',') {
            break;
        }
        g_string_append_c(value, ',');
        (*text)++;
    }
    return g_string_free(value, FALSE);
}

/* Takes one part: "key=value", "flag", or, first, the implied key's value. */
static int take_part(struct json_value *root,
                     const char **text,
                     const char *implied_key,
                     GError **err)
{
    size_t key_bytes = strcspn(*text, "=,");
    bool has_value = (*text)[key_bytes] == '=';
    g_autofree char *key = NULL;
    g_autofree char *value = NULL;

    if (!has_value && implied_key != NULL && key_bytes > 0) {
        value = take_value(text);
        return insert(root, implied_key, value, err);
    }
    if (key_bytes > KEYVAL_KEY_BYTES_MAX) {
        return error_set(err, -EINVAL,
                         "the option name '%.*s...' is longer than %d bytes",
                         SHOWN_BYTES_MAX, *text, KEYVAL_KEY_BYTES_MAX);
    }
    key = g_strndup(*text, key_bytes);
    *text += key_bytes;
    if (has_value) {
        (*text)++;
        value = take_value(text);
    } else if (**text == ',') {
        (*text)++;
    }
    return insert(root, key, has_value ? value : "on", err);
}

static struct json_value *with_lists(const struct json_value *value,
                                     const char *path,
                                     GError **err);

/* The dict's values in the order of their numbers. */
static struct json_value *list_of(const struct json_value *dict,
                                  const char *path,
                                  GError **err)
{
    g_autoptr(json_value) list = json_list_new();

    for (size_t i = 0; i < json_dict_length(dict); i++) {
        g_autofree char *key = g_strdup_printf("%" G_GSIZE_FORMAT, i);
        g_autofree char *item_path = g_strconcat(path, ".", key, NULL);
        const struct json_value *item = json_dict_get(dict, key);

        if (item == NULL) {
            error_set(err, -EINVAL,
                      "'%s' is missing: lists count 0, 1, 2... without a gap",
                      item_path);
            return NULL;
        }

        struct json_value *converted = with_lists(item, item_path, err);

        if (converted == NULL) {
            return NULL;
        }
        json_list_append(list, converted);
    }
    return g_steal_pointer(&list);
}

static struct json_value *dict_of(const struct json_value *dict,
                                  const char *path,
                                  GError **err)
{
    g_autoptr(json_value) copy = json_dict_new();

    for (size_t i = 0; i < json_dict_length(dict); i++) {
        const char *key;
        const struct json_value *item = json_dict_entry(dict, i, &key);
        g_autofree char *item_path =
            path[0] != '\0' ? g_strconcat(path, ".", key, NULL) : g_strdup(key);
        struct json_value *converted = with_lists(item, item_path, err);

        if (converted == NULL) {
            return NULL;
        }
        json_dict_set(copy, key, converted);
    }
    return g_steal_pointer(&copy);
}

/* A copy of the tree in which dicts of numbers are lists. Recursion is bounded
 * by the length of a key. */
static struct json_value *with_lists(const struct json_value *value,
                                     const char *path,
                                     GError **err)
{
    size_t indices = 0;

    if (json_type_of(value) != JSON_DICT) {
        return json_copy(value);
    }
    for (size_t i = 0; i < json_dict_length(value); i++) {
        const char *key;

        (void)json_dict_entry(value, i, &key); /* only the name matters */
        indices += is_index(key);
    }
    if (indices == 0) {
        return dict_of(value, path, err);
    }
    if (indices < json_dict_length(value)) {
        error_set(err, -EINVAL,
                  "'%s' is given both numbered (as a list) and named (as an "
                  "object) options",
                  path);
        return NULL;
    }
    return list_of(value, path, err);
}

struct json_value *keyval_parse(const char *text,
                                const char *implied_key,
                                GError **err)
{
    g_autoptr(json_value) root = json_dict_new();

    while (*text != '\0') {
        if (take_part(root, &text, implied_key, err) < 0) {
            return NULL;
        }
        implied_key = NULL; /* it can only be first */
    }
    return with_lists(root, "", err);
}
