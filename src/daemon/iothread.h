/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The threads that block nodes live on.
 *
 * Main thread.
 */
#ifndef DAEMON_IOTHREAD_H
#define DAEMON_IOTHREAD_H

#include "base/json.h"
#include "base/list.h"
#include "block/node.h"

struct iothread_list {
    struct block_graph *graph; /* borrowed */
    struct list iothreads;     /* oldest first */
    unsigned int count;
};

void iothread_list_init(struct iothread_list *list, struct block_graph *graph);

/* A new thread, offered to the graph as a home. */
int co_iothread_add(struct iothread_list *list, const char *id, GError **err);
/* Threads made by the daemon itself, one per CPU, four at most. */
int co_iothread_add_defaults(struct iothread_list *list, GError **err);
/* Refused while a node lives on it. */
int iothread_del(struct iothread_list *list, const char *id, GError **err);
/* Ends all threads; no node is left. */
void iothread_list_release(struct iothread_list *list);

/* query-iothreads: a new list of {id, thread-id}. */
struct json_value *iothread_query(const struct iothread_list *list);

#endif
