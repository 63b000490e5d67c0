/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Holding a node's requests.
 *
 * Each node has a gate. A request that enters the graph (from an export or a
 * job) passes the gates of its node and of every node below it at once, before
 * anything else; requests that nodes make of their children are part of it and
 * are not held. So closing gates can never deadlock with what is under way.
 *
 * A fence holds writes (and zeroing and discards); a drain holds all requests.
 * Both nest. Held requests go on, in order, when the last one is released.
 *
 * Home thread of the node. While a fence stands, the main thread may read and
 * change what the home thread owns of the node; the message that reports the
 * fence and the one that releases it order the memory.
 */
#ifndef BLOCK_FENCE_H
#define BLOCK_FENCE_H

#include "block/node.h"

/* Closes the gate for writes and waits until none is under way in the node.
 * -ETIMEDOUT when `deadline_ns` (monotonic; UINT64_MAX: none) passed first; the
 * gate is closed then, too: call block_unfence() in either case. */
int co_block_fence(struct block_node *node, uint64_t deadline_ns);
void block_unfence(struct block_node *node);

/* The same for all requests. */
int co_block_drain(struct block_node *node, uint64_t deadline_ns);
void block_undrain(struct block_node *node);

#endif
