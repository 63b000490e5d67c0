/* SPDX-License-Identifier: BSD-3-Clause */
#include "job_test.h"

#include <errno.h>
#include <string.h>

static void log_event(void *opaque, const char *event, struct json_value *data)
{
    struct place *place = opaque;
    const char *error = json_dict_string(data, "error", NULL);
    const char *id = json_dict_string(data, "id", NULL);

    assert_ptr_equal(loop_current(), place->main);
    if (id == NULL) {
        id = json_dict_string(data, "device", NULL);
    }
    if (g_str_has_prefix(event, "BLOCK_JOB_")) {
        event += strlen("BLOCK_JOB_");
    } else {
        event = json_dict_string(data, "status", NULL);
    }
    if (strcmp(event, "ERROR") == 0) {
        error = json_dict_string(data, "action", NULL);
    }
    g_string_append_printf(place->log, " %s:%s", id, event);
    if (error != NULL) {
        g_string_append_printf(place->log, "(%s)", error);
    }
    json_free(data);
    co_queue_wake_all(&place->changed);
}

static void note_call(struct work *work, const char *call)
{
    assert_ptr_equal(loop_current(), work->place->main);
    g_string_append_printf(work->place->calls, " %s:%s", job_id(work->job),
                           call);
}

static int co_work_run(struct job *job, GError **err)
{
    struct work *work = job_opaque(job);

    if (work->during_run != NULL) {
        work->during_run(work);
    }
    while (!atomic_load(&work->open)) {
        if (co_job_pause_point(job)) {
            return -ECANCELED;
        }
        atomic_fetch_add(&work->rounds, 1);
        if (work->sleeps) {
            co_job_sleep_until(job,
                               loop_now_ns() + UINT64_C(3600) * 1000000000);
        } else {
            co_reschedule();
        }
    }
    for (int i = 0; i < work->steps; i++) {
        job_progress_add_done(job, 1);
        co_reschedule();
    }
    if (work->result == -EIO) {
        error_set(err, -EIO, "the disk is broken");
    }
    return work->result;
}

static int co_work_prepare(struct job *job, GError **err)
{
    struct work *work = job_opaque(job);

    note_call(work, "prepare");
    if (work->co_during_prepare != NULL) {
        work->co_during_prepare(work);
    }
    co_reschedule();
    if (work->prepare_result < 0) {
        error_set(err, work->prepare_result, "it cannot be flushed");
    }
    return work->prepare_result;
}

static void co_work_commit(struct job *job)
{
    note_call(job_opaque(job), "commit");
    co_reschedule();
}

static void co_work_abort(struct job *job)
{
    note_call(job_opaque(job), "abort");
    co_reschedule();
}

static void co_work_clean(struct job *job)
{
    struct work *work = job_opaque(job);

    note_call(work, "clean");
    work->final = job_result(job);
    work->clean_calls++;
    co_reschedule();
}

static void work_cancel(struct job *job)
{
    struct work *work = job_opaque(job);

    atomic_fetch_add(&work->cancel_calls, 1);
}

static void work_set_speed(struct job *job, uint64_t bytes_per_second)
{
    struct work *work = job_opaque(job);

    atomic_store(&work->speed_seen, bytes_per_second);
}

static const struct job_ops work_ops = {
    .type = "backup",
    .is_block_job = true,
    .co_run = co_work_run,
    .co_prepare = co_work_prepare,
    .co_commit = co_work_commit,
    .co_abort = co_work_abort,
    .co_clean = co_work_clean,
    .cancel = work_cancel,
    .set_speed = work_set_speed,
};

struct job *work_job(struct place *place,
                     struct work *work,
                     const char *id,
                     const struct job_options *options)
{
    struct job_options filled = { .auto_finalize = true, .auto_dismiss = true };
    g_autoptr(GError) err = NULL;
    size_t count = 0;

    if (options != NULL) {
        filled = *options;
    }
    filled.id = id;
    for (struct job *job = NULL; (job = job_next(place->jobs, job)) != NULL;
         count++) {
    }
    work->place = place;
    work->job = job_new(place->jobs, &work_ops, &filled,
                        place->homes[count % HOMES], work, &err);
    assert_non_null(work->job);
    job_progress_set_total(work->job, (uint64_t)work->steps);
    return work->job;
}

void start_group(struct place *place, struct work *first, ...)
{
    struct job_txn *txn = job_txn_new();
    va_list works;

    (void)place;
    va_start(works, first);
    for (struct work *work = first; work != NULL;
         work = va_arg(works, struct work *)) {
        job_txn_add(txn, work->job);
    }
    va_end(works);
    job_txn_start(&txn);
    assert_null(txn);
}

static bool has_word(const GString *log, const char *word)
{
    g_auto(GStrv) words = g_strsplit(log->str, " ", -1);

    return g_strv_contains((const char *const *)words, word);
}

void co_wait_for(struct place *place, const char *word)
{
    while (!has_word(place->log, word)) {
        co_queue_wait(&place->changed);
    }
}

void co_wait_for_all(struct place *place)
{
    while (job_next(place->jobs, NULL) != NULL) {
        co_queue_wait(&place->changed);
    }
}

void assert_log(struct place *place, const char *id, const char *expected)
{
    g_autoptr(GString) got = g_string_new(NULL);
    g_autofree char *prefix = g_strdup_printf(" %s:", id);
    const char *at =
        id == NULL ? place->log->str + 1 : strstr(place->log->str, prefix);

    if (id == NULL) {
        assert_string_equal(at, expected);
        return;
    }
    while (at != NULL) {
        at += strlen(prefix);
        const char *next = strchr(at, ':');
        const char *end =
            next == NULL ? at + strlen(at) : g_strrstr_len(at, next - at, " ");
        g_string_append_printf(got, "%s%.*s", got->len > 0 ? " " : "",
                               (int)(end - at), at);
        at = strstr(end, prefix);
    }
    assert_string_equal(got->str, expected);
}

static void co_run_test(void *opaque)
{
    struct place *place = opaque;

    place->test(place);
    co_job_cancel_all(place->jobs);
    job_list_free(place->jobs);
    loop_stop(place->main);
}

void run_in_place(void (*test)(struct place *place), bool iothreads)
{
    struct place place = { .test = test };

    place.main = loop_new(&loop_uring_backend, "main", NULL);
    assert_non_null(place.main);
    for (int i = 0; i < HOMES; i++) {
        place.homes[i] =
            iothreads ? loop_thread_start(&loop_uring_backend, "home", NULL)
                      : place.main;
        assert_non_null(place.homes[i]);
    }
    place.jobs = job_list_new(log_event, &place);
    place.log = g_string_new(NULL);
    place.calls = g_string_new(NULL);
    co_queue_init(&place.changed);
    co_spawn(place.main, co_run_test, &place);
    loop_run(place.main);
    for (int i = 0; iothreads && i < HOMES; i++) {
        loop_thread_join(place.homes[i]);
    }
    loop_free(place.main);
    g_string_free(place.log, TRUE);
    g_string_free(place.calls, TRUE);
}
