/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A few threads that may block, for calls that io_uring has no operation for.
 *
 * Each loop has its own pool. Threads are started when a call finds none idle,
 * at most OFFLOAD_THREADS_MAX, and stay until the pool is freed. A call's
 * completion comes back through the loop's mailbox.
 */
#ifndef LOOP_OFFLOAD_H
#define LOOP_OFFLOAD_H

#include "loop/backend.h"

#define OFFLOAD_THREADS_MAX 8

struct offload_pool;

struct offload_pool *offload_pool_new(struct loop *loop);
/* Nothing may be under way. Joins the threads. */
void offload_pool_free(struct offload_pool *pool);

/* Runs `request->call` on some thread, then request->done() on the loop's.
 * From the loop's thread. */
void offload_submit(struct offload_pool *pool, struct io_request *request);

#endif
