/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands on jobs: the job-* family and its older twins, block-job-*.
 *
 * The two differ in what names the job (`id`, or `device`, save for finalize
 * and dismiss) and in the error class of an unknown job: GenericError for
 * job-*, DeviceNotActive for block-job-*, which clients probe for.
 */
#include "qmp/command.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "qmp/job_types.h"

typedef int (*job_verb_fn)(struct job *job,
                           const struct json_value *arguments,
                           GError **err);

static int do_pause(struct job *job,
                    const struct json_value *arguments,
                    GError **err)
{
    (void)arguments;
    return job_pause(job, err);
}

static int do_resume(struct job *job,
                     const struct json_value *arguments,
                     GError **err)
{
    (void)arguments;
    return job_resume(job, err);
}

static int do_cancel(struct job *job,
                     const struct json_value *arguments,
                     GError **err)
{
    (void)arguments;
    return job_cancel(job, true, err);
}

static int do_block_cancel(struct job *job,
                           const struct json_value *arguments,
                           GError **err)
{
    return job_cancel(job, json_dict_bool(arguments, "force", false), err);
}

/* No kind of job here becomes ready, so that the state refuses it first. */
static int do_complete(struct job *job,
                       const struct json_value *arguments,
                       GError **err)
{
    int rc = job_state_check_verb(job_state_of(job), JOB_VERB_COMPLETE,
                                  job_id(job), err);

    (void)arguments;
    if (rc < 0) {
        return rc;
    }
    return error_set(err, -ENOTSUP,
                     "job '%s' ends of its own accord: a %s job cannot be "
                     "completed by hand",
                     job_id(job), job_type(job));
}

/* Kinds of jobs with something to change are none of ours. */
static int do_change(struct job *job,
                     const struct json_value *arguments,
                     GError **err)
{
    const char *type = json_dict_string(arguments, "type", "");
    int rc = job_state_check_verb(job_state_of(job), JOB_VERB_CHANGE,
                                  job_id(job), err);

    if (rc < 0) {
        return rc;
    }
    if (strcmp(type, job_type(job)) != 0) {
        return error_set(err, -EINVAL, "job '%s' is a %s job, no %s job",
                         job_id(job), job_type(job), type);
    }
    return error_set(err, -ENOTSUP,
                     "job '%s' cannot be changed: a %s job has no such "
                     "option; its speed is set with block-job-set-speed",
                     job_id(job), job_type(job));
}

static int do_finalize(struct job *job,
                       const struct json_value *arguments,
                       GError **err)
{
    (void)arguments;
    return job_finalize(job, err);
}

static int do_dismiss(struct job *job,
                      const struct json_value *arguments,
                      GError **err)
{
    (void)arguments;
    return job_dismiss(job, err);
}

static int do_set_speed(struct job *job,
                        const struct json_value *arguments,
                        GError **err)
{
    return job_set_speed(job, json_dict_int(arguments, "speed", 0), err);
}

static int run_job_verb(struct engine *engine,
                        const struct json_value *arguments,
                        job_verb_fn verb,
                        GError **err)
{
    const char *id = json_dict_string(arguments, "id", NULL);
    struct job *job = job_find(engine->jobs, id);

    if (job == NULL) {
        return error_set(err, -ENOENT, "there is no job '%s'", id);
    }
    return verb(job, arguments, err);
}

static int run_block_job_verb(struct engine *engine,
                              const struct json_value *arguments,
                              const char *key,
                              job_verb_fn verb,
                              GError **err)
{
    const char *id = json_dict_string(arguments, key, NULL);
    struct job *job = job_find(engine->jobs, id);

    if (job == NULL || !job_is_block_job(job)) {
        return error_set_class(err, -ENOENT, ERROR_DEVICE_NOT_ACTIVE,
                               "there is no block job '%s'", id);
    }
    return verb(job, arguments, err);
}

#define JOB_COMMAND(name, verb)                              \
 static int co_##name(struct engine *engine,                 \
                      const struct json_value *arguments,    \
                      struct json_value **ret, GError **err) \
 {                                                           \
  (void)ret;                                                 \
  return run_job_verb(engine, arguments, verb, err);         \
 }

#define BLOCK_JOB_COMMAND(name, key, verb)                      \
 static int co_##name(struct engine *engine,                    \
                      const struct json_value *arguments,       \
                      struct json_value **ret, GError **err)    \
 {                                                              \
  (void)ret;                                                    \
  return run_block_job_verb(engine, arguments, key, verb, err); \
 }

JOB_COMMAND(job_pause, do_pause)
JOB_COMMAND(job_resume, do_resume)
JOB_COMMAND(job_cancel, do_cancel)
JOB_COMMAND(job_complete, do_complete)
JOB_COMMAND(job_finalize, do_finalize)
JOB_COMMAND(job_dismiss, do_dismiss)
BLOCK_JOB_COMMAND(block_job_pause, "device", do_pause)
BLOCK_JOB_COMMAND(block_job_resume, "device", do_resume)
BLOCK_JOB_COMMAND(block_job_cancel, "device", do_block_cancel)
BLOCK_JOB_COMMAND(block_job_complete, "device", do_complete)
BLOCK_JOB_COMMAND(block_job_set_speed, "device", do_set_speed)
BLOCK_JOB_COMMAND(block_job_change, "id", do_change)
BLOCK_JOB_COMMAND(block_job_finalize, "id", do_finalize)
BLOCK_JOB_COMMAND(block_job_dismiss, "id", do_dismiss)

static int co_query_jobs(struct engine *engine,
                         const struct json_value *arguments,
                         struct json_value **ret,
                         GError **err)
{
    struct json_value *list = json_list_new();

    (void)arguments;
    (void)err;
    for (struct job *job = job_next(engine->jobs, NULL); job != NULL;
         job = job_next(engine->jobs, job)) {
        json_list_append(list, job_info(job));
    }
    *ret = list;
    return 0;
}

static int co_query_block_jobs(struct engine *engine,
                               const struct json_value *arguments,
                               struct json_value **ret,
                               GError **err)
{
    struct json_value *list = json_list_new();

    (void)arguments;
    (void)err;
    for (struct job *job = job_next(engine->jobs, NULL); job != NULL;
         job = job_next(engine->jobs, job)) {
        if (job_is_block_job(job)) {
            json_list_append(list, block_job_info(job));
        }
    }
    *ret = list;
    return 0;
}

static const struct schema_member id_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type id_type = {
    .kind = SCHEMA_STRUCT,
    .members = id_members,
};

static const struct schema_member device_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type device_type = {
    .kind = SCHEMA_STRUCT,
    .members = device_members,
};

static const struct schema_member block_cancel_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = "force",
      .type = &schema_bool,
      .doc = "Cancel a paused job, too.",
      .fallback = "false" },
    { .name = NULL },
};
static const struct schema_type block_cancel_type = {
    .kind = SCHEMA_STRUCT,
    .members = block_cancel_members,
};

static const struct schema_member set_speed_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "The job's id.",
      .required = true },
    { .name = "speed",
      .type = &schema_int,
      .doc = "Bytes per second, 0 for no limit.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type set_speed_type = {
    .kind = SCHEMA_STRUCT,
    .members = set_speed_members,
};

static const struct schema_member change_members[] = {
    { .name = "id", .type = &schema_string, .required = true },
    { .name = "type",
      .type = &qmp_job_type_type,
      .doc = "The type that the job has.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type change_type = {
    .kind = SCHEMA_STRUCT,
    .members = change_members,
};

static const char *const deprecated[] = { "deprecated", NULL };

const struct qmp_command qmp_commands_job[] = {
    { .name = "query-jobs",
      .doc = "All jobs, the newest first.",
      .returns = &qmp_job_info_list_type,
      .co_run = co_query_jobs },
    { .name = "job-pause",
      .doc = "Pauses a job. Returns before it is quiet.",
      .arguments = &id_type,
      .co_run = co_job_pause },
    { .name = "job-resume",
      .doc = "Resumes a job that was paused.",
      .arguments = &id_type,
      .co_run = co_job_resume },
    { .name = "job-cancel",
      .doc = "Cancels a job, and with it the group it belongs to. Its bitmaps "
             "lose nothing.",
      .arguments = &id_type,
      .co_run = co_job_cancel },
    { .name = "job-complete",
      .doc = "For jobs that wait to be completed; backups do not.",
      .arguments = &id_type,
      .co_run = co_job_complete },
    { .name = "job-finalize",
      .doc = "Lets a pending job, and all of its group, take effect.",
      .arguments = &id_type,
      .co_run = co_job_finalize },
    { .name = "job-dismiss",
      .doc = "Forgets a concluded job; its id is free again.",
      .arguments = &id_type,
      .co_run = co_job_dismiss },
    { .name = "query-block-jobs",
      .doc = "All block jobs, the newest first.",
      .returns = &qmp_block_job_info_list_type,
      .co_run = co_query_block_jobs },
    { .name = "block-job-set-speed",
      .doc = "Limits what a job copies in the background.",
      .arguments = &set_speed_type,
      .co_run = co_block_job_set_speed },
    { .name = "block-job-change",
      .doc = "For jobs with options that can be changed while they run; a "
             "backup has none, so that this is always refused.",
      .arguments = &change_type,
      .co_run = co_block_job_change },
    { .name = "block-job-cancel",
      .doc = "As job-cancel; refuses a paused job unless forced.",
      .arguments = &block_cancel_type,
      .co_run = co_block_job_cancel },
    { .name = "block-job-pause",
      .doc = "As job-pause.",
      .arguments = &device_type,
      .features = deprecated,
      .co_run = co_block_job_pause },
    { .name = "block-job-resume",
      .doc = "As job-resume.",
      .arguments = &device_type,
      .features = deprecated,
      .co_run = co_block_job_resume },
    { .name = "block-job-complete",
      .doc = "As job-complete.",
      .arguments = &device_type,
      .features = deprecated,
      .co_run = co_block_job_complete },
    { .name = "block-job-finalize",
      .doc = "As job-finalize.",
      .arguments = &id_type,
      .features = deprecated,
      .co_run = co_block_job_finalize },
    { .name = "block-job-dismiss",
      .doc = "As job-dismiss.",
      .arguments = &id_type,
      .features = deprecated,
      .co_run = co_block_job_dismiss },
    { .name = NULL },
};
