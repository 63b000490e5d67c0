/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/daemon_jobs.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

#define PAUSE_MS 250
/* How long cancelled jobs may take to end. */
#define END_US INT64_C(60000000)

static void job_free(void *pointer)
{
    struct daemon_job *job = pointer;

    g_free(job->id);
    g_free(job->status);
    g_free(job->error);
    g_free(job);
}

static uint64_t get_size(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));

    return value < 0 ? 0 : (uint64_t)value;
}

int daemon_jobs_query(struct qmp_client *client,
                      const char *prefix,
                      GPtrArray **ret_jobs,
                      GError **err)
{
    json_t *list = NULL;
    int ret = qmp_command(client, "query-jobs", NULL, &list, err);

    if (ret < 0) {
        return ret;
    }
    *ret_jobs = g_ptr_array_new_with_free_func(job_free);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *info = json_array_get(list, i);
        const char *id = json_string_value(json_object_get(info, "id"));
        if (id == NULL || !g_str_has_prefix(id, prefix)) {
            continue;
        }
        struct daemon_job *job = g_new0(struct daemon_job, 1);
        job->id = g_strdup(id);
        job->status =
            g_strdup(json_string_value(json_object_get(info, "status")));
        job->error =
            g_strdup(json_string_value(json_object_get(info, "error")));
        job->current = get_size(info, "current-progress");
        job->total = get_size(info, "total-progress");
        g_ptr_array_add(*ret_jobs, job);
    }
    json_decref(list);
    return 0;
}

struct daemon_job *daemon_jobs_find(const GPtrArray *jobs, const char *id)
{
    for (guint i = 0; i < jobs->len; i++) {
        struct daemon_job *job = jobs->pdata[i];
        if (strcmp(job->id, id) == 0) {
            return job;
        }
    }
    return NULL;
}

static bool has_status(const struct daemon_job *job, const char *status)
{
    return g_strcmp0(job->status, status) == 0;
}

bool daemon_jobs_all(const GPtrArray *jobs, const char *status)
{
    for (guint i = 0; i < jobs->len; i++) {
        if (!has_status(jobs->pdata[i], status)) {
            return false;
        }
    }
    return jobs->len > 0;
}

int daemon_jobs_pause(struct qmp_client *client, GError **err)
{
    json_t *event;
    int ret = qmp_client_wait(client, PAUSE_MS, err);

    while ((event = qmp_client_take_event(client)) != NULL) {
        json_decref(event); /* it woke us; query-jobs tells the rest */
    }
    return ret;
}

/* One refusal is normal: the job ended by itself meanwhile. */
static int cancel_unended(struct qmp_client *client,
                          const GPtrArray *jobs,
                          GError **err)
{
    for (guint i = 0; i < jobs->len; i++) {
        const struct daemon_job *job = jobs->pdata[i];
        if (has_status(job, "concluded") || has_status(job, "aborting") ||
            has_status(job, "null")) {
            continue;
        }
        g_autoptr(GError) why = NULL;
        int ret = qmp_command(client, "job-cancel",
                              json_pack("{s:s}", "id", job->id), NULL, &why);
        if (ret < 0 && ret != -EREMOTEIO) {
            g_propagate_error(err, g_steal_pointer(&why));
            return ret;
        }
    }
    return 0;
}

int daemon_jobs_end_all(struct qmp_client *client,
                        const char *prefix,
                        GPtrArray **ret_jobs,
                        GError **err)
{
    int64_t deadline_us = g_get_monotonic_time() + END_US;
    g_autoptr(GPtrArray) jobs = NULL;
    int ret = daemon_jobs_query(client, prefix, &jobs, err);

    if (ret == 0) {
        ret = cancel_unended(client, jobs, err);
    }
    while (ret == 0) {
        g_clear_pointer(&jobs, g_ptr_array_unref);
        ret = daemon_jobs_query(client, prefix, &jobs, err);
        if (ret < 0) {
            break;
        }
        if (jobs->len == 0 || daemon_jobs_all(jobs, "concluded")) {
            *ret_jobs = g_steal_pointer(&jobs);
            break;
        }
        if (g_get_monotonic_time() > deadline_us) {
            return error_set(err, -ETIMEDOUT,
                             "jobs that were cancelled have not ended within "
                             "a minute; see query-jobs");
        }
        ret = daemon_jobs_pause(client, err);
    }
    return ret;
}

int daemon_jobs_dismiss_all(struct qmp_client *client,
                            const char *prefix,
                            GError **err)
{
    g_autoptr(GPtrArray) jobs = NULL;
    int ret = daemon_jobs_query(client, prefix, &jobs, err);

    for (guint i = 0; ret == 0 && i < jobs->len; i++) {
        const struct daemon_job *job = jobs->pdata[i];
        if (has_status(job, "concluded")) {
            ret = qmp_command(client, "job-dismiss",
                              json_pack("{s:s}", "id", job->id), NULL, err);
        }
    }
    return ret;
}
