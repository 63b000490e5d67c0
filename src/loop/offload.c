/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue is first in, first out, under one lock that is held for a few
 * instructions. If no thread can be started at all, the call runs on the
 * loop's own thread: late, but not lost.
 */
#include "loop/offload.h"

#include <pthread.h>

#include "loop/loop_priv.h"

struct offload_pool {
    pthread_t threads[OFFLOAD_THREADS_MAX];
    size_t thread_count; /* the user's thread only */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct list queue; /* struct io_request; under lock, as is the rest */
    size_t queued;
    size_t idle;
    bool ending;
};

static void call_done(struct loop_message *message)
{
    struct io_request *request =
        LIST_ENTRY(message, struct io_request, message);

    request->done(request);
}

static void run_call(struct io_request *request)
{
    request->result = request->call(request->opaque);
    request->message.run = call_done;
    loop_post(request->loop, &request->message);
}

static void *offload_thread(void *opaque)
{
    struct offload_pool *pool = opaque;
    struct list *link;

    pthread_setname_np(pthread_self(), "offload");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        link = list_take_first(&pool->queue);
        if (link != NULL) {
            pool->queued--;
            pthread_mutex_unlock(&pool->lock);
            run_call(LIST_ENTRY(link, struct io_request, link));
            pthread_mutex_lock(&pool->lock);
        } else if (pool->ending) {
            break;
        } else {
            pool->idle++;
            pthread_cond_wait(&pool->changed, &pool->lock);
            pool->idle--;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

struct offload_pool *offload_pool_new(void)
{
    struct offload_pool *pool = g_new0(struct offload_pool, 1);

    list_init(&pool->queue);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    return pool;
}

void offload_pool_free(struct offload_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    g_assert(pool->queued == 0);
    pool->ending = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    g_free(pool);
}

void offload_submit(struct offload_pool *pool, struct io_request *request)
{
    bool wants_thread;

    request->loop = loop_current();
    pthread_mutex_lock(&pool->lock);
    wants_thread = pool->idle <= pool->queued;
    pthread_mutex_unlock(&pool->lock);

    if (wants_thread && pool->thread_count < OFFLOAD_THREADS_MAX &&
        loop_thread_create(&pool->threads[pool->thread_count], offload_thread,
                           pool) == 0) {
        pool->thread_count++;
    }
    if (pool->thread_count == 0) {
        run_call(request);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    list_append(&pool->queue, &request->link);
    pool->queued++;
    pthread_cond_signal(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}
