/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One turn of a loop: deliver the mail, fire the timers that are due, run the
 * coroutines that are ready, then hand over to the backend, which sends what
 * they submitted, runs the callbacks of what completed, and sleeps if nothing
 * did. What a turn makes ready runs in the next, so nothing starves the rest.
 */
#include "loop/loop.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

#include "base/error.h"
#include "loop/loop_priv.h"

static _Thread_local struct loop *current_loop;

/* Never inlined, never merged: the caller may be on another thread than it was
 * a moment ago. */
G_NO_INLINE struct loop *loop_current(void)
{
    __asm__ volatile("" ::: "memory");
    return current_loop;
}

static G_NO_INLINE void set_current(struct loop *loop)
{
    current_loop = loop;
    __asm__ volatile("" ::: "memory");
}

/* On one CPU, whoever spins keeps the one it waits for from running. */
static bool several_cpus(void)
{
    cpu_set_t cpus;

    return sched_getaffinity(0, sizeof(cpus), &cpus) != 0 ||
           CPU_COUNT(&cpus) > 1;
}

struct loop *loop_new(const struct loop_backend *backend,
                      const char *name,
                      GError **err)
{
    struct loop *loop = g_new0(struct loop, 1);

    loop->backend = backend;
    loop->name = g_strdup(name);
    list_init(&loop->ready);
    list_init(&loop->pollers);
    loop->timers = g_ptr_array_new();
    loop->may_spin = backend->may_spin && several_cpus();
    coroutines_init(&loop->coroutines);
    mailbox_init(&loop->mailbox);
    if (backend->open(loop, &loop->backend_state, err) < 0) {
        g_prefix_error(err, "Cannot start event loop '%s': ", name);
        loop->backend = NULL;
        loop_free(loop);
        return NULL;
    }
    return loop;
}

void loop_free(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    g_assert(loop_current() != loop);
    g_assert(list_is_empty(&loop->ready));
    g_assert(list_is_empty(&loop->pollers));
    g_assert(loop->timers->len == 0);
    if (loop->backend != NULL) {
        loop->backend->close(loop->backend_state);
    }
    coroutines_release(loop);
    mailbox_release(&loop->mailbox);
    g_ptr_array_free(loop->timers, true);
    g_free(loop->name);
    g_free(loop);
}

bool loop_has_work(const struct loop *loop)
{
    return !list_is_empty(&loop->ready) ||
           atomic_load_explicit(&loop->mailbox.has_mail,
                                memory_order_relaxed) ||
           atomic_load_explicit(&loop->stop, memory_order_relaxed);
}

static void wait_for_events(struct loop *loop, bool may_wait)
{
    const struct loop_backend *backend = loop->backend;
    bool learns = loop->may_spin && !list_is_empty(&loop->pollers);
    uint64_t idle_since_ns = 0;
    uint64_t deadline_ns = 0;

    if (may_wait && !loop_has_work(loop)) {
        idle_since_ns = learns ? backend->now_ns(loop->backend_state) : 0;
        if (learns && pollers_spin(loop, idle_since_ns)) {
            return;
        }
        if (mailbox_sleep_begin(loop)) {
            deadline_ns = timers_next_deadline_ns(loop);
        }
    }
    backend->wait(loop->backend_state, deadline_ns);
    if (deadline_ns != 0) {
        mailbox_sleep_end(loop);
        if (learns) {
            pollers_learn(loop, idle_since_ns);
        }
    }
}

bool loop_run_once(struct loop *loop, bool may_wait)
{
    struct loop *outer = loop_current();
    bool worked;

    g_assert(outer != loop && (outer == NULL || outer->running == NULL));
    set_current(loop);
    worked = mailbox_deliver(loop);
    worked |= timers_fire(loop);
    worked |= coroutines_run_ready(loop);
    wait_for_events(loop, may_wait);
    worked |= loop_has_work(loop);
    set_current(outer);
    return worked;
}

void loop_run(struct loop *loop)
{
    while (!atomic_load_explicit(&loop->stop, memory_order_acquire)) {
        loop_run_once(loop, true);
    }
    /* What was posted before the stop, and what that makes ready. */
    loop_run_once(loop, false);
    atomic_store_explicit(&loop->stop, false, memory_order_relaxed);
}

void loop_stop(struct loop *loop)
{
    atomic_store_explicit(&loop->stop, true, memory_order_release);
    mailbox_knock(loop);
}

static void *run_thread(void *opaque)
{
    struct loop *loop = opaque;
    char name[16];

    g_strlcpy(name, loop->name, sizeof(name));
    pthread_setname_np(pthread_self(), name);
    loop_run(loop);
    return NULL;
}

/* Signals are the main thread's, except those that are a thread's own fault. */
int loop_thread_create(pthread_t *ret_thread,
                       void *(*run)(void *opaque),
                       void *opaque)
{
    static const int own[] = {
        SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT
    };
    sigset_t blocked;
    sigset_t before;
    int ret;

    sigfillset(&blocked);
    for (size_t i = 0; i < G_N_ELEMENTS(own); i++) {
        sigdelset(&blocked, own[i]);
    }
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    ret = -pthread_create(ret_thread, NULL, run, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ret;
}

struct loop *loop_thread_start(const struct loop_backend *backend,
                               const char *name,
                               GError **err)
{
    struct loop *loop = loop_new(backend, name, err);
    int ret;

    if (loop == NULL) {
        return NULL;
    }
    ret = loop_thread_create(&loop->thread, run_thread, loop);
    if (ret < 0) {
        (void)error_set_errno(err, ret, "Cannot start thread '%s'", name);
        loop_free(loop);
        return NULL;
    }
    return loop;
}

void loop_thread_join(struct loop *loop)
{
    if (loop == NULL) {
        return;
    }
    loop_stop(loop);
    pthread_join(loop->thread, NULL);
    loop_free(loop);
}

const char *loop_name(const struct loop *loop)
{
    return loop->name;
}

uint64_t loop_now_ns(void)
{
    struct loop *loop = loop_current();

    return loop->backend->now_ns(loop->backend_state);
}

uint64_t loop_wall_clock_us(void)
{
    struct loop *loop = loop_current();

    return loop->backend->wall_clock_us(loop->backend_state);
}

void loop_random(void *buffer, size_t bytes)
{
    struct loop *loop = loop_current();

    loop->backend->random(loop->backend_state, buffer, bytes);
}
