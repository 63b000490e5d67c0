/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The `transaction` command's engine: many actions at one instant, or none.
 *
 * 1. prepare, unfenced, in order: each action checks, and does all its slow
 *    work (open, create, allocate). Nothing is visible yet to guests or other
 *    commands; later actions see earlier ones through the transaction's view.
 * 2. fence: all nodes that actions named stop starting writes and drain, on all
 *    their threads at once. A deadline bounds it; past it the transaction
 *    fails and everything is released.
 * 3. commit, in order, all on the main thread while every fence stands: no I/O,
 *    no waiting, cannot fail. This is the instant.
 * 4. release, then clean.
 *
 * If prepare k fails: abort of k-1 ... 1 (k has undone itself), then clean.
 * If the fence fails: abort of all.
 *
 * Main thread. One transaction prepares at a time (other commands that change
 * nodes, bitmaps or jobs wait for it): co_transaction_run() holds the graph lock
 * (block/node.h).
 */
#ifndef JOB_TRANSACTION_H
#define JOB_TRANSACTION_H

#include <glib.h>

#include "base/list.h"
#include "block/node.h"

struct transaction;
struct transaction_action;

struct transaction_action_ops {
    const char *name;
    /* On failure it has undone itself. Calls transaction_add_node(). */
    int (*co_prepare)(struct transaction_action *action,
                      struct transaction *transaction,
                      GError **err);
    void (*commit)(struct transaction_action *action);   /* fenced */
    void (*co_abort)(struct transaction_action *action); /* NULL: nothing */
    /* Frees the action itself; last, in order. It is called for every action,
     * also one that was never prepared or whose prepare failed. */
    void (*co_clean)(struct transaction_action *action);
};

/* Embedded first in the struct of a kind of action. */
struct transaction_action {
    struct list link;
    const struct transaction_action_ops *ops;
};

struct transaction *transaction_new(struct block_graph *graph);
/* Takes the action over. */
void transaction_add_action(struct transaction *transaction,
                            struct transaction_action *action);
/* From prepare: this node is to be fenced at the instant. */
void transaction_add_node(struct transaction *transaction,
                          struct block_node *node);
/* ... and its reads are to be held, too. */
void transaction_add_node_drained(struct transaction *transaction,
                                  struct block_node *node);
/* A slot per key for what actions of one kind know of each other (the view):
 * NULL until set; `free_value` runs at the end. */
void *transaction_get_view(struct transaction *transaction, const char *key);
void transaction_set_view(struct transaction *transaction,
                          const char *key,
                          void *value,
                          void (*free_value)(void *value));

/* What the log says of a run. */
struct transaction_report {
    uint64_t number; /* set before the run: how the log names it */
    /* Set by the run: from closing the fences until all were released again, so
     * no guest's write waited longer. 0: it did not get there. */
    uint64_t instant_ns;
};

/* Borrowed until the run has ended. Without one the number is 0. */
void transaction_set_report(struct transaction *transaction,
                            struct transaction_report *report);

/* How long the fence may take, nanoseconds. */
#define TRANSACTION_FENCE_NS UINT64_C(1000000000)

/* Runs it all and frees the transaction and its actions. */
int co_transaction_run(struct transaction **transaction, GError **err);

#endif
