/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A few threads that may block, for calls that io_uring has no operation for.
 *
 * Each loop has its own pool, and so has whoever makes calls that may hang for
 * long: then nobody else waits for its threads. Threads are started when a call
 * finds none idle, at most OFFLOAD_THREADS_MAX, and stay until the pool is freed.
 * A call's completion comes back through the mailbox of the loop it came from.
 *
 * One loop uses a pool at a time.
 */
#ifndef LOOP_OFFLOAD_H
#define LOOP_OFFLOAD_H

#include "loop/backend.h"

#define OFFLOAD_THREADS_MAX 8

struct offload_pool;

struct offload_pool *offload_pool_new(void);
/* Nothing may be under way. Joins the threads, which are idle. NULL is fine. */
void offload_pool_free(struct offload_pool *pool);

/* Runs `request->call` on some thread, then request->done() on the loop's that
 * is current. For backends. */
void offload_submit(struct offload_pool *pool, struct io_request *request);

/* As co_offload(), on a pool of one's own. */
int co_offload_to(struct offload_pool *pool,
                  int (*call)(void *opaque),
                  void *opaque);

#endif
