/* SPDX-License-Identifier: BSD-3-Clause */
/* Names from outside: what is let through is safe as a path component. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "repo/names.h"

static void node_names_are_disk_names(void **state)
{
    (void)state;
    assert_true(disk_name_is_legal("a"));
    assert_true(disk_name_is_legal("disk-0.b_C"));
    assert_true(disk_name_is_legal("a234567890123456789012345678901"));
}

static void nothing_that_a_path_could_misread_is_a_disk_name(void **state)
{
    static const char *const bad[] = {
        "",
        ".",
        "..",
        "a/b",
        "/a",
        "-a",
        "_a",
        "#blk",
        "0a",
        "a b",
        "a\n",
        "a\xc3\xa9",
        "a23456789012345678901234567890123",
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_false(disk_name_is_legal(bad[i]));
    }
}

static void a_new_point_id_is_legal_and_tells_its_time(void **state)
{
    g_autoptr(GDateTime) when = g_date_time_new_utc(2026, 1, 31, 23, 59, 58);
    g_autofree char *id = point_id_new(when, 7);
    g_autofree char *late = point_id_new(when, 123456789);

    (void)state;
    assert_string_equal(id, "20260131T235958Z-0007");
    assert_true(point_id_is_legal(id));
    assert_true(point_id_is_legal(late));
}

static void what_is_no_point_id_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "20260131T235958Z",
        "20260131T235958Z-",
        "20260131T235958Z-007",
        "20260131T235958Z-0007/",
        "20260131T235958Z-00x7",
        "20260131 235958Z-0007",
        "../60131T235958Z-0007",
        ".partial-20260131T235958Z-0007",
        "20260131T235958Z-000000000000000000000000000000007",
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_false(point_id_is_legal(bad[i]));
    }
}

static void random_digits_are_as_many_as_asked(void **state)
{
    g_autofree char *one = hex_random(32, NULL);
    g_autofree char *two = hex_random(32, NULL);

    (void)state;
    assert_true(hex_is_legal(one, 32));
    assert_false(hex_is_legal(one, 31));
    assert_false(hex_is_legal("ABCD", 4));
    assert_string_not_equal(one, two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_names_are_disk_names),
        cmocka_unit_test(nothing_that_a_path_could_misread_is_a_disk_name),
        cmocka_unit_test(a_new_point_id_is_legal_and_tells_its_time),
        cmocka_unit_test(what_is_no_point_id_is_refused),
        cmocka_unit_test(random_digits_are_as_many_as_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
