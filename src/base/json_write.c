/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The JSON writer: a walk over the tree with an explicit path, since values
 * may nest deeper than a coroutine's stack would bear.
 *
 * Whatever a string holds, the output is valid JSON in ASCII: bytes that are
 * no UTF-8 (file names may have them) are written as U+FFFD.
 */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"

/* Levels that the pretty form indents: a deep value with many members would
 * otherwise come out a thousand times as large as it came in. */
#define INDENT_LEVELS_MAX 16

/* A container being written, and its next child. */
struct frame {
    const struct json_value *container;
    size_t next;
};

static void write_unicode(gunichar c, GString *out)
{
    if (c > 0xffff) {
        c -= 0x10000;
        g_string_append_printf(out, "\\u%04x\\u%04x", 0xd800 + (c >> 10),
                               0xdc00 + (c & 0x3ff));
    } else {
        g_string_append_printf(out, "\\u%04x", c);
    }
}

static void write_ascii(char c, GString *out)
{
    static const char escaped[] = "\"\\\b\f\n\r\t";
    static const char letters[] = "\"\\bfnrt";
    const char *found = strchr(escaped, c);

    if (found != NULL) {
        g_string_append_c(out, '\\');
        g_string_append_c(out, letters[found - escaped]);
    } else if (g_ascii_isprint(c)) {
        g_string_append_c(out, c);
    } else {
        write_unicode((guchar)c, out);
    }
}

static void write_string(const char *text, GString *out)
{
    g_string_append_c(out, '"');
    while (*text != '\0') {
        if ((guchar)*text < 0x80) {
            write_ascii(*text++, out);
            continue;
        }

        gunichar c = g_utf8_get_char_validated(text, -1);

        if (g_str_has_prefix(text, "\xc0\x80")) {
            write_unicode(0, out); /* how a NUL is kept, see json.h */
            text += 2;
        } else if (c == (gunichar)-1 || c == (gunichar)-2) {
            write_unicode(0xfffd, out);
            text++;
        } else {
            write_unicode(c, out);
            text += g_unichar_to_utf8(c, NULL);
        }
    }
    g_string_append_c(out, '"');
}

/* The shortest text that reads back as the same double, and as a double. */
static void write_double(double value, GString *out)
{
    static const char *const formats[] = { "%.15g", "%.16g", "%.17g" };
    char text[G_ASCII_DTOSTR_BUF_SIZE];

    for (size_t i = 0; i < G_N_ELEMENTS(formats); i++) {
        g_ascii_formatd(text, sizeof(text), formats[i], value);

        double back = g_ascii_strtod(text, NULL);

        if (!(back < value || back > value)) {
            break;
        }
    }
    g_string_append(out, text);
    if (strpbrk(text, ".e") == NULL) {
        g_string_append(out, ".0");
    }
}

static void write_scalar(const struct json_value *value, GString *out)
{
    int64_t integer;
    uint64_t natural;

    switch (json_type_of(value)) {
    case JSON_NULL: g_string_append(out, "null"); break;
    case JSON_BOOL:
        g_string_append(out, json_get_bool(value) ? "true" : "false");
        break;
    case JSON_INT:
        (void)json_get_int(value, &integer); /* its type says that it fits */
        g_string_append_printf(out, "%" PRId64, integer);
        break;
    case JSON_UINT:
        (void)json_get_uint(value, &natural); /* as above */
        g_string_append_printf(out, "%" PRIu64, natural);
        break;
    case JSON_DOUBLE: write_double(json_get_double(value), out); break;
    case JSON_STRING: write_string(json_get_string(value), out); break;
    case JSON_LIST:
    case JSON_DICT:
    default: g_assert_not_reached();
    }
}

static bool is_list(const struct json_value *value)
{
    return json_type_of(value) == JSON_LIST;
}

static size_t child_count(const struct json_value *value)
{
    return is_list(value) ? json_list_length(value) : json_dict_length(value);
}

static void break_line(bool pretty, size_t depth, GString *out)
{
    if (pretty) {
        g_string_append_c(out, '\n');
        for (size_t i = 0; i < MIN(depth, INDENT_LEVELS_MAX); i++) {
            g_string_append(out, "    ");
        }
    }
}

/* Writes a scalar whole, of a container its opening, and puts it on `path`. */
static void write_begin(const struct json_value *value,
                        GArray *path,
                        GString *out)
{
    enum json_type type = json_type_of(value);

    if (type != JSON_LIST && type != JSON_DICT) {
        write_scalar(value, out);
    } else {
        struct frame frame = { value, 0 };

        g_string_append_c(out, is_list(value) ? '[' : '{');
        g_array_append_val(path, frame);
    }
}

/* Writes the next child of the innermost container, or ends that one. */
static void write_step(GArray *path, bool pretty, GString *out)
{
    struct frame *frame = &g_array_index(path, struct frame, path->len - 1);
    const struct json_value *container = frame->container;
    const struct json_value *child;
    const char *key;
    size_t index = frame->next++;

    if (index == child_count(container)) {
        g_array_set_size(path, path->len - 1);
        if (index > 0) {
            break_line(pretty, path->len, out);
        }
        g_string_append_c(out, is_list(container) ? ']' : '}');
        return;
    }
    if (index > 0) {
        g_string_append(out, pretty ? "," : ", ");
    }
    break_line(pretty, path->len, out);
    if (is_list(container)) {
        child = json_list_get(container, index);
    } else {
        child = json_dict_entry(container, index, &key);
        write_string(key, out);
        g_string_append(out, ": ");
    }
    write_begin(child, path, out);
}

void json_write(const struct json_value *value, bool pretty, GString *out)
{
    g_autoptr(GArray) path = g_array_new(FALSE, FALSE, sizeof(struct frame));

    write_begin(value, path, out);
    while (path->len > 0) {
        write_step(path, pretty, out);
    }
}
