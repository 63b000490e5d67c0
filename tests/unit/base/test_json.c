/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON values: exact numbers, ordered dicts of any size, deep trees. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"

static void integers_are_exact_over_both_ranges(void **state)
{
    (void)state;
    g_autoptr(json_value) lowest = json_int_new(INT64_MIN);
    g_autoptr(json_value) highest = json_uint_new(UINT64_MAX);
    g_autoptr(json_value) middle = json_uint_new(INT64_MAX);
    int64_t integer = 7;
    uint64_t natural = 7;

    assert_true(json_get_int(lowest, &integer));
    assert_true(integer == INT64_MIN);
    assert_true(json_get_uint(highest, &natural));
    assert_true(natural == UINT64_MAX);
    assert_int_equal(json_type_of(highest), JSON_UINT);
    assert_int_equal(json_type_of(middle), JSON_INT);
}

static void a_number_that_does_not_fit_leaves_the_result_alone(void **state)
{
    (void)state;
    g_autoptr(json_value) negative = json_int_new(-1);
    g_autoptr(json_value) large = json_uint_new(UINT64_MAX);
    g_autoptr(json_value) string = json_string_new("5");
    g_autoptr(json_value) fraction = json_double_new(5.0);
    int64_t integer = 7;
    uint64_t natural = 7;

    assert_false(json_get_uint(negative, &natural));
    assert_false(json_get_int(large, &integer));
    assert_false(json_get_int(string, &integer));
    assert_false(json_get_uint(fraction, &natural));
    assert_int_equal(integer, 7);
    assert_int_equal(natural, 7);
}

static void any_number_is_a_double(void **state)
{
    (void)state;
    g_autoptr(json_value) small = json_int_new(-3);
    g_autoptr(json_value) large = json_uint_new(UINT64_C(1) << 63);
    g_autoptr(json_value) fraction = json_double_new(0.5);

    assert_true(json_get_double(small) < -2.9);
    assert_true(json_get_double(large) > 9.2e18);
    assert_true(json_get_double(fraction) > 0.4);
}

static void a_dict_keeps_the_order_of_insertion(void **state)
{
    (void)state;
    g_autoptr(json_value) dict = json_dict_new();
    const char *key;

    json_dict_set_int(dict, "z", 1);
    json_dict_set_int(dict, "a", 2);
    json_dict_set_int(dict, "z", 3); /* replaces, in its place */
    assert_int_equal(json_dict_length(dict), 2);
    assert_int_equal(json_dict_int(dict, "z", 0), 3);
    (void)json_dict_entry(dict, 0, &key);
    assert_string_equal(key, "z");
    (void)json_dict_entry(dict, 1, &key);
    assert_string_equal(key, "a");
}

static void a_removed_member_is_gone_and_the_rest_stays(void **state)
{
    (void)state;
    g_autoptr(json_value) dict = json_dict_new();

    for (int i = 0; i < 40; i++) {
        g_autofree char *key = g_strdup_printf("%d", i);

        json_dict_set_int(dict, key, i);
    }
    for (int i = 0; i < 40; i += 2) {
        g_autofree char *key = g_strdup_printf("%d", i);

        json_dict_remove(dict, key);
        json_dict_remove(dict, key); /* absent: nothing happens */
    }
    assert_int_equal(json_dict_length(dict), 20);
    for (int i = 0; i < 40; i++) {
        g_autofree char *key = g_strdup_printf("%d", i);

        assert_int_equal(json_dict_int(dict, key, -1), i % 2 == 0 ? -1 : i);
    }
    for (size_t i = 0; i < 20; i++) {
        const char *key;
        int64_t value;

        assert_true(json_get_int(json_dict_entry(dict, i, &key), &value));
        assert_int_equal(value, 2 * i + 1);
    }
}

static void a_large_dict_finds_every_member(void **state)
{
    (void)state;
    g_autoptr(json_value) dict = json_dict_new();
    const int members = 100000; /* linear search would take minutes */

    for (int i = 0; i < members; i++) {
        g_autofree char *key = g_strdup_printf("member-%d", i);

        json_dict_set_int(dict, key, i);
    }
    for (int i = 0; i < members; i++) {
        g_autofree char *key = g_strdup_printf("member-%d", i);

        assert_int_equal(json_dict_int(dict, key, -1), i);
    }
    assert_null(json_dict_get(dict, "member-x"));
}

static void a_member_can_be_changed_in_place(void **state)
{
    (void)state;
    g_autoptr(json_value) dict = json_dict_new();

    json_dict_set(dict, "list", json_list_new());
    json_list_append(json_dict_get_mutable(dict, "list"), json_null_new());
    assert_int_equal(json_list_length(json_dict_get(dict, "list")), 1);
    assert_null(json_dict_get_mutable(dict, "other"));
}

static void absent_and_null_members_read_as_the_default(void **state)
{
    (void)state;
    g_autoptr(json_value) dict = json_dict_new();

    json_dict_set(dict, "null", json_null_new());
    json_dict_set_string(dict, "string", "text");
    json_dict_set_uint(dict, "uint", UINT64_MAX);
    json_dict_set_bool(dict, "bool", true);
    assert_string_equal(json_dict_string(dict, "absent", "else"), "else");
    assert_string_equal(json_dict_string(dict, "null", "else"), "else");
    assert_string_equal(json_dict_string(dict, "string", "else"), "text");
    assert_int_equal(json_dict_int(dict, "null", -5), -5);
    assert_int_equal(json_dict_uint(dict, "absent", 5), 5);
    assert_true(json_dict_uint(dict, "uint", 5) == UINT64_MAX);
    assert_true(json_dict_bool(dict, "absent", true));
    assert_true(json_dict_bool(dict, "bool", false));
}

static struct json_value *sample_tree(void)
{
    struct json_value *dict = json_dict_new();
    struct json_value *list = json_list_new();

    json_list_append(list, json_null_new());
    json_list_append(list, json_uint_new(UINT64_MAX));
    json_list_append(list, json_double_new(0.25));
    json_list_append(list, json_dict_new());
    json_dict_set(dict, "list", list);
    json_dict_set_string(dict, "string", "text");
    json_dict_set_bool(dict, "bool", false);
    return dict;
}

static void a_copy_is_equal_and_independent(void **state)
{
    (void)state;
    g_autoptr(json_value) tree = sample_tree();
    g_autoptr(json_value) copy = json_copy(tree);

    assert_true(json_equal(tree, copy));
    json_list_append(json_dict_get_mutable(copy, "list"), json_null_new());
    assert_false(json_equal(tree, copy));
    assert_int_equal(json_list_length(json_dict_get(tree, "list")), 4);
}

static void equality_ignores_the_order_of_members_only(void **state)
{
    (void)state;
    g_autoptr(json_value) a = json_dict_new();
    g_autoptr(json_value) b = json_dict_new();
    g_autoptr(json_value) c = json_dict_new();

    json_dict_set_int(a, "x", 1);
    json_dict_set_bool(a, "y", true);
    json_dict_set_bool(b, "y", true);
    json_dict_set_int(b, "x", 1);
    json_dict_set_int(c, "x", 1);
    json_dict_set_bool(c, "z", true);
    assert_true(json_equal(a, b));
    assert_false(json_equal(a, c));
    json_dict_set_string(b, "x", "1");
    assert_false(json_equal(a, b));
}

static struct json_value *nested_lists(int depth)
{
    struct json_value *value = json_list_new();

    for (int i = 1; i < depth; i++) {
        struct json_value *outer = json_list_new();

        json_list_append(outer, value);
        value = outer;
    }
    return value;
}

static void depth_is_no_matter_of_the_stack(void **state)
{
    (void)state;
    const int depth = 200000;
    g_autoptr(json_value) deep = nested_lists(depth);
    g_autoptr(json_value) copy = json_copy(deep);
    g_autoptr(GString) text = g_string_new(NULL);

    assert_true(json_equal(deep, copy));
    json_write(copy, false, text);
    assert_int_equal(text->len, 2 * depth);
}

static void every_type_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(json_type_name(JSON_UINT), "integer");
    assert_string_equal(json_type_name(JSON_DICT), "object");
    json_free(NULL); /* and freeing nothing is fine */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_exact_over_both_ranges),
        cmocka_unit_test(a_number_that_does_not_fit_leaves_the_result_alone),
        cmocka_unit_test(any_number_is_a_double),
        cmocka_unit_test(a_dict_keeps_the_order_of_insertion),
        cmocka_unit_test(a_removed_member_is_gone_and_the_rest_stays),
        cmocka_unit_test(a_large_dict_finds_every_member),
        cmocka_unit_test(a_member_can_be_changed_in_place),
        cmocka_unit_test(absent_and_null_members_read_as_the_default),
        cmocka_unit_test(a_copy_is_equal_and_independent),
        cmocka_unit_test(equality_ignores_the_order_of_members_only),
        cmocka_unit_test(depth_is_no_matter_of_the_stack),
        cmocka_unit_test(every_type_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
