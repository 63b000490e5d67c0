/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What clients are told of a job: the elements of query-jobs and
 * query-block-jobs, and the BLOCK_JOB_* events.
 */
#include "job/job.h"

#include "base/trace.h"
#include "job/job_priv.h"

static const char *io_status(const struct job *job)
{
    static const char *const names[] = {
        [JOB_PAUSE_NONE] = "ok",
        [JOB_PAUSE_USER] = "ok",
        [JOB_PAUSE_FAILED] = "failed",
        [JOB_PAUSE_NO_SPACE] = "nospace",
    };

    return names[atomic_load(&job->pause_reason)];
}

static void set_error(struct json_value *info, const struct job *job)
{
    if (job->error != NULL) {
        json_dict_set_string(info, "error", job->error->message);
    }
}

struct json_value *job_info(const struct job *job)
{
    struct json_value *info = json_dict_new();

    json_dict_set_string(info, "id", job->id);
    json_dict_set_string(info, "type", job->ops->type);
    json_dict_set_string(info, "status", job_state_name(job->state));
    json_dict_set_uint(info, "current-progress", atomic_load(&job->done));
    json_dict_set_uint(info, "total-progress", atomic_load(&job->total));
    set_error(info, job);
    return info;
}

struct json_value *block_job_info(const struct job *job)
{
    struct json_value *info = json_dict_new();
    bool paused = atomic_load(&job->pause_reason) != JOB_PAUSE_NONE;
    bool ready = job->state == JOB_READY || job->state == JOB_STANDBY;
    bool busy = job->state == JOB_RUNNING && job->working;

    json_dict_set_string(info, "type", job->ops->type);
    json_dict_set_string(info, "device", job->id);
    json_dict_set_uint(info, "len", atomic_load(&job->total));
    json_dict_set_uint(info, "offset", atomic_load(&job->done));
    json_dict_set_bool(info, "busy", busy);
    json_dict_set_bool(info, "paused", paused);
    json_dict_set_uint(info, "speed", atomic_load(&job->speed));
    json_dict_set_string(info, "io-status", io_status(job));
    json_dict_set_bool(info, "ready", ready);
    json_dict_set_string(info, "status", job_state_name(job->state));
    json_dict_set_bool(info, "auto-finalize", job->auto_finalize);
    json_dict_set_bool(info, "auto-dismiss", job->auto_dismiss);
    set_error(info, job);
    return info;
}

void job_emit(struct job *job, const char *event, struct json_value *data)
{
    job->list->event(job->list->opaque, event, data);
}

void job_emit_end(struct job *job)
{
    bool cancelled = atomic_load(&job->cancelled);

    if (!job->ops->is_block_job) {
        return;
    }
    struct json_value *data = json_dict_new();
    json_dict_set_string(data, "type", job->ops->type);
    json_dict_set_string(data, "device", job->id);
    json_dict_set_uint(data, "len", atomic_load(&job->total));
    json_dict_set_uint(data, "offset", atomic_load(&job->done));
    json_dict_set_uint(data, "speed", atomic_load(&job->speed));
    if (!cancelled) {
        set_error(data, job);
    }
    job_emit(job, cancelled ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED",
             data);
}

void job_emit_pending(struct job *job)
{
    if (!job->ops->is_block_job) {
        return;
    }
    struct json_value *data = json_dict_new();
    json_dict_set_string(data, "type", job->ops->type);
    json_dict_set_string(data, "id", job->id);
    job_emit(job, "BLOCK_JOB_PENDING", data);
}

/* BLOCK_JOB_ERROR on its way from the home thread. It holds all it needs, so
 * it does not matter what becomes of the job meanwhile. */
struct error_report {
    struct loop_message message;
    struct job_list *list;
    struct json_value *data;
};

static void deliver_report(struct loop_message *message)
{
    struct error_report *report =
        LIST_ENTRY(message, struct error_report, message);

    report->list->event(report->list->opaque, "BLOCK_JOB_ERROR", report->data);
    g_free(report);
}

void job_report_error(struct job *job,
                      const char *operation,
                      const char *action)
{
    struct json_value *data = json_dict_new();

    trace_job_io_error(job->id, operation, action);
    json_dict_set_string(data, "device", job->id);
    json_dict_set_string(data, "operation", operation);
    json_dict_set_string(data, "action", action);
    if (loop_current() == job->main) {
        job_emit(job, "BLOCK_JOB_ERROR", data);
        return;
    }
    struct error_report *report = g_new0(struct error_report, 1);
    report->message.run = deliver_report;
    report->list = job->list;
    report->data = data;
    loop_post(job->main, &report->message);
}
