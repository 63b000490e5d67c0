/* SPDX-License-Identifier: BSD-3-Clause */
/* From a request to its reply: the rows of "Requests and replies". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json_reader.h"
#include "fake_commands.h"
#include "qmp/dispatch.h"

/* The reply to a request, as text. */
static char *answer(enum qmp_mode *mode, const char *text)
{
    g_autoptr(json_value) request = json_read_text(text, NULL);
    g_autoptr(json_value) reply = NULL;
    GString *out = g_string_new(NULL);

    assert_non_null(request);
    fake_runs = 0;
    reply = co_qmp_dispatch(fake_tables, NULL, mode, request);
    json_write(reply, false, out);
    return g_string_free(out, FALSE);
}

static void expect(enum qmp_mode mode, const char *request, const char *reply)
{
    g_autofree char *got = answer(&mode, request);

    assert_string_equal(got, reply);
}

/* The request is refused with this class, its id comes back, and nothing ran. */
static void expect_refusal(enum qmp_mode mode,
                           const char *request,
                           const char *class)
{
    g_autofree char *got = answer(&mode, request);
    g_autofree char *start =
        g_strdup_printf("{\"error\": {\"class\": \"%s\", \"desc\": ", class);

    if (!g_str_has_prefix(got, start)) {
        print_error("%s gave %s\n", request, got);
    }
    assert_true(g_str_has_prefix(got, start));
    assert_true(g_str_has_suffix(got, "}, \"id\": 7}"));
    assert_int_equal(fake_runs, 0);
}

static void a_command_without_a_result_returns_an_empty_object(void **state)
{
    (void)state;
    expect(QMP_MODE_COMMAND, "{'execute': 'nothing'}", "{\"return\": {}}");
}

static void a_result_is_returned_with_the_id(void **state)
{
    (void)state;
    expect(QMP_MODE_COMMAND,
           "{'execute': 'echo', 'arguments': {'number': 5}, 'id': 'x'}",
           "{\"return\": {\"number\": 5}, \"id\": \"x\"}");
}

static void any_value_serves_as_id(void **state)
{
    (void)state;
    expect(QMP_MODE_COMMAND,
           "{'id': [null, {'a': 18446744073709551615}], 'execute': 'nothing'}",
           "{\"return\": {}, \"id\": [null, {\"a\": 18446744073709551615}]}");
    expect(QMP_MODE_COMMAND, "{'id': null, 'execute': 'nothing'}",
           "{\"return\": {}, \"id\": null}");
}

static void an_error_carries_its_class_text_and_id(void **state)
{
    (void)state;
    expect(QMP_MODE_COMMAND, "{'execute': 'fail', 'id': 7}",
           "{\"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"as "
           "told\"}, \"id\": 7}");
}

static void a_failure_without_words_still_is_an_error(void **state)
{
    enum qmp_mode mode = QMP_MODE_COMMAND;
    g_autofree char *got =
        answer(&mode, "{'execute': 'fail', 'arguments': {'silently': true}}");

    (void)state;
    assert_true(
        g_str_has_prefix(got, "{\"error\": {\"class\": \"GenericError\""));
}

static void what_is_no_object_is_refused_without_id(void **state)
{
    static const char *const values[] = { "1", "'x'", "[1]", "null", "true" };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        enum qmp_mode mode = QMP_MODE_COMMAND;
        g_autofree char *got = answer(&mode, values[i]);

        assert_true(
            g_str_has_prefix(got, "{\"error\": {\"class\": \"GenericError\""));
        assert_null(strstr(got, "\"id\""));
    }
}

static void a_malformed_request_is_refused(void **state)
{
    static const char *const requests[] = {
        "{'id': 7}",
        "{'id': 7, 'execute': 3}",
        "{'id': 7, 'execute': null}",
        "{'id': 7, 'execute': 'nothing', 'arguments': [1]}",
        "{'id': 7, 'execute': 'nothing', 'arguments': null}",
        "{'id': 7, 'execute': 'nothing', 'surprise': 1}",
        "{'id': 7, 'exec-oob': 'nothing'}",
        "{'id': 7, 'execute': 'nothing', 'exec-oob': 'nothing'}",
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(requests); i++) {
        expect_refusal(QMP_MODE_COMMAND, requests[i], "GenericError");
        expect_refusal(QMP_MODE_NEGOTIATION, requests[i], "GenericError");
    }
}

static void wrong_arguments_are_refused_before_any_effect(void **state)
{
    static const char *const arguments[] = {
        "{}",
        "{'number': '1'}",
        "{'number': 1.5}",
        "{'number': 18446744073709551615}",
        "{'number': 1, 'more': 2}",
        "{'number': 1, 'color': 'blue'}",
        "{'number': 1, 'words': ['a', 2]}",
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(arguments); i++) {
        g_autofree char *request = g_strdup_printf(
            "{'id': 7, 'execute': 'echo', 'arguments': %s}", arguments[i]);

        expect_refusal(QMP_MODE_COMMAND, request, "GenericError");
    }
}

static void arguments_of_a_command_without_any_are_refused(void **state)
{
    (void)state;
    expect_refusal(QMP_MODE_COMMAND,
                   "{'id': 7, 'execute': 'nothing', 'arguments': {'a': 1}}",
                   "GenericError");
}

static void an_unknown_command_is_not_found(void **state)
{
    (void)state;
    expect_refusal(QMP_MODE_COMMAND, "{'id': 7, 'execute': 'no'}",
                   "CommandNotFound");
    expect_refusal(QMP_MODE_COMMAND, "{'id': 7, 'execute': ''}",
                   "CommandNotFound");
}

static void only_negotiation_runs_before_it(void **state)
{
    (void)state;
    expect_refusal(QMP_MODE_NEGOTIATION, "{'id': 7, 'execute': 'nothing'}",
                   "CommandNotFound");
    expect_refusal(QMP_MODE_NEGOTIATION, "{'id': 7, 'execute': 'no'}",
                   "CommandNotFound");
}

static void negotiation_leads_to_command_mode_once(void **state)
{
    enum qmp_mode mode = QMP_MODE_NEGOTIATION;
    g_autofree char *first = answer(&mode, "{'execute': 'qmp_capabilities'}");

    (void)state;
    assert_string_equal(first, "{\"return\": {}}");
    assert_int_equal(mode, QMP_MODE_COMMAND);
    expect_refusal(mode, "{'id': 7, 'execute': 'qmp_capabilities'}",
                   "CommandNotFound");
}

static void failed_negotiation_changes_nothing(void **state)
{
    enum qmp_mode mode = QMP_MODE_NEGOTIATION;
    g_autofree char *reply =
        answer(&mode, "{'execute': 'qmp_capabilities', 'arguments': {'a': 1}}");

    (void)state;
    assert_non_null(strstr(reply, "GenericError"));
    assert_int_equal(mode, QMP_MODE_NEGOTIATION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_without_a_result_returns_an_empty_object),
        cmocka_unit_test(a_result_is_returned_with_the_id),
        cmocka_unit_test(any_value_serves_as_id),
        cmocka_unit_test(an_error_carries_its_class_text_and_id),
        cmocka_unit_test(a_failure_without_words_still_is_an_error),
        cmocka_unit_test(what_is_no_object_is_refused_without_id),
        cmocka_unit_test(a_malformed_request_is_refused),
        cmocka_unit_test(wrong_arguments_are_refused_before_any_effect),
        cmocka_unit_test(arguments_of_a_command_without_any_are_refused),
        cmocka_unit_test(an_unknown_command_is_not_found),
        cmocka_unit_test(only_negotiation_runs_before_it),
        cmocka_unit_test(negotiation_leads_to_command_mode_once),
        cmocka_unit_test(failed_negotiation_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
