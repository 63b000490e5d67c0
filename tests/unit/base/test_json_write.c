/* SPDX-License-Identifier: BSD-3-Clause */
/* The JSON writer: one line of ASCII that reads back as the same value. */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static void expect_text(struct json_value *value, const char *expected)
{
    g_autoptr(GString) text = g_string_new(NULL);

    json_write(value, false, text);
    assert_string_equal(text->str, expected);
    json_free(value);
}

static void expect_escaped(const char *string, const char *expected)
{
    expect_text(json_string_new(string), expected);
}

static void scalars_are_written_exactly(void **state)
{
    (void)state;
    expect_text(json_null_new(), "null");
    expect_text(json_bool_new(true), "true");
    expect_text(json_bool_new(false), "false");
    expect_text(json_int_new(INT64_MIN), "-9223372036854775808");
    expect_text(json_uint_new(UINT64_MAX), "18446744073709551615");
}

static void doubles_take_as_few_digits_as_they_need(void **state)
{
    (void)state;
    expect_text(json_double_new(0.1), "0.1");
    expect_text(json_double_new(1.0), "1.0"); /* still a double when read */
    expect_text(json_double_new(-0.0), "-0.0");
    expect_text(json_double_new(1e300), "1e+300");
    expect_text(json_double_new(0.1 + 0.2), "0.30000000000000004");
    expect_text(json_double_new(DBL_MAX), "1.7976931348623157e+308");
    expect_text(json_double_new(5e-324), "4.94065645841247e-324");
}

static void strings_come_out_in_ascii(void **state)
{
    (void)state;
    expect_escaped("", "\"\"");
    expect_escaped("a'b/c", "\"a'b/c\"");
    expect_escaped("\"\\\b\f\n\r\t", "\"\\\"\\\\\\b\\f\\n\\r\\t\"");
    expect_escaped("\x01\x7f", "\"\\u0001\\u007f\"");
    expect_escaped("\xc3\xa9", "\"\\u00e9\"");
    expect_escaped("\xf0\x9f\x98\x80", "\"\\ud83d\\ude00\"");
    expect_escaped("\xf4\x8f\xbf\xbf", "\"\\udbff\\udfff\"");
}

static void bytes_that_are_no_utf8_become_the_replacement_character(
    void **state)
{
    (void)state;
    expect_escaped("a\xff", "\"a\\ufffd\"");
    expect_escaped("\xc3", "\"\\ufffd\"");
    expect_escaped("\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"");
}

static void a_kept_nul_is_written_as_one(void **state)
{
    (void)state;
    expect_escaped("a\xc0\x80z", "\"a\\u0000z\"");
}

static struct json_value *sample(void)
{
    struct json_value *dict = json_dict_new();
    struct json_value *list = json_list_new();

    json_list_append(list, json_int_new(1));
    json_list_append(list, json_list_new());
    json_dict_set(dict, "a", list);
    json_dict_set(dict, "b\n", json_dict_new());
    return dict;
}

static void containers_are_one_line(void **state)
{
    (void)state;
    expect_text(sample(), "{\"a\": [1, []], \"b\\n\": {}}");
}

static void pretty_breaks_lines_and_indents_by_four(void **state)
{
    (void)state;
    g_autoptr(json_value) value = sample();
    g_autoptr(GString) text = g_string_new("> ");

    json_write(value, true, text);
    assert_string_equal(text->str, "> {\n"
                                   "    \"a\": [\n"
                                   "        1,\n"
                                   "        []\n"
                                   "    ],\n"
                                   "    \"b\\n\": {}\n"
                                   "}");
}

static void deep_values_do_not_grow_when_pretty(void **state)
{
    (void)state;
    const size_t depth = 1000;
    g_autoptr(json_value) value = json_list_new();
    g_autoptr(GString) text = g_string_new(NULL);

    for (size_t i = 1; i < depth; i++) {
        struct json_value *outer = json_list_new();

        json_list_append(outer, value);
        value = outer;
    }
    json_write(value, true, text);
    assert_true(text->len < depth * 2 * 66);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_are_written_exactly),
        cmocka_unit_test(doubles_take_as_few_digits_as_they_need),
        cmocka_unit_test(strings_come_out_in_ascii),
        cmocka_unit_test(
            bytes_that_are_no_utf8_become_the_replacement_character),
        cmocka_unit_test(a_kept_nul_is_written_as_one),
        cmocka_unit_test(containers_are_one_line),
        cmocka_unit_test(pretty_breaks_lines_and_indents_by_four),
        cmocka_unit_test(deep_values_do_not_grow_when_pretty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
