/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The JSON reader, fed with anything. Promises:
 * - however the bytes are split, values and errors are the same;
 * - a value that was read is written as ASCII and reads back equal;
 * - after the byte FF and the end of a line, the next value is read.
 */
#include <glib.h>

#include "base/json_reader.h"

#include "target.h"

static void check_value(const struct json_value *value, GString *out)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GString) pretty = g_string_new(NULL);
    g_autoptr(json_value) copy = json_copy(value);

    json_write(value, false, text);
    json_write(copy, true, pretty);
    for (gsize i = 0; i < text->len; i++) {
        g_assert(g_ascii_isprint(text->str[i]));
    }

    g_autoptr(json_value) back = json_read_text(text->str, NULL);
    g_autoptr(json_value) pretty_back = json_read_text(pretty->str, NULL);

    g_assert(back != NULL && json_equal(value, back));
    g_assert(pretty_back != NULL && json_equal(value, pretty_back));
    g_string_append(out, text->str);
}

static void feed(struct json_reader *reader,
                 const char *bytes,
                 size_t length,
                 GString *out)
{
    enum json_reader_result result;

    do {
        g_autoptr(json_value) value = NULL;
        g_autoptr(GError) err = NULL;

        result = json_reader_next(reader, &bytes, &length, &value, &err);
        g_assert((result == JSON_READER_VALUE) == (value != NULL));
        g_assert((result == JSON_READER_ERROR) == (err != NULL));
        if (value != NULL) {
            check_value(value, out);
        }
        if (err != NULL) {
            g_assert(g_utf8_validate(err->message, -1, NULL));
            g_string_append_c(out, '!');
        }
        g_string_append_c(out, result == JSON_READER_MORE ? ' ' : '\n');
    } while (result != JSON_READER_MORE);
    g_string_truncate(out, out->len - 1);
    g_assert(length == 0);
}

static void check_resynchronises(struct json_reader *reader)
{
    g_autoptr(GString) out = g_string_new(NULL);

    feed(reader, "\xff\n", 2, out);
    g_string_truncate(out, 0);
    feed(reader, "{'a': 1}", 8, out);
    g_assert_cmpstr(out->str, ==, "{\"a\": 1}\n");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(json_reader) whole = json_reader_new();
    g_autoptr(json_reader) split = json_reader_new();
    g_autoptr(GString) out = g_string_new(NULL);
    g_autoptr(GString) out_split = g_string_new(NULL);
    const char *bytes = (const char *)data;

    feed(whole, bytes, size, out);
    for (size_t done = 0; done < size;) {
        size_t length = MIN((size_t)1 + data[done] % 3, size - done);

        feed(split, bytes + done, length, out_split);
        done += length;
    }
    g_assert_cmpstr(out->str, ==, out_split->str);
    check_resynchronises(whole);
    return 0;
}
