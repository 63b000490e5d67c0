/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A coroutine runs when its loop, or co_enter(), switches to it, and switches
 * back to whoever that was when it yields, ends or moves. What follows from its
 * leaving (queue it again, keep it for the next one, send it to another loop)
 * is done there, on the other stack, once its own is at rest.
 *
 *     READY ──> RUNNING ──> SUSPENDED ──(wake)──> READY
 *                  ├──────> MOVING ──(arrives)──> READY on the other loop
 *                  └──────> ENDED ──> pool, or freed
 *
 * Wakes are counted, so one that comes early is kept for the next yield. A wake
 * from another thread travels as a message; should the coroutine have moved
 * meanwhile, the message follows it.
 *
 * When the kernel gives no more stacks, new coroutines wait until one ends.
 */
#include "loop/coroutine.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "loop/loop_priv.h"

#ifndef MADV_GUARD_INSTALL
# define MADV_GUARD_INSTALL 102
#endif

#define BURST_MAX 64

enum coroutine_state {
    COROUTINE_READY,
    COROUTINE_RUNNING,
    COROUTINE_SUSPENDED,
    COROUTINE_MOVING,
    COROUTINE_ENDED,
};

struct coroutine {
    struct list link; /* in `ready` or `pool` */
    struct context context;
    struct context *caller; /* whom to give the thread back to */
    enum coroutine_state state;
    unsigned burst;            /* calls that did not wait, since it yielded */
    unsigned wakes;            /* not yet consumed by a yield */
    struct loop *_Atomic loop; /* written by the thread that owns it */
    struct loop *move_target;  /* while MOVING */
    atomic_uint wakes_on_way;  /* carried by wake_message */
    struct loop_message wake_message;
    struct loop_message move_message;
    coroutine_fn run; /* NULL: leave the stack for good */
    void *opaque;
    void *mapping; /* guard page and stack */
    size_t mapping_bytes;
};

/* A coroutine to come: on its way to its loop, or waiting for a stack. */
struct spawn {
    struct loop_message message;
    struct list link;
    struct loop *loop;
    coroutine_fn run;
    void *opaque;
};

static void deliver_wakes(struct loop_message *message);
static void arrive(struct loop_message *message);

struct coroutine *co_self(void)
{
    struct loop *loop = loop_current();

    return loop != NULL ? loop->running : NULL;
}

/* Of functions that only coroutines may call. */
static struct coroutine *running_coroutine(void)
{
    struct coroutine *self = co_self();

    g_assert(self != NULL);
    return self;
}

/* The stack's lowest page faults. A guard that lives in the page tables leaves
 * neighbouring stacks one mapping, of which a process may have some 65,000; a
 * kernel before 6.13 splits them. */
static bool guard_page(void *page, size_t bytes)
{
    return madvise(page, bytes, MADV_GUARD_INSTALL) == 0 ||
           mprotect(page, bytes, PROT_NONE) == 0;
}

static void coroutine_main(void)
{
    struct coroutine *self = running_coroutine();

    context_entered(&self->context);
    while (self->run != NULL) {
        self->run(self->opaque);
        self->state = COROUTINE_ENDED;
        context_switch(&self->context, self->caller);
    }
    context_leave(&self->context, self->caller);
}

static struct coroutine *coroutine_new(void)
{
    size_t guard_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = guard_bytes + COROUTINE_STACK_BYTES;
    void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct coroutine *coroutine;

    if (mapping == MAP_FAILED) {
        return NULL;
    }
    if (!guard_page(mapping, guard_bytes)) {
        munmap(mapping, bytes);
        return NULL;
    }
    coroutine = g_new0(struct coroutine, 1);
    list_init(&coroutine->link);
    coroutine->mapping = mapping;
    coroutine->mapping_bytes = bytes;
    coroutine->wake_message.run = deliver_wakes;
    coroutine->move_message.run = arrive;
    context_init(&coroutine->context, (char *)mapping + guard_bytes,
                 COROUTINE_STACK_BYTES, coroutine_main);
    return coroutine;
}

/* `from` is the context that runs now. */
static void coroutine_free(struct coroutine *coroutine, struct context *from)
{
    coroutine->run = NULL;
    coroutine->caller = from;
    context_switch(from, &coroutine->context);
    context_release(&coroutine->context);
    munmap(coroutine->mapping, coroutine->mapping_bytes);
    g_free(coroutine);
}

static struct context *running_context(struct loop *loop)
{
    return loop->running != NULL ? &loop->running->context : &loop->context;
}

void coroutines_init(struct coroutine_set *set)
{
    list_init(&set->pool);
    list_init(&set->starved);
}

void coroutines_release(struct loop *loop)
{
    struct coroutine_set *set = &loop->coroutines;
    struct list *link;

    g_assert(set->alive == 0 && list_is_empty(&set->starved));
    while ((link = list_take_first(&set->pool)) != NULL) {
        coroutine_free(LIST_ENTRY(link, struct coroutine, link),
                       &loop->context);
    }
}

static void make_ready(struct loop *loop, struct coroutine *coroutine)
{
    coroutine->state = COROUTINE_READY;
    list_append(&loop->ready, &coroutine->link);
    loop->ready_count++;
}

/* A pooled or new coroutine, not yet ready; NULL: no memory for its stack. */
static struct coroutine *coroutine_take(struct loop *loop)
{
    struct coroutine_set *set = &loop->coroutines;
    struct list *link = list_take_first(&set->pool);
    struct coroutine *coroutine;

    if (link != NULL) {
        coroutine = LIST_ENTRY(link, struct coroutine, link);
        set->pooled--;
    } else {
        coroutine = coroutine_new();
        if (coroutine == NULL) {
            return NULL;
        }
    }
    atomic_store_explicit(&coroutine->loop, loop, memory_order_release);
    set->alive++;
    return coroutine;
}

/* Waits for a coroutine of this loop to end and leave its stack. */
static void starve(struct loop *loop, struct spawn *spawn)
{
    if (loop->coroutines.alive == 0) {
        g_error("Out of memory: no stack for a coroutine of loop '%s'",
                loop->name);
    }
    list_append(&loop->coroutines.starved, &spawn->link);
}

static void give_work(struct coroutine *coroutine,
                      coroutine_fn run,
                      void *opaque)
{
    g_assert(coroutine->wakes == 0 && coroutine->wakes_on_way == 0);
    coroutine->run = run;
    coroutine->opaque = opaque;
}

static void coroutine_ended(struct loop *loop, struct coroutine *coroutine)
{
    struct coroutine_set *set = &loop->coroutines;
    struct list *link = list_take_first(&set->starved);

    if (link != NULL) {
        struct spawn *spawn = LIST_ENTRY(link, struct spawn, link);

        give_work(coroutine, spawn->run, spawn->opaque);
        g_free(spawn);
        make_ready(loop, coroutine);
        return;
    }
    set->alive--;
    if (set->pooled == COROUTINE_POOL_MAX) {
        coroutine_free(coroutine, running_context(loop));
        return;
    }
    /* The one used last is the one whose stack is in the cache. */
    list_prepend(&set->pool, &coroutine->link);
    set->pooled++;
}

static void coroutine_left(struct loop *loop, struct coroutine *coroutine)
{
    struct loop *target;

    switch (coroutine->state) {
    case COROUTINE_SUSPENDED:
        if (coroutine->wakes > 0) {
            coroutine->wakes--;
            make_ready(loop, coroutine);
        }
        break;
    case COROUTINE_MOVING:
        loop->coroutines.alive--;
        target = coroutine->move_target;
        atomic_store_explicit(&coroutine->loop, target, memory_order_release);
        loop_post(target, &coroutine->move_message);
        break;
    case COROUTINE_ENDED: coroutine_ended(loop, coroutine); break;
    case COROUTINE_READY:
    case COROUTINE_RUNNING: g_assert_not_reached();
    }
}

/* Runs it until it leaves. The caller stays on its thread meanwhile, be it a
 * coroutine itself, so `loop` is still the current one afterwards. */
static void resume(struct loop *loop, struct coroutine *coroutine)
{
    struct coroutine *outer = loop->running;

    coroutine->caller = running_context(loop);
    coroutine->state = COROUTINE_RUNNING;
    loop->running = coroutine;
    context_switch(coroutine->caller, &coroutine->context);
    loop->running = outer;
    coroutine_left(loop, coroutine);
}

static struct coroutine *take_ready(struct loop *loop)
{
    size_t index = 0;
    struct list *link = loop->ready.next;

    if (loop->backend->choose != NULL && loop->ready_count > 1) {
        index = loop->backend->choose(loop->backend_state, loop->ready_count);
        g_assert(index < loop->ready_count);
    }
    for (; index > 0; index--) {
        link = link->next;
    }
    list_remove(link);
    loop->ready_count--;
    return LIST_ENTRY(link, struct coroutine, link);
}

bool coroutines_run_ready(struct loop *loop)
{
    size_t count = loop->ready_count;

    if (loop->backend->choose != NULL && count > 1) {
        count = 1;
    }
    for (size_t i = 0; i < count; i++) {
        resume(loop, take_ready(loop));
    }
    return count > 0;
}

static void start_spawned(struct loop_message *message)
{
    struct spawn *spawn = LIST_ENTRY(message, struct spawn, message);
    struct loop *loop = spawn->loop;
    struct coroutine *coroutine = coroutine_take(loop);

    if (coroutine == NULL) {
        starve(loop, spawn);
        return;
    }
    give_work(coroutine, spawn->run, spawn->opaque);
    g_free(spawn);
    make_ready(loop, coroutine);
}

static struct spawn *spawn_new(struct loop *loop,
                               coroutine_fn run,
                               void *opaque)
{
    struct spawn *spawn = g_new0(struct spawn, 1);

    spawn->message.run = start_spawned;
    list_init(&spawn->link);
    spawn->loop = loop;
    spawn->run = run;
    spawn->opaque = opaque;
    return spawn;
}

void co_spawn(struct loop *loop, coroutine_fn run, void *opaque)
{
    struct coroutine *coroutine =
        loop == loop_current() ? coroutine_take(loop) : NULL;

    if (coroutine == NULL) {
        loop_post(loop, &spawn_new(loop, run, opaque)->message);
        return;
    }
    give_work(coroutine, run, opaque);
    make_ready(loop, coroutine);
}

void co_enter(coroutine_fn run, void *opaque)
{
    struct loop *loop = loop_current();
    struct coroutine *coroutine = coroutine_take(loop);

    if (coroutine == NULL) {
        starve(loop, spawn_new(loop, run, opaque));
        return;
    }
    give_work(coroutine, run, opaque);
    resume(loop, coroutine);
}

static void leave(struct coroutine *self, enum coroutine_state state)
{
    self->burst = 0;
    self->state = state;
    context_switch(&self->context, self->caller);
}

void co_yield (void)
{
    leave(running_coroutine(), COROUTINE_SUSPENDED);
}

static void wake_here(struct loop *loop,
                      struct coroutine *coroutine,
                      unsigned wakes)
{
    coroutine->wakes += wakes;
    if (coroutine->state == COROUTINE_SUSPENDED && coroutine->wakes > 0) {
        coroutine->wakes--;
        make_ready(loop, coroutine);
    }
}

/* Only the thread that owns a coroutine changes its loop, so one that finds it
 * to be its own may rely on it. */
static struct loop *coroutine_loop(struct coroutine *coroutine)
{
    return atomic_load_explicit(&coroutine->loop, memory_order_acquire);
}

void co_wake(struct coroutine *coroutine)
{
    struct loop *loop = coroutine_loop(coroutine);

    if (loop == loop_current()) {
        wake_here(loop, coroutine, 1);
    } else if (atomic_fetch_add_explicit(&coroutine->wakes_on_way, 1,
                                         memory_order_acq_rel) == 0) {
        loop_post(loop, &coroutine->wake_message);
    }
}

static void deliver_wakes(struct loop_message *message)
{
    struct coroutine *coroutine =
        LIST_ENTRY(message, struct coroutine, wake_message);
    struct loop *loop = coroutine_loop(coroutine);

    if (loop != loop_current()) {
        loop_post(loop, message);
        return;
    }
    wake_here(loop, coroutine,
              atomic_exchange_explicit(&coroutine->wakes_on_way, 0,
                                       memory_order_acq_rel));
}

void co_reschedule(void)
{
    co_wake(running_coroutine());
    co_yield ();
}

void co_burst(void)
{
    if (++running_coroutine()->burst >= BURST_MAX) {
        co_reschedule();
    }
}

void co_move(struct loop *target)
{
    struct coroutine *self = running_coroutine();

    if (target == loop_current()) {
        return;
    }
    self->move_target = target;
    leave(self, COROUTINE_MOVING);
}

static void arrive(struct loop_message *message)
{
    struct coroutine *coroutine =
        LIST_ENTRY(message, struct coroutine, move_message);
    struct loop *loop = loop_current();

    loop->coroutines.alive++;
    make_ready(loop, coroutine);
}

struct sleeper {
    struct loop_timer timer;
    struct coroutine *coroutine;
};

static void wake_sleeper(struct loop_timer *timer)
{
    co_wake(LIST_ENTRY(timer, struct sleeper, timer)->coroutine);
}

void co_sleep_until(uint64_t deadline_ns)
{
    struct sleeper sleeper = { .coroutine = running_coroutine() };

    loop_timer_init(&sleeper.timer, wake_sleeper);
    loop_timer_start(&sleeper.timer, deadline_ns);
    co_yield ();
}
