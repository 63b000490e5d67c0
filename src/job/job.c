/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Jobs and the list of them: being made, being found, changing state, ending.
 *
 * A job that is never started ends by co_job_discard(); every other one goes
 * through its group (job_txn.c), which calls job_conclude().
 */
#include "job/job.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/trace.h"
#include "block/node.h"
#include "job/job_priv.h"

struct job_list *job_list_new(job_event_fn event, void *opaque)
{
    struct job_list *list = g_new0(struct job_list, 1);

    list_init(&list->jobs);
    list->by_id = g_hash_table_new(g_str_hash, g_str_equal);
    list->event = event;
    list->opaque = opaque;
    co_queue_init(&list->ended);
    return list;
}

void job_list_free(struct job_list *list)
{
    if (list == NULL) {
        return;
    }
    g_assert(list_is_empty(&list->jobs));
    g_hash_table_destroy(list->by_id);
    g_free(list);
}

struct job *job_find(struct job_list *list, const char *id)
{
    return g_hash_table_lookup(list->by_id, id);
}

struct job *job_next(struct job_list *list, struct job *job)
{
    struct list *link = job == NULL ? list->jobs.next : job->link.next;

    return link == &list->jobs ? NULL : LIST_ENTRY(link, struct job, link);
}

static int check_id(struct job_list *list, const char *id, GError **err)
{
    if (id == NULL || id[0] == '\0') {
        return error_set(err, -EINVAL,
                         "A job needs an id; give it as 'job-id'");
    }
    if (strlen(id) > LIMIT_ID_BYTES) {
        return error_set(err, -EINVAL, "A job's id has at most %d bytes",
                         LIMIT_ID_BYTES);
    }
    if (!block_name_is_legal(id)) {
        return error_set(err, -EINVAL,
                         "'%s' is no legal job id: it must begin with a letter "
                         "and go on with letters, digits, '-', '.' and '_'",
                         id);
    }
    if (job_find(list, id) != NULL) {
        return error_set(err, -EEXIST,
                         "There is a job '%s' already; choose another id, or "
                         "dismiss it if it has ended",
                         id);
    }
    return 0;
}

struct job *job_new(struct job_list *list,
                    const struct job_ops *ops,
                    const struct job_options *options,
                    struct loop *home,
                    void *opaque,
                    GError **err)
{
    if (check_id(list, options->id, err) < 0) {
        return NULL;
    }
    g_assert(loop_current() != NULL);
    struct job *job = g_new0(struct job, 1);
    job->list = list;
    list_init(&job->txn_link);
    job->ops = ops;
    job->opaque = opaque;
    job->id = g_strdup(options->id);
    job->main = loop_current();
    job->home = home;
    job->auto_finalize = options->auto_finalize;
    job->auto_dismiss = options->auto_dismiss;
    co_queue_init(&job->resumed);
    co_queue_init(&job->sleepers);
    atomic_init(&job->cancelled, false);
    atomic_init(&job->nudge_posted, false);
    atomic_init(&job->pause_reason, JOB_PAUSE_NONE);
    atomic_init(&job->speed, options->speed);
    atomic_init(&job->total, 0);
    atomic_init(&job->done, 0);
    job->speed_told = options->speed;
    list_prepend(&list->jobs, &job->link);
    g_hash_table_insert(list->by_id, job->id, job);
    job_move(job, JOB_CREATED);
    return job;
}

void job_move(struct job *job, enum job_state state)
{
    g_assert(job_state_may_move(job->state, state));
    if (job->state == state) {
        return;
    }
    trace_job_state(job->id, job_state_name(job->state), job_state_name(state));
    job->state = state;
    struct json_value *data = json_dict_new();
    json_dict_set_string(data, "id", job->id);
    json_dict_set_string(data, "status", job_state_name(state));
    job_emit(job, "JOB_STATUS_CHANGE", data);
    if (state == JOB_CONCLUDED || state == JOB_NULL) {
        co_queue_wake_all(&job->list->ended);
    }
}

static void job_free(struct job *job)
{
    g_assert(job->txn == NULL && !job->working);
    list_remove(&job->link);
    g_hash_table_remove(job->list->by_id, job->id);
    g_clear_error(&job->error);
    g_free(job->id);
    g_free(job);
}

void job_set_result(struct job *job, int result, GError *error)
{
    g_assert(result < 0);
    if (error == NULL) {
        error_set(&error, result, "%s", g_strerror(-result));
    }
    job->result = result;
    g_clear_error(&job->error);
    job->error = error;
    trace_job_failed(job->id, result, error->message);
}

void job_conclude(struct job *job, bool dismiss)
{
    job_move(job, JOB_CONCLUDED);
    if (dismiss) {
        job_move(job, JOB_NULL);
        job_free(job);
    }
}

void job_vanish(struct job *job)
{
    job->state = JOB_NULL;
    co_queue_wake_all(&job->list->ended);
    job_free(job);
}

void co_job_discard(struct job *job)
{
    g_assert(job->state == JOB_CREATED);
    if (job->txn != NULL) {
        list_remove(&job->txn_link);
        job->txn = NULL;
    }
    job_set_result(job, -ECANCELED, NULL);
    job_move(job, JOB_ABORTING);
    if (job->ops->co_abort != NULL) {
        job->ops->co_abort(job);
    }
    if (job->ops->co_clean != NULL) {
        job->ops->co_clean(job);
    }
    job_conclude(job, true);
}

int job_dismiss(struct job *job, GError **err)
{
    int result =
        job_state_check_verb(job->state, JOB_VERB_DISMISS, job->id, err);

    if (result == 0) {
        job_move(job, JOB_NULL);
        job_free(job);
    }
    return result;
}

/* Cancels what runs and dismisses what has ended; true: nothing is left. */
static bool cancel_step(struct job_list *list)
{
    LIST_FOREACH_SAFE(link, &list->jobs) {
        struct job *job = LIST_ENTRY(link, struct job, link);
        if (job->state == JOB_CONCLUDED) {
            (void)job_dismiss(job, NULL); /* this state allows it */
        } else {
            (void)job_cancel(job, true, NULL); /* refused: ends by itself */
        }
    }
    return list_is_empty(&list->jobs);
}

void co_job_cancel_all(struct job_list *list)
{
    while (!cancel_step(list)) {
        co_queue_wait(&list->ended);
    }
}

const char *job_id(const struct job *job)
{
    return job->id;
}

const char *job_type(const struct job *job)
{
    return job->ops->type;
}

bool job_is_block_job(const struct job *job)
{
    return job->ops->is_block_job;
}

enum job_state job_state_of(const struct job *job)
{
    return job->state;
}

struct job_list *job_list_of(const struct job *job)
{
    return job->list;
}

void *job_opaque(const struct job *job)
{
    return job->opaque;
}

int job_result(const struct job *job)
{
    return job->result;
}

void job_set_home(struct job *job, struct loop *home)
{
    g_assert(!job->started);
    job->home = home;
}

uint64_t job_speed(const struct job *job)
{
    return atomic_load(&job->speed);
}
