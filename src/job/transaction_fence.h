/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many nodes fenced at once, from the main thread, by one deadline.
 *
 *     set = fence_set_new(); fence_set_add(set, node)...
 *     co_fence_set_close() == 0: every node is fenced; else some did not drain
 *     co_fence_set_release(&set) in either case
 *
 * Main thread. A node that does not answer in time is released when it does
 * answer, however late; until then it stays in use and cannot be deleted.
 */
#ifndef JOB_TRANSACTION_FENCE_H
#define JOB_TRANSACTION_FENCE_H

#include "block/node.h"

struct fence_set;

struct fence_set *fence_set_new(void);
/* A node added before counts once; `drained`: its reads are held, too, if any
 * of the calls says so. */
void fence_set_add(struct fence_set *set,
                   struct block_node *node,
                   bool drained);

size_t fence_set_size(const struct fence_set *set);

/* Fences all nodes on their home threads. Returns within `timeout_ns` plus what
 * the message takes; -ETIMEDOUT with a sentence that names the nodes that had
 * writes under way for longer. */
int co_fence_set_close(struct fence_set *set,
                       uint64_t timeout_ns,
                       GError **err);

/* Lets go of all nodes, and waits until they are in use no more, but no longer
 * than `timeout_ns`. */
void co_fence_set_release(struct fence_set **set, uint64_t timeout_ns);

#endif
