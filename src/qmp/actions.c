/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/actions.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "job/job_txn.h"
#include "qmp/action_changes.h"
#include "qmp/action_record.h"
#include "qmp/action_tracking.h"

/* --- abort: fails on purpose, to try how the others are undone --------------- */

static int co_prepare_abort(struct transaction_action *action,
                            struct transaction *transaction,
                            GError **err)
{
    (void)action;
    (void)transaction;
    return error_set(err, -ECANCELED,
                     "Transaction aborted by its action 'abort'");
}

static void never_committed(struct transaction_action *action)
{
    (void)action;
    g_assert_not_reached();
}

static void co_free_action(struct transaction_action *action)
{
    g_free(action);
}

static const struct transaction_action_ops abort_ops = {
    .name = "abort",
    .co_prepare = co_prepare_abort,
    .commit = never_committed,
    .co_clean = co_free_action,
};

static struct transaction_action *create_abort(struct action_context *context,
                                               const struct json_value *data)
{
    struct transaction_action *action = g_new0(struct transaction_action, 1);

    (void)context;
    (void)data;
    action->ops = &abort_ops;
    return action;
}

static const struct action_type abort_action_types[] = {
    { .name = "abort", .create = create_abort },
    { .name = NULL },
};

/* --- Looking up and running ---------------------------------------------------- */

static const struct action_type *const all_action_types[] = {
    bitmap_action_types,
    backup_action_types,
    snapshot_action_types,
    abort_action_types,
    NULL,
};

static const struct action_type *find_type(const char *name)
{
    for (size_t i = 0; all_action_types[i] != NULL; i++) {
        for (const struct action_type *type = all_action_types[i];
             type->name != NULL; type++) {
            if (strcmp(type->name, name) == 0) {
                return type;
            }
        }
    }
    g_assert_not_reached(); /* the schema has checked the name */
}

/* Who decides the group that ends with job `index`. */
static void set_decider(const struct action_context *context,
                        struct job_txn *txn,
                        guint index)
{
    struct durable_group *group =
        context->grouped ? context->group
                         : g_ptr_array_index(context->job_groups, index);

    if (group != NULL) {
        job_txn_set_decider(txn, durable_group_decider(group));
    }
}

/* Jobs of a grouped transaction share a group, with all that goes with it;
 * others have one each. */
static void start_jobs(const struct action_context *context,
                       const struct transaction_report *report)
{
    const struct job_txn_origin origin = {
        .transaction = report->number,
        .instant_ns = report->instant_ns,
    };
    struct job_txn *group = NULL;

    for (guint i = 0; i < context->jobs->len; i++) {
        if (group == NULL) {
            group = job_txn_new();
            job_txn_set_origin(group, &origin);
        }
        job_txn_add(group, g_ptr_array_index(context->jobs, i));
        if (!context->grouped) {
            set_decider(context, group, i);
            job_txn_start(&group);
        }
    }
    if (group != NULL) {
        for (guint i = 0; i < context->companions->len; i++) {
            job_txn_add_companion(group,
                                  g_ptr_array_index(context->companions, i));
        }
        set_decider(context, group, 0);
        job_txn_start(&group);
    }
}

/* The instant is over. */
static int co_go_on(struct action_context *context,
                    const struct transaction_report *report,
                    GError **err)
{
    g_autoptr(GPtrArray) ids = g_ptr_array_new_with_free_func(g_free);
    int ret = context->grouped ? 0 : co_action_changes_decide(context, err);

    for (guint i = 0; i < context->jobs->len; i++) {
        g_ptr_array_add(ids,
                        g_strdup(job_id(g_ptr_array_index(context->jobs, i))));
    }
    start_jobs(context, report);
    /* The command has failed, so its jobs end as if they had never been. */
    for (guint i = 0; ret < 0 && i < ids->len; i++) {
        struct job *job =
            job_find(context->engine->jobs, g_ptr_array_index(ids, i));

        if (job != NULL) {
            (void)job_cancel(job, true, NULL);
        }
    }
    return ret;
}

static int check_count(const struct json_value *actions, GError **err)
{
    size_t count = json_list_length(actions);

    if (count > LIMIT_TRANSACTION_ACTIONS) {
        return error_set(err, -E2BIG,
                         "A transaction takes at most %d actions, not %zu",
                         LIMIT_TRANSACTION_ACTIONS, count);
    }
    return 0;
}

static int check_group(const struct json_value *actions, GError **err)
{
    for (size_t i = 0; i < json_list_length(actions); i++) {
        const char *name =
            json_dict_string(json_list_get(actions, i), "type", "");

        if (find_type(name)->alone_only) {
            return error_set(err, -EINVAL,
                             "'%s' cannot be undone when a job fails later, so "
                             "it cannot be in a transaction with "
                             "completion-mode=grouped",
                             name);
        }
    }
    return 0;
}

/* The first action that makes a job; NULL: none does. */
static const struct json_value *first_job(const struct json_value *actions)
{
    for (size_t i = 0; i < json_list_length(actions); i++) {
        const struct json_value *item = json_list_get(actions, i);

        if (find_type(json_dict_string(item, "type", ""))->makes_job) {
            return json_dict_get(item, "data");
        }
    }
    return NULL;
}

static struct transaction *make_transaction(struct action_context *context,
                                            const struct json_value *actions)
{
    struct transaction *transaction = transaction_new(context->engine->graph);

    for (size_t i = 0; i < json_list_length(actions); i++) {
        const struct json_value *item = json_list_get(actions, i);
        const struct action_type *type =
            find_type(json_dict_string(item, "type", ""));

        transaction_add_action(
            transaction, type->create(context, json_dict_get(item, "data")));
    }
    transaction_add_action(transaction, action_record_new(context));
    return transaction;
}

int co_actions_run(struct engine *engine,
                   const struct json_value *actions,
                   bool grouped,
                   const char *client_id,
                   GError **err)
{
    const struct json_value *job = first_job(actions);
    g_autoptr(GPtrArray) jobs = g_ptr_array_new();
    g_autoptr(GPtrArray) job_groups = g_ptr_array_new();
    g_autoptr(GPtrArray) companions = g_ptr_array_new();
    g_autofree char *group_name =
        grouped && job != NULL
            ? g_strdup_printf("the group of job %s",
                              json_dict_string(job, "job-id", ""))
            : g_strdup("a transaction");
    struct action_context context = {
        .engine = engine,
        .jobs = jobs,
        /* Without a job there is nothing to wait for. */
        .grouped = grouped && job != NULL,
        .job_groups = job_groups,
        .companions = companions,
        .actions = json_list_length(actions),
        .client_id = client_id,
        .group_name = group_name,
    };
    struct transaction_report report = { .number = 0 };
    struct transaction *transaction;
    int ret = check_count(actions, err);

    if (ret == 0 && grouped) {
        ret = check_group(actions, err);
    }
    if (ret < 0) {
        return ret;
    }
    transaction = make_transaction(&context, actions);
    report.number = ++engine->transactions;
    transaction_set_report(transaction, &report);
    ret = co_transaction_run(&transaction, err);
    if (ret < 0) {
        (void)co_action_tracking_end(&context, false, NULL);
        return ret;
    }
    ret = co_action_tracking_end(&context, true, err);
    return ret < 0 ? ret : co_go_on(&context, &report, err);
}

int co_action_run(struct engine *engine,
                  const char *type,
                  const struct json_value *data,
                  GError **err)
{
    g_autoptr(json_value) actions = json_list_new();
    struct json_value *action = json_dict_new();

    json_dict_set_string(action, "type", type);
    json_dict_set(action, "data", json_copy(data));
    json_list_append(actions, action);
    return co_actions_run(engine, actions, false, NULL, err);
}
