/* SPDX-License-Identifier: BSD-3-Clause */
/* Both tables of the state machine, cell by cell. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "job/job_state.h"

/* Columns: u created running paused ready standby waiting pending aborting
 * concluded null; x: legal. */
static const char *const moves[JOB_STATE_COUNT] = {
    [JOB_UNDEFINED] = ".x.........", [JOB_CREATED] = "..x.....x.x",
    [JOB_RUNNING] = "...xx.x.x..",   [JOB_PAUSED] = "..x........",
    [JOB_READY] = ".....xx.x..",     [JOB_STANDBY] = "....x......",
    [JOB_WAITING] = ".......xx..",   [JOB_PENDING] = "........xx.",
    [JOB_ABORTING] = "........xx.",  [JOB_CONCLUDED] = "..........x",
    [JOB_NULL] = "...........",
};

static const char *const verbs[JOB_VERB_COUNT] = {
    [JOB_VERB_CANCEL] = ".xxxxxxx...",   [JOB_VERB_PAUSE] = ".xxxxx.....",
    [JOB_VERB_RESUME] = ".xxxxx.....",   [JOB_VERB_SET_SPEED] = ".xxxxx.....",
    [JOB_VERB_CHANGE] = ".xxxxx.....",   [JOB_VERB_COMPLETE] = "....xx.....",
    [JOB_VERB_FINALIZE] = ".......x...", [JOB_VERB_DISMISS] = ".........x.",
};

static void only_the_listed_moves_are_legal(void **state)
{
    (void)state;
    for (int from = 0; from < JOB_STATE_COUNT; from++) {
        assert_int_equal(strlen(moves[from]), JOB_STATE_COUNT);
        for (int to = 0; to < JOB_STATE_COUNT; to++) {
            assert_int_equal(job_state_may_move(from, to),
                             moves[from][to] == 'x');
        }
    }
}

/* T9 is among them: complete is allowed in standby. */
static void each_verb_has_its_states(void **state)
{
    (void)state;
    for (int verb = 0; verb < JOB_VERB_COUNT; verb++) {
        for (int at = 0; at < JOB_STATE_COUNT; at++) {
            g_autoptr(GError) err = NULL;
            int ret = job_state_check_verb(at, verb, "j0", &err);
            assert_int_equal(ret, verbs[verb][at] == 'x' ? 0 : -EPERM);
            assert_int_equal(err != NULL, ret < 0);
        }
    }
}

static void a_refusal_names_job_verb_and_state(void **state)
{
    g_autoptr(GError) err = NULL;

    (void)state;
    job_state_check_verb(JOB_PAUSED, JOB_VERB_DISMISS, "j0", &err);
    assert_string_equal(err->message,
                        "Job 'j0' cannot be dismissed: it is in state "
                        "'paused'");
}

static void names_are_those_of_the_protocol(void **state)
{
    (void)state;
    assert_string_equal(job_state_name(JOB_CONCLUDED), "concluded");
    assert_string_equal(job_state_name(JOB_NULL), "null");
    assert_string_equal(job_state_names[JOB_STANDBY], "standby");
    assert_null(job_state_names[JOB_STATE_COUNT]);
    assert_string_equal(job_verb_name(JOB_VERB_SET_SPEED), "set-speed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_listed_moves_are_legal),
        cmocka_unit_test(each_verb_has_its_states),
        cmocka_unit_test(a_refusal_names_job_verb_and_state),
        cmocka_unit_test(names_are_those_of_the_protocol),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
