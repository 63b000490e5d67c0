/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line: what is kept, in which order, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/options.h"

/* Parses words that end with NULL, the program's name first. */
static int parse(const char *const *words,
                 struct daemon_settings *settings,
                 GError **err)
{
    int count = (int)g_strv_length((char **)(uintptr_t)words);
    g_autofree char **argv =
        g_memdup2(words, ((size_t)count + 1) * sizeof(*words));

    return daemon_settings_parse(count, argv, settings, err);
}

static void expect_refusal(const char *const *words, const char *naming)
{
    struct daemon_settings settings;
    g_autoptr(GError) err = NULL;

    assert_int_equal(parse(words, &settings, &err), -EINVAL);
    if (strstr(err->message, naming) == NULL) {
        print_error("%s\n", err->message);
    }
    assert_non_null(strstr(err->message, naming));
}

static void steps_keep_their_order(void **state)
{
    static const char *const words[] = {
        "cohortd",    "--export", "e",  "--blockdev=b", "--pidfile",
        "p",          "--object", "o",  "--chardev",    "c",
        "--blockdev", "b2",       NULL,
    };
    static const char *const names[] = { "export", "blockdev", "object",
                                         "chardev", "blockdev" };
    static const char *const texts[] = { "e", "b", "o", "c", "b2" };
    struct daemon_settings settings;

    (void)state;
    assert_int_equal(parse(words, &settings, NULL), 0);
    assert_int_equal(settings.action, DAEMON_RUN);
    assert_false(settings.daemonize);
    assert_string_equal(settings.pidfile, "p");
    assert_int_equal(settings.steps->len, G_N_ELEMENTS(names));
    for (guint i = 0; i < settings.steps->len; i++) {
        const struct daemon_step *step =
            &g_array_index(settings.steps, struct daemon_step, i);

        assert_string_equal(step->option->name, names[i]);
        assert_string_equal(step->text, texts[i]);
    }
    daemon_settings_release(&settings);
}

static void help_and_version_win_over_running(void **state)
{
    static const char *const help[] = { "cohortd", "--daemonize", "-h",
                                        "--version", NULL };
    static const char *const version[] = { "cohortd", "-V", NULL };
    struct daemon_settings settings;

    (void)state;
    assert_int_equal(parse(help, &settings, NULL), 0);
    assert_int_equal(settings.action, DAEMON_SHOW_HELP);
    assert_true(settings.daemonize);
    daemon_settings_release(&settings);
    assert_int_equal(parse(version, &settings, NULL), 0);
    assert_int_equal(settings.action, DAEMON_SHOW_VERSION);
    daemon_settings_release(&settings);
}

static void what_is_wrong_is_named(void **state)
{
    static const char *const unknown[] = { "cohortd", "--daemonize",
                                           "--nonsense", NULL };
    static const char *const lone[] = { "cohortd", "--blockdev", NULL };
    static const char *const extra[] = { "cohortd", "disk.img", NULL };
    static const char *const given[] = { "cohortd", "--help=me", NULL };
    static const char *const letter[] = { "cohortd", "-x", NULL };

    (void)state;
    expect_refusal(unknown, "--nonsense");
    expect_refusal(lone, "--blockdev");
    expect_refusal(extra, "disk.img");
    expect_refusal(given, "--help=me");
    expect_refusal(letter, "-x");
}

static void every_option_has_help(void **state)
{
    (void)state;
    for (const struct daemon_option *option = daemon_options;
         option->name != NULL; option++) {
        assert_non_null(option->help);
        assert_true(option->co_apply == NULL || option->argument != NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_keep_their_order),
        cmocka_unit_test(help_and_version_win_over_running),
        cmocka_unit_test(what_is_wrong_is_named),
        cmocka_unit_test(every_option_has_help),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
