/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting for reads that have begun.
 *
 * Whoever puts into a node what was below it until now, and then changes what is
 * below, must wait in between for those who have looked the node up before and
 * are about to read below it.
 */
#include "block/node_priv.h"

void block_reader_end(struct block_node *node, unsigned int *counter)
{
    if (counter != NULL && --*counter == 0) {
        co_queue_wake_all(&node->readers.ended);
    }
}

void block_watch_reads(struct block_node *node)
{
    node->readers.watchers++;
}

void block_unwatch_reads(struct block_node *node)
{
    g_assert(node->readers.watchers > 0);
    node->readers.watchers--;
}

void co_block_wait_for_reads(struct block_node *node)
{
    struct block_readers *readers = &node->readers;
    unsigned int generation = readers->generation;

    /* A new generation takes the counter of the one before the last. */
    while (readers->under_way[(generation + 1) & 1] > 0) {
        co_queue_wait(&readers->ended);
    }
    if (readers->generation == generation) {
        readers->generation++;
    }
    while (readers->under_way[generation & 1] > 0) {
        co_queue_wait(&readers->ended);
    }
}
