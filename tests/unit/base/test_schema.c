/* SPDX-License-Identifier: BSD-3-Clause */
/* schema_check() takes what fits a type wholly, and says what does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_reader.h"
#include "base/schema.h"

#include "sample_schema.h"

static void expect_taken(const struct schema_type *type, const char *json)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) value = json_read_text(json, &err);

    assert_non_null(value);
    if (schema_check(type, value, "arguments", &err) < 0) {
        fail_msg("%s: %s", json, err->message);
    }
}

static void expect_refused(const struct schema_type *type,
                           const char *json,
                           const char *sentence)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) value = json_read_text(json, &err);

    assert_non_null(value);
    assert_int_equal(schema_check(type, value, "arguments", &err), -EINVAL);
    assert_non_null(err);
    assert_string_equal(err->message, sentence);
    assert_int_equal(schema_check(type, value, "arguments", NULL), -EINVAL);
}

static void scalars_are_held_to_their_type(void **state)
{
    (void)state;
    expect_taken(&schema_any, "{'a': [null]}");
    expect_taken(&schema_null, "null");
    expect_taken(&schema_string, "''");
    expect_taken(&schema_bool, "true");
    expect_taken(&schema_string_list, "['a', 'b']");
    expect_taken(&schema_string_list, "[]");
    expect_refused(&schema_null, "0", "'arguments' must be null, not 0");
    expect_refused(&schema_string, "null",
                   "'arguments' must be a string, not null");
    expect_refused(&schema_bool, "'on'",
                   "'arguments' must be true or false, not a string");
    expect_refused(&schema_string_list, "['a', 5]",
                   "'arguments.1' must be a string, not 5");
}

static void integers_are_held_to_their_range(void **state)
{
    (void)state;
    expect_taken(&schema_int, "-9223372036854775808");
    expect_taken(&schema_int, "9223372036854775807");
    expect_taken(&schema_size, "18446744073709551615");
    expect_taken(&schema_uint32, "4294967295");
    expect_refused(&schema_int, "9223372036854775808",
                   "'arguments' must be an integer of 64 bits, not an integer "
                   "above 2^63-1");
    expect_refused(&schema_size, "-1",
                   "'arguments' must be an integer from 0 to 2^64-1, not -1");
    expect_refused(&schema_uint32, "4294967296",
                   "'arguments' must be an integer from 0 to 4294967295, not "
                   "4294967296");
    expect_refused(&schema_size, "1.0",
                   "'arguments' must be an integer from 0 to 2^64-1, not a "
                   "number with a fraction or exponent");
}

static void a_string_with_a_nul_is_refused(void **state)
{
    (void)state;
    expect_refused(&schema_string, "'a\\u0000b'",
                   "'arguments' contains a NUL character (\\u0000)");
    expect_taken(&schema_any, "'a\\u0000b'");
}

static void an_enum_lists_its_values(void **state)
{
    (void)state;
    expect_refused(&sample_options, "{'driver': 'rwa'}",
                   "'arguments.driver' cannot be 'rwa'; it takes one of: raw, "
                   "null-co, file, blkdebug");
    expect_refused(&sample_options, "{'driver': 'nul-co'}",
                   "'arguments.driver' cannot be 'nul-co'; did you mean "
                   "'null-co'? It takes one of: raw, null-co, file, blkdebug");
}

static void an_unknown_member_is_refused_with_its_path(void **state)
{
    (void)state;
    expect_refused(&sample_options,
                   "{'driver': 'raw', 'file': {'driver': 'file', "
                   "'filname': 'x'}}",
                   "'arguments.file.filname' is not known here with driver "
                   "'file'; did you mean 'filename'?");
    expect_refused(&sample_options, "{'driver': 'null-co', 'quux': 1}",
                   "'arguments.quux' is not known here with driver 'null-co'");
    expect_refused(&sample_options, "{'driver': 'file', 'size': 1}",
                   "'arguments.size' is not known here with driver 'file'");
}

static void a_missing_member_is_refused(void **state)
{
    (void)state;
    expect_refused(&sample_options, "{'driver': 'raw'}",
                   "'arguments.file' is missing");
    expect_refused(&sample_options,
                   "{'driver': 'blkdebug', 'image': 'x', 'inject-error': "
                   "[{'event': 'read_aio'}, {}]}",
                   "'arguments.inject-error.1.event' is missing");
}

static void the_tag_is_looked_at_first(void **state)
{
    (void)state;
    expect_refused(&sample_options, "{'quux': 1}",
                   "'arguments.driver' is missing");
    expect_refused(&sample_options, "{'quux': 1, 'drivr': 'raw'}",
                   "'arguments.driver' is missing; is 'drivr' meant for it?");
    expect_refused(&sample_options, "{'driver': 5}",
                   "'arguments.driver' must be a string, not 5");
}

static void an_absent_tag_takes_its_fallback(void **state)
{
    (void)state;
    expect_taken(&sample_address, "{'path': '/x'}");
    expect_taken(&sample_address, "{'type': 'unix', 'path': '/x'}");
    expect_refused(&sample_address, "{}", "'arguments.path' is missing");
}

static void a_tag_value_without_a_branch_adds_nothing(void **state)
{
    (void)state;
    expect_taken(&sample_address, "{'type': 'inet'}");
    expect_refused(&sample_address, "{'type': 'inet', 'path': '/x'}",
                   "'arguments.path' is not known here with type 'inet'");
}

static void an_alternate_goes_by_json_type(void **state)
{
    (void)state;
    expect_taken(&sample_options, "{'driver': 'raw', 'file': 'x'}");
    expect_taken(&sample_options, "{'driver': 'raw', 'file': null}");
    expect_taken(&sample_options,
                 "{'driver': 'raw', 'file': {'driver': 'null-co'}}");
    expect_refused(&sample_options, "{'driver': 'raw', 'file': 1}",
                   "'arguments.file' must be a string or an object or null, "
                   "not 1");
    expect_refused(&sample_options, "{'driver': 'raw', 'file': {}}",
                   "'arguments.file.driver' is missing");
}

static char *nested_raw(int depth)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < depth; i++) {
        g_string_append(text, "{'driver':'raw','file':");
    }
    g_string_append(text, "'x'");
    for (int i = 0; i < depth; i++) {
        g_string_append(text, "}");
    }
    return g_string_free(text, FALSE);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    g_autofree char *most = nested_raw(SCHEMA_NESTING_MAX);
    g_autofree char *over = nested_raw(SCHEMA_NESTING_MAX + 1);
    g_autoptr(json_value) value = json_read_text(over, NULL);
    g_autoptr(GError) err = NULL;

    expect_taken(&sample_options, most);
    assert_int_equal(schema_check(&sample_options, value, NULL, &err), -EINVAL);
    assert_non_null(strstr(err->message, "nests deeper than 32 levels"));
}

static void a_long_name_is_cut_in_the_sentence(void **state)
{
    (void)state;
    g_autoptr(json_value) dict = json_dict_new();
    g_autoptr(GString) key = g_string_new(NULL);
    g_autoptr(GError) err = NULL;

    while (key->len < 100000) {
        g_string_append(key, "\xc3\xa9");
    }
    json_dict_set_string(dict, "driver", "raw");
    json_dict_set_bool(dict, key->str, true);
    assert_int_equal(schema_check(&sample_options, dict, "arguments", &err),
                     -EINVAL);
    assert_true(strlen(err->message) < 300);
    assert_true(g_utf8_validate(err->message, -1, NULL));
}

static void without_a_path_the_members_stand_alone(void **state)
{
    (void)state;
    g_autoptr(json_value) value = json_read_text("{'driver': 'raw'}", NULL);
    g_autoptr(json_value) number = json_int_new(1);
    g_autoptr(GError) err = NULL;

    assert_int_equal(schema_check(&sample_options, value, NULL, &err), -EINVAL);
    assert_string_equal(err->message, "'file' is missing");
    g_clear_error(&err);
    assert_int_equal(schema_check(&sample_options, number, NULL, &err),
                     -EINVAL);
    assert_string_equal(err->message, "the value must be an object, not 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_are_held_to_their_type),
        cmocka_unit_test(integers_are_held_to_their_range),
        cmocka_unit_test(a_string_with_a_nul_is_refused),
        cmocka_unit_test(an_enum_lists_its_values),
        cmocka_unit_test(an_unknown_member_is_refused_with_its_path),
        cmocka_unit_test(a_missing_member_is_refused),
        cmocka_unit_test(the_tag_is_looked_at_first),
        cmocka_unit_test(an_absent_tag_takes_its_fallback),
        cmocka_unit_test(a_tag_value_without_a_branch_adds_nothing),
        cmocka_unit_test(an_alternate_goes_by_json_type),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(a_long_name_is_cut_in_the_sentence),
        cmocka_unit_test(without_a_path_the_members_stand_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
