/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine of the `transaction` command.
 *
 *     lock ── prepare 1..n ── close fences ── commit 1..n ── release ──┐
 *                  │                │                                  ├─ clean
 *                  └─ abort k-1..1  └─ release ── abort n..1 ──────────┘  1..n
 *
 * Between the fences' close and their release the main thread does not yield,
 * except to wait for the fences themselves: so nothing of the commands or jobs
 * is in between two commits, and no guest waits for anything slow.
 */
#include "job/transaction.h"

#include <errno.h>
#include <string.h>

#include "base/trace.h"
#include "job/transaction_fence.h"

struct transaction {
    struct block_graph *graph;
    struct list actions;
    struct fence_set *fences;
    GHashTable *views; /* key -> struct view */

    struct transaction_report *report;    /* borrowed */
    struct transaction_report own_report; /* if the caller has none */
};

struct view {
    void *value;
    void (*free_value)(void *value);
};

static struct transaction_action *action_of(struct list *link)
{
    return LIST_ENTRY(link, struct transaction_action, link);
}

static void free_view(void *opaque)
{
    struct view *view = opaque;

    if (view->free_value != NULL) {
        view->free_value(view->value);
    }
    g_free(view);
}

struct transaction *transaction_new(struct block_graph *graph)
{
    struct transaction *transaction = g_new0(struct transaction, 1);

    transaction->graph = graph;
    list_init(&transaction->actions);
    transaction->fences = fence_set_new();
    transaction->views =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_view);
    transaction->report = &transaction->own_report;
    return transaction;
}

void transaction_set_report(struct transaction *transaction,
                            struct transaction_report *report)
{
    transaction->report = report;
}

void transaction_add_action(struct transaction *transaction,
                            struct transaction_action *action)
{
    list_append(&transaction->actions, &action->link);
}

void transaction_add_node(struct transaction *transaction,
                          struct block_node *node)
{
    fence_set_add(transaction->fences, node, false);
}

void transaction_add_node_drained(struct transaction *transaction,
                                  struct block_node *node)
{
    fence_set_add(transaction->fences, node, true);
}

void *transaction_get_view(struct transaction *transaction, const char *key)
{
    struct view *view = g_hash_table_lookup(transaction->views, key);

    return view == NULL ? NULL : view->value;
}

void transaction_set_view(struct transaction *transaction,
                          const char *key,
                          void *value,
                          void (*free_value)(void *value))
{
    struct view *view = g_new0(struct view, 1);

    view->value = value;
    view->free_value = free_value;
    g_hash_table_replace(transaction->views, g_strdup(key), view);
}

static uint64_t count_actions(const struct transaction *transaction)
{
    uint64_t count = 0;

    LIST_FOREACH(link, &transaction->actions) {
        count++;
    }
    return count;
}

/* `*ret_end`: the first action that is not prepared. */
static int co_prepare(struct transaction *transaction,
                      struct list **ret_end,
                      GError **err)
{
    uint64_t index = 0;

    trace_transaction_begin(transaction->report->number,
                            count_actions(transaction));
    LIST_FOREACH(link, &transaction->actions) {
        int result =
            action_of(link)->ops->co_prepare(action_of(link), transaction, err);
        trace_transaction_prepare(transaction->report->number, index++,
                                  action_of(link)->ops->name, result);
        if (result < 0) {
            *ret_end = link;
            return result;
        }
    }
    *ret_end = &transaction->actions;
    return 0;
}

static void commit(struct transaction *transaction)
{
    LIST_FOREACH(link, &transaction->actions) {
        if (action_of(link)->ops->commit != NULL) {
            action_of(link)->ops->commit(action_of(link));
        }
    }
    trace_transaction_commit(transaction->report->number,
                             count_actions(transaction));
}

static int co_close_fences(struct transaction *transaction, GError **err)
{
    uint64_t number = transaction->report->number;
    uint64_t began_ns = loop_now_ns();

    trace_transaction_fence_begin(number, fence_set_size(transaction->fences));
    int result =
        co_fence_set_close(transaction->fences, TRANSACTION_FENCE_NS, err);
    uint64_t fence_ns = loop_now_ns() - began_ns;
    if (result == 0) {
        trace_transaction_fence_done(number, fence_ns);
    } else {
        trace_transaction_fence_timeout(number, fence_ns);
    }
    return result;
}

/* All with fences: close, commit, release. */
static int co_run_instant(struct transaction *transaction, GError **err)
{
    struct transaction_report *report = transaction->report;
    uint64_t began_ns = loop_now_ns();
    int result = co_close_fences(transaction, err);

    if (result == 0) {
        commit(transaction);
    }
    co_fence_set_release(&transaction->fences, TRANSACTION_FENCE_NS);
    report->instant_ns = loop_now_ns() - began_ns;
    trace_transaction_release(report->number, report->instant_ns);
    return result;
}

static void co_abort(struct transaction *transaction,
                     struct list *end,
                     int result)
{
    uint64_t count = 0;

    for (struct list *link = end->previous; link != &transaction->actions;
         link = link->previous) {
        count++;
        if (action_of(link)->ops->co_abort != NULL) {
            action_of(link)->ops->co_abort(action_of(link));
        }
    }
    trace_transaction_abort(transaction->report->number, count, result);
}

static void co_clean(struct transaction *transaction)
{
    struct list *link;

    while ((link = list_take_first(&transaction->actions)) != NULL) {
        action_of(link)->ops->co_clean(action_of(link));
    }
}

int co_transaction_run(struct transaction **transaction, GError **err)
{
    struct transaction *run = g_steal_pointer(transaction);
    struct block_graph *graph = run->graph;
    struct list *end = NULL;

    co_block_graph_lock(graph);
    int result = co_prepare(run, &end, err);
    if (result == 0) {
        result = co_run_instant(run, err);
    } else {
        co_fence_set_release(&run->fences, TRANSACTION_FENCE_NS);
    }
    if (result < 0) {
        co_abort(run, end, result);
    }
    co_clean(run);
    g_hash_table_destroy(run->views);
    g_free(run);
    block_graph_unlock(graph);
    return result;
}
