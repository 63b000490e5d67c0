/* SPDX-License-Identifier: BSD-3-Clause */
/* query-qmp-schema over a small table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_commands.h"
#include "qmp/introspect.h"

static const struct json_value *entry_of(const struct json_value *schema,
                                         const char *name)
{
    const struct json_value *found = NULL;

    for (size_t i = 0; i < json_list_length(schema); i++) {
        const struct json_value *entry = json_list_get(schema, i);

        if (g_str_equal(json_dict_string(entry, "name", ""), name)) {
            assert_null(found); /* names are unique */
            found = entry;
        }
    }
    if (found == NULL) {
        print_error("no entry \"%s\"\n", name);
    }
    assert_non_null(found);
    return found;
}

static void expect_meta(const struct json_value *schema,
                        const char *name,
                        const char *meta_type)
{
    assert_string_equal(
        json_dict_string(entry_of(schema, name), "meta-type", ""), meta_type);
}

static void every_command_and_event_is_listed(void **state)
{
    g_autoptr(json_value) schema = qmp_introspect(fake_tables, fake_events);

    (void)state;
    expect_meta(schema, "qmp_capabilities", "command");
    expect_meta(schema, "nothing", "command");
    expect_meta(schema, "echo", "command");
    expect_meta(schema, "fail", "command");
    expect_meta(schema, "old", "command");
    expect_meta(schema, "HAPPENED", "event");
    expect_meta(schema, "DONE", "event");
}

static void nothing_is_an_object_without_members(void **state)
{
    g_autoptr(json_value) schema = qmp_introspect(fake_tables, fake_events);
    const struct json_value *command = entry_of(schema, "nothing");
    const struct json_value *empty =
        entry_of(schema, json_dict_string(command, "arg-type", ""));

    (void)state;
    assert_string_equal(json_dict_string(empty, "meta-type", ""), "object");
    assert_int_equal(json_list_length(json_dict_get(empty, "members")), 0);
    assert_string_equal(json_dict_string(command, "ret-type", ""),
                        json_dict_string(command, "arg-type", "x"));
}

static void members_lead_to_their_types(void **state)
{
    g_autoptr(json_value) schema = qmp_introspect(fake_tables, fake_events);
    const struct json_value *object = entry_of(
        schema, json_dict_string(entry_of(schema, "echo"), "arg-type", ""));
    const struct json_value *members = json_dict_get(object, "members");
    const struct json_value *number = json_list_get(members, 0);
    const struct json_value *color = json_list_get(members, 1);
    const struct json_value *words = json_list_get(members, 2);
    const struct json_value *array;

    (void)state;
    assert_string_equal(json_dict_string(number, "type", ""), "int");
    expect_meta(schema, "int", "builtin");
    expect_meta(schema, json_dict_string(color, "type", ""), "enum");
    array = entry_of(schema, json_dict_string(words, "type", ""));
    assert_string_equal(json_dict_string(array, "meta-type", ""), "array");
    assert_string_equal(json_dict_string(array, "element-type", ""), "str");
    assert_string_equal(
        json_dict_string(entry_of(schema, "str"), "json-type", ""), "string");
}

static void just_optional_members_have_a_default(void **state)
{
    g_autoptr(json_value) schema = qmp_introspect(fake_tables, fake_events);
    const struct json_value *object = entry_of(
        schema, json_dict_string(entry_of(schema, "echo"), "arg-type", ""));
    const struct json_value *members = json_dict_get(object, "members");

    (void)state;
    assert_null(json_dict_get(json_list_get(members, 0), "default"));
    assert_int_equal(
        json_type_of(json_dict_get(json_list_get(members, 1), "default")),
        JSON_NULL);
}

static void an_enumeration_lists_its_values_in_both_forms(void **state)
{
    g_autoptr(json_value) schema = qmp_introspect(fake_tables, fake_events);
    const struct json_value *color = entry_of(schema, "Color");
    const struct json_value *values = json_dict_get(color, "values");
    const struct json_value *members = json_dict_get(color, "members");

    (void)state;
    assert_int_equal(json_list_length(values), 2);
    assert_string_equal(json_get_string(json_list_get(values, 1)), "green");
    assert_string_equal(json_dict_string(json_list_get(members, 1), "name", ""),
                        "green");
}

static void features_are_told(void **state)
{
    g_autoptr(json_value) schema = qmp_introspect(fake_tables, fake_events);
    const struct json_value *features =
        json_dict_get(entry_of(schema, "old"), "features");

    (void)state;
    assert_string_equal(json_get_string(json_list_get(features, 0)),
                        "deprecated");
    assert_null(json_dict_get(entry_of(schema, "echo"), "features"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_and_event_is_listed),
        cmocka_unit_test(nothing_is_an_object_without_members),
        cmocka_unit_test(members_lead_to_their_types),
        cmocka_unit_test(just_optional_members_have_a_default),
        cmocka_unit_test(an_enumeration_lists_its_values_in_both_forms),
        cmocka_unit_test(features_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
