/* SPDX-License-Identifier: BSD-3-Clause */
/* The dotted key=value form, as users of QEMU's tools type it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/keyval.h"

static void expect_tree(const char *text, const char *expected)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) tree = keyval_parse(text, "driver", &err);
    g_autoptr(GString) json = g_string_new(NULL);

    if (tree == NULL) {
        fail_msg("%s: %s", text, err->message);
    }
    json_write(tree, false, json);
    assert_string_equal(json->str, expected);
}

static void expect_refused(const char *text, const char *part_of_sentence)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) tree = keyval_parse(text, "driver", &err);

    assert_null(tree);
    assert_non_null(err);
    if (strstr(err->message, part_of_sentence) == NULL) {
        fail_msg("%s: %s", text, err->message);
    }
}

static void dots_go_into_objects(void **state)
{
    (void)state;
    expect_tree("driver=raw,node-name=d0,file.driver=file,file.filename=/a",
                "{\"driver\": \"raw\", \"node-name\": \"d0\", \"file\": "
                "{\"driver\": \"file\", \"filename\": \"/a\"}}");
    expect_tree("a.b.c=1,a.d=2,a.b.e=3",
                "{\"a\": {\"b\": {\"c\": \"1\", \"e\": \"3\"}, "
                "\"d\": \"2\"}}");
}

static void a_doubled_comma_stands_for_one(void **state)
{
    (void)state;
    expect_tree("f=/a,,b.img,g=1", "{\"f\": \"/a,b.img\", \"g\": \"1\"}");
    expect_tree("f=/a,,,g=1", "{\"f\": \"/a,\", \"g\": \"1\"}");
    expect_tree("f=/a,,,,g=1", "{\"f\": \"/a,,g=1\"}");
    expect_tree("a,,b", "{\"driver\": \"a,b\"}");
}

static void a_value_may_be_empty_and_hold_anything(void **state)
{
    (void)state;
    expect_tree("a=", "{\"a\": \"\"}");
    expect_tree("a=,b=x=y.z ", "{\"a\": \"\", \"b\": \"x=y.z \"}");
}

static void the_first_part_may_leave_out_the_implied_key(void **state)
{
    (void)state;
    expect_tree("null-co,size=1", "{\"driver\": \"null-co\", \"size\": \"1\"}");
    expect_tree("a=1,raw", "{\"a\": \"1\", \"raw\": \"on\"}");
    expect_tree("null-co=", "{\"null-co\": \"\"}");
}

static void a_part_without_a_value_is_a_flag(void **state)
{
    (void)state;
    g_autoptr(json_value) tree = keyval_parse("server,x=1", NULL, NULL);

    assert_string_equal(json_dict_string(tree, "server", NULL), "on");
    assert_string_equal(json_dict_string(tree, "x", NULL), "1");
}

static void a_comma_at_the_end_is_allowed(void **state)
{
    (void)state;
    expect_tree("", "{}");
    expect_tree("a=1,", "{\"a\": \"1\"}");
    expect_tree("null-co,", "{\"driver\": \"null-co\"}");
}

static void numbers_make_lists_in_their_order(void **state)
{
    (void)state;
    expect_tree("e.1.a=y,e.0.a=x,e.00.b=z",
                "{\"e\": [{\"a\": \"x\", \"b\": \"z\"}, {\"a\": \"y\"}]}");
    expect_tree("e.0=x,e.1=y", "{\"e\": [\"x\", \"y\"]}");
    expect_tree("e.0.0=x", "{\"e\": [[\"x\"]]}");
}

static void a_gap_in_a_list_is_refused(void **state)
{
    (void)state;
    expect_refused("e.1=x", "'e.0' is missing");
    expect_refused("e.0=x,f.e.0=x,f.e.2=x", "'f.e.1' is missing");
    expect_refused("e.99999999999999999999=x", "'e.0' is missing");
}

static void a_list_that_is_an_object_too_is_refused(void **state)
{
    (void)state;
    expect_refused("e.0=x,e.a=y", "'e'");
}

static void a_value_that_is_an_object_too_is_refused(void **state)
{
    (void)state;
    expect_refused("file=x,file.driver=raw", "'file.driver' contradicts");
    expect_refused("file.driver=raw,file=x", "'file' contradicts");
    expect_refused("null-co,driver.x=y", "'driver.x' contradicts");
}

static void of_a_repeated_key_the_last_value_counts(void **state)
{
    (void)state;
    expect_tree("a=1,b=2,a=3", "{\"a\": \"3\", \"b\": \"2\"}");
    expect_tree("e.0=x,e.0=y", "{\"e\": [\"y\"]}");
}

static void an_ill_formed_key_is_refused(void **state)
{
    (void)state;
    const char *const texts[] = {
        "a=1,5=x", "a=1,5a=x", "a..b=x",   ".a=x",   "a.=x",
        "a b=x",   " a=x",     "a.-1=x",   "-a=x",   "a.5b=x",
        "a.__b=x", "__x=1",    "__com.=1", "___a=1", "\xc3\xa9=1",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        expect_refused(texts[i], "is no option name");
    }
}

static void a_missing_key_is_refused(void **state)
{
    (void)state;
    expect_refused(",", "without a name");
    expect_refused(",a=1", "without a name");
    expect_refused("a=1,=2", "without a name");
    expect_refused("a,,b,,c=1,,,=", "without a name");
}

static void a_vendor_prefix_is_one_piece(void **state)
{
    (void)state;
    expect_tree("__com.example-1_a_b.c=1",
                "{\"__com.example-1_a_b\": {\"c\": \"1\"}}");
}

static void a_key_of_excessive_length_is_refused(void **state)
{
    (void)state;
    g_autoptr(GString) text = g_string_new("a");

    while (text->len < KEYVAL_KEY_BYTES_MAX) {
        g_string_append(text, ".a");
    }
    g_string_append(text, "=1");

    g_autoptr(json_value) tree = keyval_parse(text->str, NULL, NULL);

    assert_non_null(tree); /* 127 bytes: as long as may be */
    g_string_prepend(text, "a");
    expect_refused(text->str, "longer than 127 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dots_go_into_objects),
        cmocka_unit_test(a_doubled_comma_stands_for_one),
        cmocka_unit_test(a_value_may_be_empty_and_hold_anything),
        cmocka_unit_test(the_first_part_may_leave_out_the_implied_key),
        cmocka_unit_test(a_part_without_a_value_is_a_flag),
        cmocka_unit_test(a_comma_at_the_end_is_allowed),
        cmocka_unit_test(numbers_make_lists_in_their_order),
        cmocka_unit_test(a_gap_in_a_list_is_refused),
        cmocka_unit_test(a_list_that_is_an_object_too_is_refused),
        cmocka_unit_test(a_value_that_is_an_object_too_is_refused),
        cmocka_unit_test(of_a_repeated_key_the_last_value_counts),
        cmocka_unit_test(an_ill_formed_key_is_refused),
        cmocka_unit_test(a_missing_key_is_refused),
        cmocka_unit_test(a_vendor_prefix_is_one_piece),
        cmocka_unit_test(a_key_of_excessive_length_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
