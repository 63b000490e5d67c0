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

#include "job/transaction_fence.h"

struct transaction {
    struct block_graph *graph;
    struct list actions;
    struct fence_set *fences;
    GHashTable *views; /* key -> struct view */
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
    return transaction;
}

void transaction_add_action(struct transaction *transaction,
                            struct transaction_action *action)
{
    list_append(&transaction->actions, &action->link);
}

void transaction_add_node(struct transaction *transaction,
                          struct block_node *node)
{
    fence_set_add(transaction->fences, node);
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

/* `*ret_end`: the first action that is not prepared. */
static int co_prepare(struct transaction *transaction,
                      struct list **ret_end,
                      GError **err)
{
    LIST_FOREACH(link, &transaction->actions) {
        int result =
            action_of(link)->ops->co_prepare(action_of(link), transaction, err);
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
}

static void co_abort(struct transaction *transaction, struct list *end)
{
    for (struct list *link = end->previous; link != &transaction->actions;
         link = link->previous) {
        if (action_of(link)->ops->co_abort != NULL) {
            action_of(link)->ops->co_abort(action_of(link));
        }
    }
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
        result = co_fence_set_close(run->fences, TRANSACTION_FENCE_NS, err);
    }
    if (result == 0) {
        commit(run);
    }
    co_fence_set_release(&run->fences, TRANSACTION_FENCE_NS);
    if (result < 0) {
        co_abort(run, end);
    }
    co_clean(run);
    g_hash_table_destroy(run->views);
    g_free(run);
    block_graph_unlock(graph);
    return result;
}
