/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Happy path: actions add to the cut while they prepare; the last action, this
 * one, makes trackers hold still and the records' BEGIN durable; the instant; the
 * trackers go on. What the groups are for then is the caller's (actions.c).
 */
#include "qmp/action_record.h"

#include <errno.h>

#include "base/error.h"

static struct durable_group *add_group(struct action_context *context,
                                       GError **err)
{
    if (context->cut == NULL) {
        context->cut = durable_cut_new(context->engine->coordinator);
    }
    return durable_cut_add_group(context->cut, context->client_id, err);
}

/* The one group of all that is decided together. */
static struct durable_group *shared_group(struct action_context *context,
                                          GError **err)
{
    if (context->group == NULL) {
        context->group = add_group(context, err);
    }
    return context->group;
}

static bool is_tracked(const struct bitmap_view_entry *entry)
{
    return entry->is_persistent && tracker_of(entry->node) != NULL;
}

int action_record_job(struct action_context *context,
                      struct job *job,
                      const struct bitmap_view_entry *entry,
                      enum backup_bitmap_mode mode,
                      struct durable_group **ret_group,
                      GError **err)
{
    const struct durable_change change = {
        .node = entry->node,
        .bitmap = entry->bitmap,
        .job = job_id(job),
        .gets_base = mode != BACKUP_BITMAP_NEVER,
        .keeps_base = mode == BACKUP_BITMAP_NEVER,
    };
    struct durable_group *group;

    if (!is_tracked(entry)) {
        return 0;
    }
    if (entry->is_new) {
        return error_set(err, -EINVAL,
                         "Persistent dirty bitmap '%s' of node '%s' is added "
                         "by the same transaction, and cannot be used by job "
                         "'%s' in it: add it before",
                         dirty_bitmap_name(entry->bitmap),
                         block_name(entry->node), job_id(job));
    }
    group =
        context->grouped ? shared_group(context, err) : add_group(context, err);
    if (group == NULL) {
        return -ENOTSUP;
    }
    durable_group_add(context->cut, group,
                      backup_make_durable(job, durable_group_txid(group)),
                      &change);
    *ret_group = group;
    return 0;
}

bool action_record_takes(const struct action_context *context,
                         const struct bitmap_view_entry *entry)
{
    return (context->grouped || context->actions > 1) && is_tracked(entry);
}

int action_record_change(struct action_context *context,
                         struct bitmap_change *change,
                         const struct bitmap_view_entry *entry,
                         enum bitmap_change_kind kind,
                         GError **err)
{
    const struct durable_change told = {
        .node = entry->node,
        .bitmap = entry->bitmap,
        .keeps_base = kind == BITMAP_CHANGE_DISABLE ||
                      kind == BITMAP_CHANGE_MERGE ||
                      (kind == BITMAP_CHANGE_ENABLE &&
                       dirty_bitmap_is_enabled(entry->bitmap)),
        .is_added = kind == BITMAP_CHANGE_ADD,
    };
    struct durable_group *group = shared_group(context, err);

    if (group == NULL) {
        return -ENOTSUP;
    }
    durable_group_add(
        context->cut, group,
        bitmap_change_make_durable(change, durable_group_txid(group)), &told);
    return 0;
}

/* --- The last action ------------------------------------------------------------------ */

struct record_action {
    struct transaction_action action;
    struct action_context *context;
    bool committed;
};

static struct record_action *action_of(struct transaction_action *action)
{
    return LIST_ENTRY(action, struct record_action, action);
}

static int co_prepare(struct transaction_action *action,
                      struct transaction *transaction,
                      GError **err)
{
    struct action_context *context = action_of(action)->context;

    (void)transaction;
    return context->cut == NULL ? 0 : co_durable_cut_begin(context->cut, err);
}

static void commit(struct transaction_action *action)
{
    action_of(action)->committed = true;
}

/* Also if it never came to its prepare. */
static void co_clean(struct transaction_action *action)
{
    struct record_action *self = action_of(action);
    struct action_context *context = self->context;

    if (!self->committed) {
        co_durable_cut_discard(&context->cut);
        context->group = NULL;
    } else if (context->cut != NULL) {
        co_durable_cut_end(&context->cut);
    }
    g_free(self);
}

static const struct transaction_action_ops record_ops = {
    .name = "record",
    .co_prepare = co_prepare,
    .commit = commit,
    .co_clean = co_clean,
};

struct transaction_action *action_record_new(struct action_context *context)
{
    struct record_action *self = g_new0(struct record_action, 1);

    self->action.ops = &record_ops;
    self->context = context;
    return &self->action;
}
