/* SPDX-License-Identifier: BSD-3-Clause */
/* Freezing and thawing: whatever happens, a frozen guest is thawed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>
#include <glib/gstdio.h>

#include "cli/quiesce.h"
#include "cli/run_command.h"

struct rig {
    struct interrupt interrupt;
    char *folder;
    char *log;
    char *freeze; /* commands that write a letter to the log */
    char *thaw;
};

static int setup(void **state)
{
    struct rig *rig = g_new0(struct rig, 1);

    rig->folder = g_dir_make_tmp("cohort-unit-XXXXXX", NULL);
    rig->log = g_build_filename(rig->folder, "log", NULL);
    rig->freeze = g_strdup_printf("printf f >> %s", rig->log);
    rig->thaw = g_strdup_printf("printf t >> %s", rig->log);
    *state = rig;
    return interrupt_begin(&rig->interrupt, NULL);
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    interrupt_end(&rig->interrupt);
    (void)g_unlink(rig->log);
    (void)g_rmdir(rig->folder);
    g_free(rig->folder);
    g_free(rig->log);
    g_free(rig->freeze);
    g_free(rig->thaw);
    g_free(rig);
    return 0;
}

static void assert_log(const struct rig *rig, const char *expected)
{
    g_autofree char *text = NULL;

    (void)g_file_get_contents(rig->log, &text, NULL, NULL);
    assert_string_equal(text == NULL ? "" : text, expected);
}

static void thaw_follows_freeze(void **state)
{
    struct rig *rig = *state;
    struct quiesce *quiesce = NULL;

    assert_int_equal(quiesce_begin(rig->freeze, rig->thaw, 20000,
                                   &rig->interrupt, &quiesce, NULL),
                     0);
    assert_log(rig, "f");
    assert_int_equal(quiesce_end(quiesce, NULL), 0);
    assert_log(rig, "ft");
}

static void a_failed_freeze_is_thawed(void **state)
{
    struct rig *rig = *state;
    struct quiesce *quiesce = NULL;

    assert_int_equal(quiesce_begin("exit 1", rig->thaw, 20000, &rig->interrupt,
                                   &quiesce, NULL),
                     -EIO);
    assert_null(quiesce);
    assert_log(rig, "t");
}

static void a_signal_during_the_freeze_thaws(void **state)
{
    struct rig *rig = *state;
    struct quiesce *quiesce = NULL;

    (void)raise(SIGTERM);
    assert_int_equal(quiesce_begin("sleep 1000", rig->thaw, 20000,
                                   &rig->interrupt, &quiesce, NULL),
                     -ECANCELED);
    assert_log(rig, "t");
}

static void frozen_for_too_long_is_thawed_and_told(void **state)
{
    struct rig *rig = *state;
    struct quiesce *quiesce = NULL;
    g_autofree char *text = NULL;

    assert_int_equal(
        quiesce_begin(NULL, rig->thaw, 500, &rig->interrupt, &quiesce, NULL),
        0);
    while (!g_file_get_contents(rig->log, &text, NULL, NULL) ||
           text[0] != 't') {
        g_clear_pointer(&text, g_free);
        g_usleep(1000);
    }
    assert_int_equal(quiesce_end(quiesce, NULL), -ETIME);
    assert_log(rig, "t");
}

static void a_failed_thaw_is_told(void **state)
{
    struct rig *rig = *state;
    struct quiesce *quiesce = NULL;

    assert_int_equal(quiesce_begin(rig->freeze, "exit 4", 20000,
                                   &rig->interrupt, &quiesce, NULL),
                     0);
    assert_int_equal(quiesce_end(quiesce, NULL), -EIO);
}

static void a_command_that_hangs_is_killed_with_its_children(void **state)
{
    struct rig *rig = *state;
    g_autofree char *command = g_strdup_printf(
        "sh -c 'trap \"\" TERM; while :; do sleep 1; done' & echo $! > %s; "
        "wait",
        rig->log);
    g_autofree char *text = NULL;

    assert_int_equal(
        run_command("test", command, 300, &rig->interrupt, false, NULL),
        -ETIMEDOUT);
    if (g_file_get_contents(rig->log, &text, NULL, NULL)) {
        pid_t child = (pid_t)g_ascii_strtoll(text, NULL, 10);
        while (kill(child, 0) == 0) {
            g_usleep(1000); /* dead, and init has yet to collect it */
        }
    }
}

static void an_exit_status_is_told(void **state)
{
    struct rig *rig = *state;
    g_autoptr(GError) err = NULL;

    assert_int_equal(
        run_command("test", "exit 42", 20000, &rig->interrupt, true, &err),
        -EIO);
    assert_non_null(strstr(err->message, "42"));
}

#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RIG(thaw_follows_freeze),
        WITH_RIG(a_failed_freeze_is_thawed),
        WITH_RIG(a_signal_during_the_freeze_thaws),
        WITH_RIG(frozen_for_too_long_is_thawed_and_told),
        WITH_RIG(a_failed_thaw_is_told),
        WITH_RIG(a_command_that_hangs_is_killed_with_its_children),
        WITH_RIG(an_exit_status_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
