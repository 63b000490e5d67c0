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

/* Nobody is counted who began before the last generation but one. */
static bool have_ended(const struct block_readers *readers,
                       unsigned int generation)
{
    return readers->generation - generation > 1 ||
           readers->under_way[generation & 1] == 0;
}

/* Waits for those of the generation that it finds, and of the one before. Who
 * comes later belongs to the next one and is not waited for: that begins as soon
 * as it can, for it takes the counter of the one before. */
void co_block_wait_for_reads(struct block_node *node)
{
    struct block_readers *readers = &node->readers;
    unsigned int generation = readers->generation;

    while (readers->generation == generation) {
        if (readers->under_way[(generation + 1) & 1] == 0) {
            readers->generation++;
        } else {
            co_queue_wait(&readers->ended);
        }
    }
    while (!have_ended(readers, generation)) {
        co_queue_wait(&readers->ended);
    }
}
