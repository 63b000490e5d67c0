/* SPDX-License-Identifier: BSD-3-Clause */
/* One job: ids, sequences of events, verbs, progress, what clients see. */
#include <errno.h>
#include <string.h>

#include "job_test.h"

#define SUCCESS "created running waiting pending COMPLETED concluded null"

static const struct job_options manual_finalize = { .auto_dismiss = true };
static const struct job_options manual_dismiss = { .auto_finalize = true };

/* Makes and starts it; `open` as it is in `work`. */
static void start(struct place *place,
                  struct work *work,
                  const struct job_options *options)
{
    work_job(place, work, "a", options);
    start_group(place, work, NULL);
}

static char *info_error(struct json_value *info)
{
    char *error = g_strdup(json_dict_string(info, "error", NULL));

    json_free(info);
    return error;
}

static void t7_ids_are_checked(struct place *place)
{
    static const char *const illegal[] = { "0id", "",    "a b", "  ", "123",
                                           "_id", "-id", ".id", "#id" };
    static const struct job_ops none = { .type = "backup" };
    g_autofree char *too_long = g_strnfill(256, 'a');
    struct work work = { .open = true };
    g_autoptr(GError) err = NULL;
    struct job_options options = { .id = NULL };

    assert_null(job_new(place->jobs, &none, &options, place->main, NULL, &err));
    g_clear_error(&err);
    options.id = too_long;
    assert_null(job_new(place->jobs, &none, &options, place->main, NULL, &err));
    for (size_t i = 0; i < G_N_ELEMENTS(illegal); i++) {
        g_clear_error(&err);
        options.id = illegal[i];
        assert_null(
            job_new(place->jobs, &none, &options, place->main, NULL, &err));
        assert_non_null(err);
    }
    g_clear_error(&err);
    work_job(place, &work, "id0", NULL);
    options.id = "id0";
    assert_null(job_new(place->jobs, &none, &options, place->main, NULL, &err));
    assert_non_null(strstr(err->message, "'id0'"));
    co_job_discard(work.job);
    /* Free again. */
    start_group(place, (work_job(place, &work, "id0", NULL), &work), NULL);
    co_wait_for_all(place);
}

static void success_has_its_sequence(struct place *place)
{
    struct work work = { .open = true, .steps = 3 };

    start(place, &work, NULL);
    co_wait_for_all(place);
    assert_log(place, "a", SUCCESS);
    assert_string_equal(place->calls->str, " a:prepare a:commit a:clean");
}

static void manual_finalize_waits_in_pending(struct place *place)
{
    struct work work = { .open = true, .steps = 3 };

    start(place, &work, &manual_finalize);
    co_wait_for(place, "a:PENDING");
    assert_int_equal(job_state_of(work.job), JOB_PENDING);
    assert_int_equal(job_dismiss(work.job, NULL), -EPERM);
    assert_int_equal(job_pause(work.job, NULL), -EPERM);
    assert_int_equal(job_finalize(work.job, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running waiting pending PENDING COMPLETED concluded "
               "null");
}

static void manual_dismiss_waits_in_concluded(struct place *place)
{
    struct work work = { .open = true, .steps = 3 };

    start(place, &work, &manual_dismiss);
    co_wait_for(place, "a:concluded");
    assert_ptr_equal(job_find(place->jobs, "a"), work.job);
    assert_int_equal(job_cancel(work.job, true, NULL), -EPERM);
    assert_int_equal(job_finalize(work.job, NULL), -EPERM);
    assert_null(info_error(job_info(work.job)));
    assert_int_equal(job_dismiss(work.job, NULL), 0);
    assert_null(job_find(place->jobs, "a"));
    assert_log(place, "a", SUCCESS);
}

static void a_failure_is_told_with_its_text(struct place *place)
{
    struct work work = { .open = true, .result = -EIO };

    start(place, &work, &manual_dismiss);
    co_wait_for(place, "a:concluded");
    g_autofree char *error = info_error(block_job_info(work.job));
    assert_string_equal(error, "the disk is broken");
    assert_int_equal(job_dismiss(work.job, NULL), 0);
    assert_log(place, "a",
               "created running aborting COMPLETED(the disk is broken) "
               "concluded null");
}

static void an_error_without_a_text_gets_one(struct place *place)
{
    struct work work = { .open = true, .result = -ENOSPC };

    start(place, &work, NULL);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running aborting COMPLETED(No space left on device) "
               "concluded null");
}

static void report_read_error(struct work *work)
{
    job_report_error(work->job, "read", "report");
}

static void an_error_report_comes_before_the_end(struct place *place)
{
    struct work work = { .open = true,
                         .result = -EIO,
                         .during_run = report_read_error };

    start(place, &work, NULL);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running ERROR(report) aborting COMPLETED(the disk is "
               "broken) concluded null");
}

static void stop_for_no_space(struct work *work)
{
    job_report_error(work->job, "write", "stop");
    job_stop_on_error(work->job, -ENOSPC);
}

static void the_stop_policy_pauses_until_resumed(struct place *place)
{
    struct work work = { .steps = 1, .during_run = stop_for_no_space };

    start(place, &work, NULL);
    co_wait_for(place, "a:paused");
    g_autoptr(json_value) info = block_job_info(work.job);
    assert_string_equal(json_dict_string(info, "io-status", NULL), "nospace");
    assert_true(json_dict_bool(info, "paused", false));
    assert_false(json_dict_bool(info, "busy", true));
    assert_int_equal(job_pause(work.job, NULL), -EALREADY);
    atomic_store(&work.open, true);
    assert_int_equal(job_resume(work.job, NULL), 0);
    g_autoptr(json_value) resumed = block_job_info(work.job);
    assert_string_equal(json_dict_string(resumed, "io-status", NULL), "ok");
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running ERROR(stop) paused running waiting pending "
               "COMPLETED concluded null");
}

static void cancel_while_running(struct place *place)
{
    struct work work = { .steps = 1 };

    start(place, &work, NULL);
    while (atomic_load(&work.rounds) == 0) {
        co_reschedule();
    }
    assert_int_equal(job_cancel(work.job, false, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a", "created running aborting CANCELLED concluded null");
    assert_string_equal(place->calls->str, " a:abort a:clean");
}

static void cancel_before_it_has_begun_skips_the_work(struct place *place)
{
    struct work work = { .steps = 1 };

    start(place, &work, NULL);
    assert_int_equal(job_cancel(work.job, false, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a", "created running aborting CANCELLED concluded null");
}

static void cancel_while_paused_needs_force(struct place *place)
{
    struct work work = { .steps = 1 };
    g_autoptr(GError) err = NULL;

    start(place, &work, NULL);
    assert_int_equal(job_pause(work.job, NULL), 0);
    co_wait_for(place, "a:paused");
    assert_int_equal(job_cancel(work.job, false, &err), -EBUSY);
    assert_non_null(err);
    assert_int_equal(job_dismiss(work.job, NULL), -EPERM);
    assert_int_equal(job_cancel(work.job, true, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running paused running aborting CANCELLED concluded "
               "null");
}

static void cancel_while_pending(struct place *place)
{
    struct work work = { .open = true };

    start(place, &work, &manual_finalize);
    co_wait_for(place, "a:PENDING");
    assert_int_equal(job_cancel(work.job, false, NULL), 0);
    assert_int_equal(job_finalize(work.job, NULL), -EALREADY);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running waiting pending PENDING aborting CANCELLED "
               "concluded null");
}

/* T8, its first state. */
static void t8_cancel_while_created_ends_it_at_its_start(struct place *place)
{
    struct work work = { .steps = 1 };

    work_job(place, &work, "a", NULL);
    assert_int_equal(job_cancel(work.job, true, NULL), 0);
    start_group(place, &work, NULL);
    co_wait_for_all(place);
    assert_log(place, "a", "created running aborting CANCELLED concluded null");
    assert_int_equal(atomic_load(&work.rounds), 0);
}

static void a_discarded_job_is_gone_whatever_its_options(struct place *place)
{
    struct work work = { .steps = 1 };

    work_job(place, &work, "a", &manual_dismiss);
    co_job_discard(work.job);
    assert_log(place, "a", "created aborting concluded null");
    assert_string_equal(place->calls->str, " a:abort a:clean");
    assert_null(job_find(place->jobs, "a"));
}

static void pausing_holds_the_work(struct place *place)
{
    struct work work = { .steps = 1 };

    start(place, &work, NULL);
    assert_int_equal(job_resume(work.job, NULL), -EINVAL);
    assert_int_equal(job_pause(work.job, NULL), 0);
    assert_int_equal(job_pause(work.job, NULL), -EALREADY);
    co_wait_for(place, "a:paused");
    int rounds = atomic_load(&work.rounds);
    for (int i = 0; i < 20; i++) {
        co_reschedule();
    }
    assert_int_equal(atomic_load(&work.rounds), rounds);
    assert_int_equal(job_resume(work.job, NULL), 0);
    assert_int_equal(job_state_of(work.job), JOB_RUNNING);
    /* Again at once: it pauses anew without having gone on. */
    assert_int_equal(job_pause(work.job, NULL), 0);
    co_reschedule();
    assert_int_equal(job_state_of(work.job), JOB_PAUSED);
    atomic_store(&work.open, true);
    assert_int_equal(job_resume(work.job, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running paused running paused running waiting pending "
               "COMPLETED concluded null");
}

/* Each verb that shall wake a job that sleeps for an hour does. */
static void a_sleeping_job_wakes_for_verbs(struct place *place)
{
    struct work work = { .sleeps = true };

    start(place, &work, NULL);
    while (atomic_load(&work.rounds) < 1) {
        co_reschedule();
    }
    assert_int_equal(job_set_speed(work.job, 4096, NULL), 0);
    while (atomic_load(&work.rounds) < 2) {
        co_reschedule();
    }
    assert_int_equal(atomic_load(&work.speed_seen), 4096);
    assert_int_equal(job_pause(work.job, NULL), 0);
    co_wait_for(place, "a:paused");
    assert_int_equal(job_resume(work.job, NULL), 0);
    while (atomic_load(&work.rounds) < 3) {
        co_reschedule();
    }
    assert_int_equal(job_cancel(work.job, true, NULL), 0);
    co_wait_for_all(place);
    assert_int_equal(work.final, -ECANCELED);
}

static void speed_is_checked_and_shown(struct place *place)
{
    static const struct job_ops no_speed = { .type = "create" };
    const struct job_options options = { .id = "b" };
    struct work work = { .steps = 1 };
    g_autoptr(GError) err = NULL;

    start(place, &work, NULL);
    assert_int_equal(job_set_speed(work.job, -1, &err), -EINVAL);
    assert_int_equal(job_set_speed(work.job, INT64_MAX, NULL), 0);
    assert_int_equal(job_speed(work.job), INT64_MAX);
    g_autoptr(json_value) info = block_job_info(work.job);
    assert_int_equal(json_dict_int(info, "speed", -1), INT64_MAX);

    struct job *other =
        job_new(place->jobs, &no_speed, &options, place->main, NULL, NULL);
    assert_int_equal(job_set_speed(other, 1, NULL), -ENOTSUP);
    co_job_discard(other);
    co_job_cancel_all(place->jobs);
}

static void a_job_shows_what_it_is(struct place *place)
{
    struct work work = { .steps = 7 };
    g_autoptr(GString) text = g_string_new(NULL);

    start(place, &work, &manual_finalize);
    g_autoptr(json_value) block = block_job_info(work.job);
    json_write(block, false, text);
    assert_string_equal(
        text->str,
        "{\"type\": \"backup\", \"device\": \"a\", \"len\": 7, \"offset\": 0, "
        "\"busy\": true, \"paused\": false, \"speed\": 0, \"io-status\": "
        "\"ok\", \"ready\": false, \"status\": \"running\", "
        "\"auto-finalize\": false, \"auto-dismiss\": true}");
    g_string_truncate(text, 0);
    atomic_store(&work.open, true);
    co_wait_for(place, "a:PENDING");
    g_autoptr(json_value) info = job_info(work.job);
    json_write(info, false, text);
    assert_string_equal(text->str,
                        "{\"id\": \"a\", \"type\": \"backup\", \"status\": "
                        "\"pending\", \"current-progress\": 7, "
                        "\"total-progress\": 7}");
    co_job_cancel_all(place->jobs);
}

static void the_newest_job_is_listed_first(struct place *place)
{
    struct work a = { .steps = 1 };
    struct work b = { .steps = 1 };

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    assert_ptr_equal(job_next(place->jobs, NULL), b.job);
    assert_ptr_equal(job_next(place->jobs, b.job), a.job);
    assert_null(job_next(place->jobs, a.job));
    co_job_discard(a.job);
    co_job_discard(b.job);
}

static void shutting_down_ends_jobs_in_every_state(struct place *place)
{
    struct work running = { .steps = 1 };
    struct work paused = { .sleeps = true };
    struct work pending = { .open = true };
    struct work concluded = { .open = true };

    work_job(place, &running, "running", &manual_dismiss);
    start_group(place, &running, NULL);
    work_job(place, &paused, "paused", NULL);
    start_group(place, &paused, NULL);
    work_job(place, &pending, "pending", &manual_finalize);
    start_group(place, &pending, NULL);
    work_job(place, &concluded, "concluded", &manual_dismiss);
    start_group(place, &concluded, NULL);
    job_pause(paused.job, NULL);
    co_wait_for(place, "paused:paused");
    co_wait_for(place, "pending:PENDING");
    co_wait_for(place, "concluded:concluded");
    co_job_cancel_all(place->jobs);
    assert_null(job_next(place->jobs, NULL));
    assert_int_equal(running.final, -ECANCELED);
    assert_int_equal(paused.final, -ECANCELED);
    assert_int_equal(pending.final, -ECANCELED);
    assert_int_equal(concluded.final, 0);
}

#define BOTH(name)                             \
 static void name##_on_one_loop(void **state)  \
 {                                             \
  (void)state;                                 \
  run_in_place(name, false);                   \
 }                                             \
 static void name##_on_iothreads(void **state) \
 {                                             \
  (void)state;                                 \
  run_in_place(name, true);                    \
 }

BOTH(t7_ids_are_checked)
BOTH(success_has_its_sequence)
BOTH(manual_finalize_waits_in_pending)
BOTH(manual_dismiss_waits_in_concluded)
BOTH(a_failure_is_told_with_its_text)
BOTH(an_error_without_a_text_gets_one)
BOTH(an_error_report_comes_before_the_end)
BOTH(the_stop_policy_pauses_until_resumed)
BOTH(cancel_while_running)
BOTH(cancel_before_it_has_begun_skips_the_work)
BOTH(cancel_while_paused_needs_force)
BOTH(cancel_while_pending)
BOTH(t8_cancel_while_created_ends_it_at_its_start)
BOTH(a_discarded_job_is_gone_whatever_its_options)
BOTH(pausing_holds_the_work)
BOTH(a_sleeping_job_wakes_for_verbs)
BOTH(speed_is_checked_and_shown)
BOTH(a_job_shows_what_it_is)
BOTH(the_newest_job_is_listed_first)
BOTH(shutting_down_ends_jobs_in_every_state)

#define UNIT(name) \
 cmocka_unit_test(name##_on_one_loop), cmocka_unit_test(name##_on_iothreads)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT(t7_ids_are_checked),
        UNIT(success_has_its_sequence),
        UNIT(manual_finalize_waits_in_pending),
        UNIT(manual_dismiss_waits_in_concluded),
        UNIT(a_failure_is_told_with_its_text),
        UNIT(an_error_without_a_text_gets_one),
        UNIT(an_error_report_comes_before_the_end),
        UNIT(the_stop_policy_pauses_until_resumed),
        UNIT(cancel_while_running),
        UNIT(cancel_before_it_has_begun_skips_the_work),
        UNIT(cancel_while_paused_needs_force),
        UNIT(cancel_while_pending),
        UNIT(t8_cancel_while_created_ends_it_at_its_start),
        UNIT(a_discarded_job_is_gone_whatever_its_options),
        UNIT(pausing_holds_the_work),
        UNIT(a_sleeping_job_wakes_for_verbs),
        UNIT(speed_is_checked_and_shown),
        UNIT(a_job_shows_what_it_is),
        UNIT(the_newest_job_is_listed_first),
        UNIT(shutting_down_ends_jobs_in_every_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
