/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One coroutine decides; the command waits for it, or for its doubt. One command
 * runs at a time, so it must not wait for a state directory to come back: then it
 * fails with what is known, and the coroutine goes on alone.
 */
#include "qmp/action_changes.h"

#include <errno.h>

#include "base/error.h"
#include "loop/co_lock.h"

struct deciding {
    struct durable_group *group;
    GPtrArray *companions; /* struct job_txn_companion */
    struct co_queue changed;
    bool done;
    int result;
    GError *error; /* of the result, or why it is in doubt */
    bool in_doubt;
    bool abandoned; /* the command has gone: the coroutine frees this */
};

static void deciding_free(struct deciding *deciding)
{
    g_ptr_array_unref(deciding->companions);
    g_clear_error(&deciding->error);
    g_free(deciding);
}

static bool note_doubt(void *opaque, const GError *why)
{
    struct deciding *deciding = opaque;

    deciding->in_doubt = true;
    deciding->error = g_error_copy(why);
    co_queue_wake_all(&deciding->changed);
    return true;
}

static void co_end_companions(struct deciding *deciding)
{
    for (guint i = 0; i < deciding->companions->len; i++) {
        struct job_txn_companion *companion =
            g_ptr_array_index(deciding->companions, i);

        if (deciding->result == 0) {
            companion->co_commit(companion);
        } else {
            companion->co_abort(companion);
        }
    }
}

static void co_decide(void *opaque)
{
    struct deciding *deciding = opaque;
    GError *error = NULL;

    deciding->result =
        co_durable_group_decide(deciding->group, note_doubt, deciding, &error);
    co_end_companions(deciding);
    co_durable_group_end(&deciding->group);
    g_clear_error(&deciding->error);
    deciding->error = error;
    deciding->done = true;
    if (deciding->abandoned) {
        deciding_free(deciding);
    } else {
        co_queue_wake_all(&deciding->changed);
    }
}

/* Done, or in doubt; takes it. */
static int conclude(struct deciding *deciding, GError **err)
{
    int result = deciding->result;

    if (deciding->done) {
        if (result < 0) {
            g_propagate_error(err, g_steal_pointer(&deciding->error));
        }
        deciding_free(deciding);
        return result;
    }
    deciding->abandoned = true;
    return error_set(err, -EINPROGRESS,
                     "It is in doubt whether the changes were recorded (%s); "
                     "they are undone as soon as that can be made durable, and "
                     "their bitmaps are busy until then",
                     deciding->error->message);
}

int co_action_changes_decide(struct action_context *context, GError **err)
{
    struct deciding *deciding;

    if (context->group == NULL) {
        return 0;
    }
    deciding = g_new0(struct deciding, 1);
    deciding->group = g_steal_pointer(&context->group);
    deciding->companions = g_ptr_array_new();
    for (guint i = 0; i < context->companions->len; i++) {
        g_ptr_array_add(deciding->companions,
                        g_ptr_array_index(context->companions, i));
    }
    g_ptr_array_set_size(context->companions, 0);
    co_queue_init(&deciding->changed);
    co_spawn(loop_current(), co_decide, deciding);
    while (!deciding->done && !deciding->in_doubt) {
        co_queue_wait(&deciding->changed);
    }
    return conclude(deciding, err);
}
