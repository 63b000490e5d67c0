/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups: complete together or fail together. T1 to T6 are named after the
 * statements of the same label; each runs on one loop and on three threads.
 */
#include <errno.h>
#include <string.h>

#include "job_test.h"

#define WORK(...)           \
 {                          \
  .open = true, __VA_ARGS__ \
 }

static void t1_one_job_ends_as_it_says(struct place *place)
{
    struct work ok = WORK(.steps = 1);
    struct work broken = WORK(.steps = 1, .result = -EIO);
    struct work cancelled = { .steps = 1 };

    work_job(place, &ok, "ok", NULL);
    start_group(place, &ok, NULL);
    work_job(place, &broken, "broken", NULL);
    start_group(place, &broken, NULL);
    work_job(place, &cancelled, "cancelled", NULL);
    start_group(place, &cancelled, NULL);
    assert_int_equal(job_cancel(cancelled.job, true, NULL), 0);
    co_wait_for_all(place);
    assert_int_equal(ok.final, 0);
    assert_int_equal(broken.final, -EIO);
    assert_int_equal(cancelled.final, -ECANCELED);
}

static void t2_two_jobs_of_different_length_succeed(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = WORK(.steps = 2);

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for_all(place);
    assert_int_equal(a.final, 0);
    assert_int_equal(b.final, 0);
}

static void check_failure(struct place *place, struct work *a, struct work *b)
{
    work_job(place, a, "a", NULL);
    work_job(place, b, "b", NULL);
    start_group(place, a, b, NULL);
    co_wait_for_all(place);
    assert_int_equal(a->final, a->result < 0 ? -EIO : -ECANCELED);
    assert_int_equal(b->final, b->result < 0 ? -EIO : -ECANCELED);
}

static void t3_a_shorter_job_that_fails_cancels_the_other(struct place *place)
{
    struct work a = WORK(.steps = 1, .result = -EIO);
    struct work b = WORK(.steps = 2);

    check_failure(place, &a, &b);
}

static void t3_a_longer_job_that_fails_cancels_the_other(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = WORK(.steps = 2, .result = -EIO);

    check_failure(place, &a, &b);
}

static void cancel_one(struct place *place, bool first)
{
    struct work a = { .steps = 1 };
    struct work b = { .steps = 2 };

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    job_cancel(first ? a.job : b.job, true, NULL);
    co_wait_for_all(place);
    assert_int_equal(a.final, -ECANCELED);
    assert_int_equal(b.final, -ECANCELED);
    assert_null(strstr(place->log->str, "COMPLETED"));
}

static void t4_cancelling_the_first_cancels_both(struct place *place)
{
    cancel_one(place, true);
}

static void t4_cancelling_the_second_cancels_both(struct place *place)
{
    cancel_one(place, false);
}

static void t5_success_after_a_peers_cancel_is_cancelled(struct place *place)
{
    struct work a = { .steps = 1 };
    struct work b = WORK(.steps = 0);

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    /* Requested before this loop has run anything; b does not look. */
    job_cancel(a.job, true, NULL);
    co_wait_for_all(place);
    assert_int_equal(a.final, -ECANCELED);
    assert_int_equal(b.final, -ECANCELED);
    assert_log(place, "b", "created running aborting CANCELLED concluded null");
}

/* start_group() drops the creator's reference in every test here; this one
 * drops it with nothing to do at all. */
static void t6_a_group_outlives_its_creators_reference(struct place *place)
{
    struct job_txn *empty = job_txn_new();
    struct work a = WORK();

    job_txn_start(&empty);
    work_job(place, &a, "a", NULL);
    start_group(place, &a, NULL);
    co_wait_for_all(place);
    assert_int_equal(a.clean_calls, 1);
}

/*
 * The sequences of events.
 */

static void both_succeed_in_sequence(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = { .steps = 1 };

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "a:waiting");
    atomic_store(&b.open, true);
    co_wait_for_all(place);
    assert_log(place, NULL,
               "a:created b:created a:running b:running a:waiting b:waiting "
               "a:pending b:pending a:COMPLETED a:concluded a:null "
               "b:COMPLETED b:concluded b:null");
    assert_string_equal(place->calls->str,
                        " a:prepare b:prepare a:commit b:commit a:clean "
                        "b:clean");
}

static void one_manual_member_makes_all_wait(struct place *place)
{
    const struct job_options manual = { .auto_dismiss = true };
    struct work a = WORK(.steps = 1);
    struct work b = { .steps = 1 };
    g_autoptr(GError) err = NULL;

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", &manual);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "a:waiting");
    assert_int_equal(job_finalize(a.job, &err), -EPERM);
    atomic_store(&b.open, true);
    co_wait_for(place, "b:PENDING");
    assert_string_equal(place->calls->str, "");
    /* On any member, and once. */
    assert_int_equal(job_finalize(a.job, NULL), 0);
    assert_int_equal(job_finalize(b.job, NULL), -EALREADY);
    co_wait_for_all(place);
    assert_log(place, NULL,
               "a:created b:created a:running b:running a:waiting b:waiting "
               "a:pending b:pending b:PENDING a:COMPLETED a:concluded a:null "
               "b:COMPLETED b:concluded b:null");
}

static void a_failure_cancels_a_peer_at_work(struct place *place)
{
    struct work a = { .steps = 1 };
    struct work b = WORK(.result = -EIO);

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for_all(place);
    assert_log(place, NULL,
               "a:created b:created a:running b:running b:aborting a:aborting "
               "a:CANCELLED a:concluded a:null "
               "b:COMPLETED(the disk is broken) b:concluded b:null");
    assert_string_equal(place->calls->str, " a:abort b:abort a:clean b:clean");
    assert_true(atomic_load(&a.cancel_calls) <= 1);
}

static void a_failure_cancels_a_peer_that_waits(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = { .result = -EIO };

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "a:waiting");
    atomic_store(&b.open, true);
    co_wait_for_all(place);
    assert_log(place, NULL,
               "a:created b:created a:running b:running a:waiting b:aborting "
               "a:aborting a:CANCELLED a:concluded a:null "
               "b:COMPLETED(the disk is broken) b:concluded b:null");
    assert_int_equal(a.final, -ECANCELED);
    assert_int_equal(atomic_load(&a.cancel_calls), 0);
}

static void cancelling_one_that_waits_cancels_all(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = { .steps = 1 };

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "a:waiting");
    assert_int_equal(job_cancel(a.job, false, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running waiting aborting CANCELLED concluded null");
    assert_log(place, "b", "created running aborting CANCELLED concluded null");
}

static void cancelling_one_that_is_pending_cancels_all(struct place *place)
{
    const struct job_options manual = { .auto_dismiss = true };
    struct work a = WORK(.steps = 1);
    struct work b = WORK(.steps = 1);

    work_job(place, &a, "a", &manual);
    work_job(place, &b, "b", &manual);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "b:PENDING");
    assert_int_equal(job_cancel(b.job, true, NULL), 0);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running waiting pending PENDING aborting CANCELLED "
               "concluded null");
    assert_log(place, "b",
               "created running waiting pending PENDING aborting CANCELLED "
               "concluded null");
    assert_string_equal(place->calls->str, " a:abort b:abort a:clean b:clean");
}

static void a_failed_prepare_aborts_all(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = WORK(.steps = 1, .prepare_result = -ENOSPC);
    struct work c = WORK(.steps = 1);

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    work_job(place, &c, "c", NULL);
    start_group(place, &a, &b, &c, NULL);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running waiting pending aborting CANCELLED concluded "
               "null");
    assert_log(place, "b",
               "created running waiting pending aborting COMPLETED(it cannot "
               "be flushed) concluded null");
    assert_log(place, "c",
               "created running waiting pending aborting CANCELLED concluded "
               "null");
    assert_string_equal(place->calls->str,
                        " a:prepare b:prepare a:abort b:abort c:abort a:clean "
                        "b:clean c:clean");
}

static void cancel_self(struct work *work)
{
    assert_int_equal(job_cancel(work->job, true, NULL), 0);
}

static void a_cancel_while_preparing_wins(struct place *place)
{
    struct work a = WORK(.steps = 1, .co_during_prepare = cancel_self);
    struct work b = WORK(.steps = 1);

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for_all(place);
    assert_int_equal(a.final, -ECANCELED);
    assert_int_equal(b.final, -ECANCELED);
    assert_string_equal(place->calls->str,
                        " a:prepare a:abort b:abort a:clean b:clean");
}

static void a_cancel_after_the_group_is_sealed_is_refused(struct place *place)
{
    struct work a = WORK(.steps = 1);
    struct work b = WORK(.steps = 1);
    g_autoptr(GError) err = NULL;

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "a:COMPLETED");
    assert_int_equal(job_cancel(b.job, true, &err), -EBUSY);
    assert_non_null(strstr(err->message, "has succeeded"));
    co_wait_for_all(place);
    assert_int_equal(b.final, 0);
}

/* Both fail: the first is told as failed, the other as cancelled. */
static void a_second_failure_is_told_as_cancelled(struct place *place)
{
    struct work a = WORK(.result = -EIO);
    struct work b = { .result = -EIO };

    work_job(place, &a, "a", NULL);
    work_job(place, &b, "b", NULL);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "a:aborting");
    atomic_store(&b.open, true);
    co_wait_for_all(place);
    assert_log(place, "a",
               "created running aborting COMPLETED(the disk is broken) "
               "concluded null");
    assert_log(place, "b", "created running aborting CANCELLED concluded null");
}

static void the_error_of_a_cancelled_peer_says_so(struct place *place)
{
    const struct job_options kept = { .auto_finalize = true };
    struct work a = { .steps = 1 };
    struct work b = WORK(.result = -EIO);

    work_job(place, &a, "a", &kept);
    work_job(place, &b, "b", &kept);
    start_group(place, &a, &b, NULL);
    co_wait_for(place, "b:concluded");
    g_autoptr(json_value) a_info = job_info(a.job);
    g_autoptr(json_value) b_info = job_info(b.job);
    assert_string_equal(json_dict_string(a_info, "error", NULL),
                        "Operation canceled");
    assert_string_equal(json_dict_string(b_info, "error", NULL),
                        "the disk is broken");
    assert_int_equal(job_dismiss(a.job, NULL), 0);
    assert_int_equal(job_dismiss(b.job, NULL), 0);
}

static void a_group_that_never_starts_is_discarded(struct place *place)
{
    const struct job_options kept = { .auto_finalize = true };
    struct work a = WORK();
    struct work b = WORK();
    struct job_txn *txn = job_txn_new();

    job_txn_add(txn, work_job(place, &a, "a", &kept));
    job_txn_add(txn, work_job(place, &b, "b", &kept));
    co_job_txn_discard(&txn);
    assert_null(txn);
    assert_null(job_next(place->jobs, NULL));
    assert_log(place, "a", "created aborting concluded null");
    assert_log(place, "b", "created aborting concluded null");
    assert_int_equal(a.clean_calls + b.clean_calls, 2);
    assert_int_equal(a.final, -ECANCELED);
}

/* Nobody is successful in an aborted group, however the race goes. */
static void a_race_of_ends_and_cancels_has_one_outcome(struct place *place)
{
    enum {
        COUNT = 16
    };
    struct work works[COUNT];

    for (int round = 0; round < 40; round++) {
        struct job_txn *txn = job_txn_new();
        memset(works, 0, sizeof(works));
        for (int i = 0; i < COUNT; i++) {
            g_autofree char *id = g_strdup_printf("j%d", i);
            works[i].open = true;
            works[i].steps = i % 5;
            works[i].result = round % 3 == 1 && i == round % COUNT ? -EIO : 0;
            job_txn_add(txn, work_job(place, &works[i], id, NULL));
        }
        job_txn_start(&txn);
        for (int i = 0; i < round; i++) {
            co_reschedule();
        }
        if (round % 3 == 2) {
            struct job *job = job_next(place->jobs, NULL);
            if (job != NULL) {
                (void)job_cancel(job, true, NULL); /* may come too late */
            }
        }
        co_wait_for_all(place);
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(works[i].clean_calls, 1);
            assert_int_equal(works[i].final < 0, works[0].final < 0);
        }
    }
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

BOTH(t1_one_job_ends_as_it_says)
BOTH(t2_two_jobs_of_different_length_succeed)
BOTH(t3_a_shorter_job_that_fails_cancels_the_other)
BOTH(t3_a_longer_job_that_fails_cancels_the_other)
BOTH(t4_cancelling_the_first_cancels_both)
BOTH(t4_cancelling_the_second_cancels_both)
BOTH(t5_success_after_a_peers_cancel_is_cancelled)
BOTH(t6_a_group_outlives_its_creators_reference)
BOTH(both_succeed_in_sequence)
BOTH(one_manual_member_makes_all_wait)
BOTH(a_failure_cancels_a_peer_at_work)
BOTH(a_failure_cancels_a_peer_that_waits)
BOTH(cancelling_one_that_waits_cancels_all)
BOTH(cancelling_one_that_is_pending_cancels_all)
BOTH(a_failed_prepare_aborts_all)
BOTH(a_cancel_while_preparing_wins)
BOTH(a_cancel_after_the_group_is_sealed_is_refused)
BOTH(a_second_failure_is_told_as_cancelled)
BOTH(the_error_of_a_cancelled_peer_says_so)
BOTH(a_group_that_never_starts_is_discarded)
BOTH(a_race_of_ends_and_cancels_has_one_outcome)

#define UNIT(name) \
 cmocka_unit_test(name##_on_one_loop), cmocka_unit_test(name##_on_iothreads)

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT(t1_one_job_ends_as_it_says),
        UNIT(t2_two_jobs_of_different_length_succeed),
        UNIT(t3_a_shorter_job_that_fails_cancels_the_other),
        UNIT(t3_a_longer_job_that_fails_cancels_the_other),
        UNIT(t4_cancelling_the_first_cancels_both),
        UNIT(t4_cancelling_the_second_cancels_both),
        UNIT(t5_success_after_a_peers_cancel_is_cancelled),
        UNIT(t6_a_group_outlives_its_creators_reference),
        UNIT(both_succeed_in_sequence),
        UNIT(one_manual_member_makes_all_wait),
        UNIT(a_failure_cancels_a_peer_at_work),
        UNIT(a_failure_cancels_a_peer_that_waits),
        UNIT(cancelling_one_that_waits_cancels_all),
        UNIT(cancelling_one_that_is_pending_cancels_all),
        UNIT(a_failed_prepare_aborts_all),
        UNIT(a_cancel_while_preparing_wins),
        UNIT(a_cancel_after_the_group_is_sealed_is_refused),
        UNIT(a_second_failure_is_told_as_cancelled),
        UNIT(the_error_of_a_cancelled_peer_says_so),
        UNIT(a_group_that_never_starts_is_discarded),
        UNIT(a_race_of_ends_and_cancels_has_one_outcome),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
