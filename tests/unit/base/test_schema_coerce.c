/* SPDX-License-Identifier: BSD-3-Clause */
/* schema_coerce() types the strings of options, and refuses what has no type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_reader.h"
#include "base/keyval.h"
#include "base/schema.h"

#include "sample_schema.h"

static struct json_value *coerce_options(const char *text,
                                         const char *what,
                                         GError **err)
{
    g_autoptr(json_value) tree = keyval_parse(text, "driver", err);

    return tree != NULL ? schema_coerce(&sample_options, tree, what, err)
                        : NULL;
}

static void expect_options(const char *text, const char *expected)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) value = coerce_options(text, NULL, &err);
    g_autoptr(GString) json = g_string_new(NULL);

    if (value == NULL) {
        fail_msg("%s: %s", text, err->message);
    }
    json_write(value, false, json);
    assert_string_equal(json->str, expected);
}

static void expect_refused(const char *text, const char *sentence)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) value = coerce_options(text, "--blockdev", &err);

    assert_null(value);
    assert_string_equal(err->message, sentence);
}

/* The JSON text of a string coerced to a scalar type; NULL: refused. */
static char *coerced(const struct schema_type *type, const char *text)
{
    g_autoptr(json_value) string = json_string_new(text);
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) value = schema_coerce(type, string, "x", &err);
    g_autoptr(GString) json = g_string_new(NULL);

    assert_true((value == NULL) == (err != NULL));
    if (value == NULL) {
        return NULL;
    }
    json_write(value, false, json);
    return g_strdup(json->str);
}

static void expect_scalar(const struct schema_type *type,
                          const char *text,
                          const char *expected)
{
    g_autofree char *json = coerced(type, text);

    if (g_strcmp0(json, expected) != 0) {
        fail_msg("'%s' gives %s, not %s", text, json, expected);
    }
}

static void strings_become_what_the_type_asks_for(void **state)
{
    (void)state;
    expect_options("raw,read-only=on,size=64k,offset=-5,file.driver=null-co,"
                   "file.latency=7",
                   "{\"driver\": \"raw\", \"read-only\": true, \"size\": "
                   "65536, \"offset\": -5, \"file\": {\"driver\": \"null-co\", "
                   "\"latency\": 7}}");
    expect_options("blkdebug,image=d0,inject-error.0.event=read_aio,"
                   "inject-error.0.once=yes",
                   "{\"driver\": \"blkdebug\", \"image\": \"d0\", "
                   "\"inject-error\": [{\"event\": \"read_aio\", \"once\": "
                   "true}]}");
    expect_options("file,filename=5,aliases.0=a,aliases.1=1",
                   "{\"driver\": \"file\", \"filename\": \"5\", \"aliases\": "
                   "[\"a\", \"1\"]}");
}

static void booleans_take_the_usual_words(void **state)
{
    (void)state;
    const char *const yes[] = { "on", "yes", "true", "y" };
    const char *const no[] = { "off", "no", "false", "n" };
    const char *const neither[] = { "", "ON", "1", "0", "enable", "on " };

    for (size_t i = 0; i < G_N_ELEMENTS(yes); i++) {
        expect_scalar(&schema_bool, yes[i], "true");
        expect_scalar(&schema_bool, no[i], "false");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(neither); i++) {
        expect_scalar(&schema_bool, neither[i], NULL);
    }
}

static void integers_are_decimal_or_hexadecimal(void **state)
{
    (void)state;
    expect_scalar(&schema_int, "0", "0");
    expect_scalar(&schema_int, "-9223372036854775808", "-9223372036854775808");
    expect_scalar(&schema_int, "9223372036854775807", "9223372036854775807");
    expect_scalar(&schema_int, "0x10", "16");
    expect_scalar(&schema_int, "-0x10", "-16");
    expect_scalar(&schema_uint32, "4294967295", "4294967295");
}

static void what_is_no_integer_is_refused(void **state)
{
    (void)state;
    const char *const texts[] = {
        "",
        "-",
        "+1",
        " 1",
        "1 ",
        "1k",
        "0x",
        "010",
        "--1",
        "1.0",
        "x",
        "0x1g",
        "-x1",
        "1e3",
        "18446744073709551616",
        "- 1",
        "0x-1",
        "٣",
        "-9223372036854775809", /* one below the lowest */
        "9223372036854775808",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        expect_scalar(&schema_int, texts[i], NULL);
    }
    expect_scalar(&schema_uint32, "4294967296", NULL);
    expect_scalar(&schema_uint32, "-1", NULL);
}

static void sizes_take_binary_suffixes(void **state)
{
    (void)state;
    expect_scalar(&schema_size, "0", "0");
    expect_scalar(&schema_size, "10b", "10");
    expect_scalar(&schema_size, "1k", "1024");
    expect_scalar(&schema_size, "1K", "1024");
    expect_scalar(&schema_size, "3M", "3145728");
    expect_scalar(&schema_size, "2g", "2147483648");
    expect_scalar(&schema_size, "1T", "1099511627776");
    expect_scalar(&schema_size, "1P", "1125899906842624");
    expect_scalar(&schema_size, "15E", "17293822569102704640");
    expect_scalar(&schema_size, "1.5k", "1536");
    expect_scalar(&schema_size, "0.0009765625M", "1024");
    expect_scalar(&schema_size, "1.00000000000000000000000000001k", "1024");
    expect_scalar(&schema_size, "0x200", "512");
    expect_scalar(&schema_size, "18446744073709551615", "18446744073709551615");
}

static void what_is_no_size_is_refused(void **state)
{
    (void)state;
    const char *const texts[] = {
        "",
        "k",
        "-1",
        "1.5",
        "1.k",
        ".5k",
        "1kk",
        "1 k",
        "16E",
        "1kib",
        "0x1k",
        "1.5b",
        "1,5k",
        "1.5",
        "08",
        "1z",
        "99999999999999999999",
        "18014398509481984k",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        expect_scalar(&schema_size, texts[i], NULL);
    }
}

static void refusals_name_the_option(void **state)
{
    (void)state;
    expect_refused("null-co,size=1x",
                   "'--blockdev.size' must be a size in bytes such as 65536, "
                   "64k or 1.5G, not '1x'");
    expect_refused("null-co,read-only=maybe",
                   "'--blockdev.read-only' must be 'on' or 'off', not 'maybe'");
    expect_refused("null-co,noread-only",
                   "'--blockdev.noread-only' is not known here with driver "
                   "'null-co'; did you mean 'read-only'?");
    expect_refused("null-co,latency=-1",
                   "'--blockdev.latency' must be an integer from 0 to "
                   "4294967295, not '-1'");
    expect_refused("driver.x=y",
                   "'--blockdev.driver' must be a string, not an object");
    expect_refused("blkdebug,image=x,inject-error=y",
                   "'--blockdev.inject-error' must be a list, not a string");
    expect_refused("raw,file.0=x",
                   "'--blockdev.file' must be a string or an object or null, "
                   "not a list");
}

static void a_dict_of_numbers_serves_as_a_list(void **state)
{
    (void)state;
    g_autoptr(json_value) tree = json_read_text("{'1': 'b', '0': 'a'}", NULL);
    g_autoptr(json_value) gap = json_read_text("{'1': 'b'}", NULL);
    g_autoptr(json_value) list =
        schema_coerce(&schema_string_list, tree, NULL, NULL);
    g_autoptr(json_value) refused =
        schema_coerce(&schema_string_list, gap, NULL, NULL);

    assert_int_equal(json_list_length(list), 2);
    assert_string_equal(json_get_string(json_list_get(list, 0)), "a");
    assert_null(refused);
}

static void what_is_typed_already_stays(void **state)
{
    (void)state;
    g_autoptr(json_value) tree =
        json_read_text("{'driver': 'raw', 'size': 18446744073709551615, "
                       "'file': {'driver': 'null-co', 'any': [1, 'on']}}",
                       NULL);
    g_autoptr(json_value) same =
        schema_coerce(&sample_options, tree, NULL, NULL);

    assert_non_null(same);
    assert_true(json_equal(tree, same));
}

static void depth_is_bounded_here_too(void **state)
{
    (void)state;
    g_autoptr(json_value) tree = json_string_new("x");
    g_autoptr(GError) err = NULL;

    for (int i = 0; i < 1000; i++) {
        struct json_value *outer = json_dict_new();

        json_dict_set_string(outer, "driver", "raw");
        json_dict_set(outer, "file", tree);
        tree = outer;
    }
    assert_null(schema_coerce(&sample_options, tree, NULL, &err));
    assert_non_null(strstr(err->message, "nests deeper"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_become_what_the_type_asks_for),
        cmocka_unit_test(booleans_take_the_usual_words),
        cmocka_unit_test(integers_are_decimal_or_hexadecimal),
        cmocka_unit_test(what_is_no_integer_is_refused),
        cmocka_unit_test(sizes_take_binary_suffixes),
        cmocka_unit_test(what_is_no_size_is_refused),
        cmocka_unit_test(refusals_name_the_option),
        cmocka_unit_test(a_dict_of_numbers_serves_as_a_list),
        cmocka_unit_test(what_is_typed_already_stays),
        cmocka_unit_test(depth_is_bounded_here_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
