/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Letting go of a job's nodes. A job that never reached the instant is released
 * by the transaction that made it, which holds the graph's lock already.
 */
#include <errno.h>

#include "backup/backup_priv.h"
#include "base/error.h"
#include "block/driver.h"

/* How long guests may be held while a filter goes; and the pause until the next
 * attempt, when a request did not end in time. */
#define REMOVE_TIMEOUT_NS UINT64_C(500000000)
#define REMOVE_PAUSE_NS   UINT64_C(500000000)

static void co_delete_node(struct block_node *node)
{
    g_autofree char *name = g_strdup(block_name(node));
    g_autoptr(GError) err = NULL;

    if (co_block_del(block_graph_of(node), name, &err) < 0) {
        g_warning("Cannot close node '%s' of a backup job: %s", name,
                  err->message);
    }
}

/* With the lock. Takes as long as the guests' requests do. */
static void co_take_filter_away(struct backup *backup)
{
    struct block_graph *graph = block_graph_of(backup->source);

    while (co_block_filter_remove(backup->filter_node, "file",
                                  REMOVE_TIMEOUT_NS, NULL) < 0) {
        block_graph_unlock(graph);
        co_sleep_until(loop_now_ns() + REMOVE_PAUSE_NS);
        co_block_graph_lock(graph);
    }
}

static void co_remove_filter(struct backup *backup)
{
    if (backup->replacement != NULL) {
        block_replacement_cancel(g_steal_pointer(&backup->replacement));
    } else if (backup->committed) {
        co_take_filter_away(backup);
    }
    block_detach(&backup->filter_user);
    co_delete_node(backup->filter_node);
}

static void co_unwatch_target(const struct backup *backup)
{
    struct loop *main = loop_current();

    co_move(block_home(backup->target));
    block_unwatch_reads(backup->target);
    co_move(main);
}

static void co_release_nodes(struct backup *backup)
{
    if (backup->filter_node != NULL) {
        co_remove_filter(backup);
    }
    if (backup->watches_target) {
        co_unwatch_target(backup);
    }
    block_detach(&backup->source_user);
    block_detach(&backup->target_user);
    if (backup->owns_target) {
        co_delete_node(backup->target);
    }
}

void co_backup_release(struct backup *backup)
{
    struct block_graph *graph = block_graph_of(backup->source);

    if (backup->committed) {
        co_block_graph_lock(graph);
    }
    co_release_nodes(backup);
    if (backup->committed) {
        block_graph_unlock(graph);
    }
    block_copy_free(backup->copy);
    bitmap_free(backup->successor);
    g_free(backup);
}
