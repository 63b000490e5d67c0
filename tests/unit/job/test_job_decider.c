/* SPDX-License-Identifier: BSD-3-Clause */
/* Groups whose fate a decider makes durable. */
#include "job_test.h"

#include <errno.h>
#include <string.h>

struct scripted {
    struct job_txn_decider decider;
    struct place *place;
    int prepare_result;
    enum job_txn_verdict verdict;
    void (*co_during_prepare)(struct scripted *self);
    void (*co_during_decide)(struct scripted *self, struct job_txn *txn);
    GError *refusal; /* of what a test tries in between */
};

static void note(struct scripted *self, const char *call)
{
    g_string_append_printf(self->place->calls, " decider:%s", call);
}

static void pending(struct job_txn_decider *decider)
{
    note((struct scripted *)decider, "pending");
}

static int co_prepare(struct job_txn_decider *decider, GError **err)
{
    struct scripted *self = (struct scripted *)decider;

    note(self, "prepare");
    co_reschedule();
    if (self->co_during_prepare != NULL) {
        self->co_during_prepare(self);
    }
    return self->prepare_result < 0
               ? error_set(err, self->prepare_result, "the file is full")
               : 0;
}

static enum job_txn_verdict co_decide(struct job_txn_decider *decider,
                                      struct job_txn *txn,
                                      GError **err)
{
    struct scripted *self = (struct scripted *)decider;

    note(self, "decide");
    co_reschedule();
    if (self->co_during_decide != NULL) {
        self->co_during_decide(self, txn);
    }
    if (self->verdict != JOB_TXN_COMMIT) {
        error_set(err, -EIO, "the log is broken");
    }
    return self->verdict;
}

static void co_settle(struct job_txn_decider *decider,
                      enum job_txn_verdict verdict)
{
    static const char *const names[] = { "settle-commit", "settle-abort",
                                         "settle-let-go" };

    note((struct scripted *)decider, names[verdict]);
    co_reschedule();
}

static void co_end(struct job_txn_decider *decider)
{
    note((struct scripted *)decider, "end");
    co_reschedule();
}

static void scripted_init(struct scripted *self, struct place *place)
{
    *self = (struct scripted){
        .decider = {
            .pending = pending,
            .co_prepare = co_prepare,
            .co_decide = co_decide,
            .co_settle = co_settle,
            .co_end = co_end,
        },
        .place = place,
    };
}

static void start_two(struct place *place,
                      struct scripted *self,
                      struct work *a,
                      struct work *b)
{
    struct job_txn *txn = job_txn_new();

    atomic_store(&a->open, true);
    atomic_store(&b->open, true);
    job_txn_add(txn, work_job(place, a, "a", NULL));
    job_txn_add(txn, work_job(place, b, "b", NULL));
    job_txn_set_decider(txn, &self->decider);
    job_txn_start(&txn);
}

static void check_order(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_string_equal(place->calls->str,
                        " decider:pending a:prepare b:prepare decider:prepare"
                        " decider:decide decider:settle-commit a:commit"
                        " b:commit decider:end a:clean b:clean");
    assert_log(place, "b",
               "created running waiting pending COMPLETED "
               "concluded null");
}

static void test_decided_between_the_last_prepare_and_commit(void **state)
{
    (void)state;
    run_in_place(check_order, true);
}

static void check_prepare_fails(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    self.prepare_result = -ENOSPC;
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_non_null(strstr(place->calls->str,
                           " decider:prepare decider:settle-abort a:abort"
                           " b:abort decider:end"));
    assert_log(place, "a",
               "created running waiting pending aborting "
               "COMPLETED(the file is full) concluded null");
    assert_log(place, "b",
               "created running waiting pending aborting CANCELLED "
               "concluded null");
}

static void test_a_decider_that_cannot_prepare_aborts_all(void **state)
{
    (void)state;
    run_in_place(check_prepare_fails, false);
}

static void check_aborts(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    self.verdict = JOB_TXN_ABORT;
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_non_null(strstr(place->calls->str,
                           " decider:decide decider:settle-abort a:abort"
                           " b:abort decider:end"));
    assert_log(place, "a",
               "created running waiting pending aborting "
               "COMPLETED(the log is broken) concluded null");
}

static void test_a_verdict_of_abort_fails_all(void **state)
{
    (void)state;
    run_in_place(check_aborts, false);
}

static void cancel_b(struct scripted *self)
{
    assert_int_equal(job_cancel(job_find(self->place->jobs, "b"), true, NULL),
                     0);
}

static void check_cancel_while_preparing(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    self.co_during_prepare = cancel_b;
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_null(strstr(place->calls->str, "decide "));
    assert_null(strstr(place->calls->str, "a:commit"));
}

static void test_a_cancel_while_the_decider_prepares_wins(void **state)
{
    (void)state;
    run_in_place(check_cancel_while_preparing, false);
}

static void try_cancel(struct scripted *self, struct job_txn *txn)
{
    (void)txn;
    assert_int_equal(
        job_cancel(job_find(self->place->jobs, "b"), true, &self->refusal),
        -EBUSY);
}

static void check_cancel_while_deciding(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    self.co_during_decide = try_cancel;
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_non_null(strstr(self.refusal->message, "is being finalized"));
    g_clear_error(&self.refusal);
    assert_non_null(strstr(place->calls->str, "a:commit b:commit"));
}

static void test_a_cancel_while_it_is_decided_is_refused(void **state)
{
    (void)state;
    run_in_place(check_cancel_while_deciding, false);
}

static void doubt_and_try(struct scripted *self, struct job_txn *txn)
{
    g_autoptr(GError) why = NULL;

    error_set(&why, -EIO, "the disk is gone");
    job_txn_set_doubt(txn, why);
    try_cancel(self, txn);
    self->verdict = JOB_TXN_ABORT;
}

static void check_cancel_in_doubt(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    self.co_during_decide = doubt_and_try;
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_non_null(strstr(self.refusal->message, "is in doubt"));
    assert_non_null(strstr(self.refusal->message, "the disk is gone"));
    g_clear_error(&self.refusal);
}

static void test_in_doubt_a_cancel_is_refused_and_told_why(void **state)
{
    (void)state;
    run_in_place(check_cancel_in_doubt, false);
}

static void check_let_go(struct place *place)
{
    struct work a = { 0 }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    self.verdict = JOB_TXN_LET_GO;
    start_two(place, &self, &a, &b);
    co_wait_for(place, "b:pending");
    while (job_next(place->jobs, NULL) != NULL) {
        co_reschedule();
    }
    while (strstr(place->calls->str, "decider:end") == NULL) {
        co_reschedule();
    }
    assert_log(place, "a", "created running waiting pending");
    assert_log(place, "b", "created running waiting pending");
    assert_non_null(strstr(place->calls->str, "decider:settle-let-go"));
    assert_int_equal(a.clean_calls + b.clean_calls, 2);
}

static void test_let_go_in_doubt_no_end_is_told(void **state)
{
    (void)state;
    run_in_place(check_let_go, false);
}

static void check_early_failure(struct place *place)
{
    struct work a = { .result = -EIO }, b = { 0 };
    struct scripted self;

    scripted_init(&self, place);
    start_two(place, &self, &a, &b);
    co_wait_for_all(place);
    assert_string_equal(place->calls->str,
                        " decider:settle-abort a:abort b:abort decider:end"
                        " a:clean b:clean");
}

static void test_a_group_that_fails_before_is_settled_as_aborted(void **state)
{
    (void)state;
    run_in_place(check_early_failure, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decided_between_the_last_prepare_and_commit),
        cmocka_unit_test(test_a_decider_that_cannot_prepare_aborts_all),
        cmocka_unit_test(test_a_verdict_of_abort_fails_all),
        cmocka_unit_test(test_a_cancel_while_the_decider_prepares_wins),
        cmocka_unit_test(test_a_cancel_while_it_is_decided_is_refused),
        cmocka_unit_test(test_in_doubt_a_cancel_is_refused_and_told_why),
        cmocka_unit_test(test_let_go_in_doubt_no_end_is_told),
        cmocka_unit_test(test_a_group_that_fails_before_is_settled_as_aborted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
