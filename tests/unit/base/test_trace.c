/* SPDX-License-Identifier: BSD-3-Clause */
/* Trace events: the line of each, and which of them are on. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/trace.h"

static int switch_all_off(void **state)
{
    (void)state;
    return trace_switch("-*", NULL);
}

/* A value of each type, and how the log shows it. */
static const char *sample(enum trace_type type, union trace_value *value)
{
    switch (type) {
    case TRACE_TYPE_text: value->text = "job-1"; return "job-1";
    case TRACE_TYPE_error: value->error = -EIO; return "EIO";
    case TRACE_TYPE_count:
    case TRACE_TYPE_bytes:
    case TRACE_TYPE_ns:
        value->number = UINT64_MAX;
        return "18446744073709551615";
    }
    fail_msg("a type that this test does not know");
    return NULL;
}

static void every_event_shows_its_fields_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        const struct trace_description *event = &trace_descriptions[i];
        union trace_value values[TRACE_FIELDS_MAX];
        g_autoptr(GString) expected = g_string_new(event->name);
        g_autoptr(GString) line = g_string_new(NULL);

        for (size_t k = 0; event->fields[k].name != NULL; k++) {
            g_string_append_printf(expected, " %s=%s", event->fields[k].name,
                                   sample(event->fields[k].type, &values[k]));
        }
        trace_format(line, (enum trace_event)i, values);
        assert_string_equal(line->str, expected->str);
    }
}

static void every_event_has_a_name_and_a_sentence(void **state)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    (void)state;
    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        const struct trace_description *event = &trace_descriptions[i];

        assert_int_equal(strspn(event->name, "abcdefghijklmnopqrstuvwxyz_"),
                         strlen(event->name));
        assert_true(g_hash_table_add(names, (char *)(uintptr_t)event->name));
        assert_true(g_str_has_suffix(event->sentence, "."));
        assert_non_null(event->fields[0].name);
    }
}

static void expect_text(const char *text, const char *shown)
{
    const union trace_value values[] = { { .text = text }, { .text = "b" } };
    g_autofree char *expected =
        g_strdup_printf("bitmap_add node=%s bitmap=b", shown);
    g_autoptr(GString) line = g_string_new(NULL);

    trace_format(line, TRACE_ID_bitmap_add, values);
    assert_string_equal(line->str, expected);
}

static void no_text_can_forge_a_line_or_a_field(void **state)
{
    (void)state;
    expect_text("disk-0.a/b:1", "disk-0.a/b:1");
    expect_text(NULL, "-");
    expect_text("-", "\"-\"");
    expect_text("", "\"\"");
    expect_text("two words", "\"two words\"");
    expect_text("a bitmap=c", "\"a bitmap=c\"");
    expect_text("a\nb", "\"a\\nb\"");
    expect_text("say \"x\"\\", "\"say \\\"x\\\"\\\\\"");
    expect_text("\x1b[2J", "\"\\033[2J\"");
    expect_text("\xff", "\"\\377\"");
}

static void errors_are_shown_by_name(void **state)
{
    static const struct {
        int error;
        const char *shown;
    } cases[] = { { 0, "0" }, { -ENOSPC, "ENOSPC" }, { -12345, "-12345" } };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const union trace_value values[] = { { .text = "a" },
                                             { .error = cases[i].error } };
        g_autofree char *expected = g_strdup_printf(
            "group_prepare_end group=a error=%s", cases[i].shown);
        g_autoptr(GString) line = g_string_new(NULL);

        trace_format(line, TRACE_ID_group_prepare_end, values);
        assert_string_equal(line->str, expected);
    }
}

static size_t count_on(void)
{
    size_t count = 0;

    for (size_t i = 0; i < TRACE_EVENT_COUNT; i++) {
        count += atomic_load(&trace_switches[i]);
    }
    return count;
}

static void patterns_switch_on_and_off(void **state)
{
    (void)state;
    assert_int_equal(count_on(), 0);
    assert_int_equal(trace_switch("job_state", NULL), 0);
    assert_int_equal(count_on(), 1);
    assert_true(atomic_load(&trace_switches[TRACE_ID_job_state]));
    assert_int_equal(trace_switch("job_*", NULL), 0);
    assert_true(atomic_load(&trace_switches[TRACE_ID_job_failed]));
    assert_false(atomic_load(&trace_switches[TRACE_ID_group_end]));
    assert_int_equal(trace_switch("-job_?tate", NULL), 0);
    assert_false(atomic_load(&trace_switches[TRACE_ID_job_state]));
    assert_true(atomic_load(&trace_switches[TRACE_ID_job_failed]));
    assert_int_equal(trace_switch("*", NULL), 0);
    assert_int_equal(count_on(), TRACE_EVENT_COUNT);
}

static void what_matches_nothing_is_refused(void **state)
{
    static const char *const patterns[] = { "",      "-",      "job",
                                            "state", "job_*x", "-nothing",
                                            "JOB_*" };
    g_autoptr(GError) err = NULL;

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(patterns); i++) {
        assert_int_equal(trace_switch(patterns[i], NULL), -ENOENT);
    }
    assert_int_equal(count_on(), 0);
    assert_int_equal(trace_switch("job_sate", &err), -ENOENT);
    assert_non_null(strstr(err->message, "'job_state'"));
}

/* What `act` writes to stderr; owned by the caller. */
static char *stderr_of(void (*act)(void))
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    char text[512] = "";

    assert_non_null(file);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    act();
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    rewind(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return g_strdup(text);
}

static void move_a_job(void)
{
    trace_job_state("a", "running", "waiting");
}

static void an_event_writes_only_when_it_is_on(void **state)
{
    g_autofree char *off = stderr_of(move_a_job);

    (void)state;
    assert_string_equal(off, "");
    assert_int_equal(trace_switch("job_state", NULL), 0);
    g_autofree char *on = stderr_of(move_a_job);
    assert_true(g_regex_match_simple(
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z "
        "\\S+ job_state job=a from=running to=waiting\n$",
        on, 0, 0));
}

#define TEST(name) cmocka_unit_test_setup(name, switch_all_off)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_event_shows_its_fields_in_order),
        TEST(every_event_has_a_name_and_a_sentence),
        TEST(no_text_can_forge_a_line_or_a_field),
        TEST(errors_are_shown_by_name),
        TEST(patterns_switch_on_and_off),
        TEST(what_matches_nothing_is_refused),
        TEST(an_event_writes_only_when_it_is_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
