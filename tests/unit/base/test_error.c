/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors carry a sentence, a code and a class, and may go unread. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"

static void an_error_returns_its_code_and_keeps_its_sentence(void **state)
{
    (void)state;
    g_autoptr(GError) err = NULL;

    assert_int_equal(error_set(&err, -EBUSY, "node '%s' is in use", "d0"),
                     -EBUSY);
    assert_string_equal(err->message, "node 'd0' is in use");
    assert_string_equal(error_class_name(err), "GenericError");
}

static void the_cause_of_the_system_is_appended(void **state)
{
    (void)state;
    g_autoptr(GError) err = NULL;

    assert_int_equal(error_set_errno(&err, -ENOENT, "cannot open '%s'", "/x"),
                     -ENOENT);
    assert_string_equal(err->message,
                        "cannot open '/x': No such file or directory");
}

static void every_class_has_its_name_on_the_wire(void **state)
{
    (void)state;
    static const char *const names[] = { "GenericError", "CommandNotFound",
                                         "DeviceNotFound", "DeviceNotActive" };

    for (int i = 0; i < 4; i++) {
        g_autoptr(GError) err = NULL;

        assert_int_equal(
            error_set_class(&err, -EIO, (enum error_class)i, "text"), -EIO);
        assert_string_equal(error_class_name(err), names[i]);
    }
}

static void an_error_of_another_domain_is_generic(void **state)
{
    (void)state;
    g_autoptr(GError) err =
        g_error_new_literal(G_FILE_ERROR, G_FILE_ERROR_IO, "text");

    assert_string_equal(error_class_name(err), "GenericError");
}

static void nobody_has_to_listen(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, -EIO, "%d", 1), -EIO);
    assert_int_equal(error_set_errno(NULL, -EIO, "%d", 1), -EIO);
    assert_int_equal(
        error_set_class(NULL, -EIO, ERROR_DEVICE_NOT_FOUND, "%d", 1), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_error_returns_its_code_and_keeps_its_sentence),
        cmocka_unit_test(the_cause_of_the_system_is_appended),
        cmocka_unit_test(every_class_has_its_name_on_the_wire),
        cmocka_unit_test(an_error_of_another_domain_is_generic),
        cmocka_unit_test(nobody_has_to_listen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
