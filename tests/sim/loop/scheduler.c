/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop/scheduler.h"

#include <string.h>

#include "loop/backend.h"
#include "loop/loop_priv.h"

/* Whose loop is being made: the backend's open() has no other way to know. */
static struct scheduler *opening;

static int open_loop(struct loop *loop, void **ret_state, GError **err)
{
    (void)loop;
    (void)err;
    *ret_state = opening;
    return 0;
}

static void close_loop(void *state)
{
    (void)state;
}

static void call_done(struct loop_message *message)
{
    struct io_request *request =
        LIST_ENTRY(message, struct io_request, message);

    request->done(request);
}

/* Calls that may block (to compress, say) run on the spot, and are told to have
 * ended later. There is no other real I/O. */
static void submit(void *state, struct io_request *request)
{
    (void)state;
    if (request->operation != IO_CALL) {
        g_error("the simulated engine asked for real I/O");
    }
    request->result = request->call(request->opaque);
    request->message.run = call_done;
    loop_post(loop_current(), &request->message);
}

static void cancel(void *state, struct io_request *request)
{
    (void)state;
    (void)request;
    g_error("the simulated engine asked for real I/O");
}

static void wait_for_events(void *state, uint64_t deadline_ns)
{
    (void)state;
    (void)deadline_ns; /* the scheduler asks the loops */
}

static void wake(void *state)
{
    (void)state;
}

static uint64_t now_ns(void *state)
{
    const struct scheduler *scheduler = state;

    return scheduler->now_ns;
}

static uint64_t wall_clock_us(void *state)
{
    return now_ns(state) / 1000;
}

static void fill_random(void *state, void *buffer, size_t bytes)
{
    struct scheduler *scheduler = state;
    uint8_t *to = buffer;

    for (size_t i = 0; i < bytes; i++) {
        to[i] = (uint8_t)random_next(scheduler->random);
    }
}

static size_t choose(void *state, size_t count)
{
    struct scheduler *scheduler = state;

    switch (scheduler->order) {
    case SCHEDULER_OLDEST: return 0;
    case SCHEDULER_NEWEST:
        /* Not always, or what is oldest might never run. */
        return random_once_in(scheduler->random, 8) ? 0 : count - 1;
    case SCHEDULER_MOSTLY_OLDEST:
        if (!random_once_in(scheduler->random, 8)) {
            return 0;
        }
        break;
    case SCHEDULER_ANY:
    case SCHEDULER_ORDERS: break;
    }
    return random_below(scheduler->random, count);
}

static const struct loop_backend scheduler_backend = {
    .open = open_loop,
    .close = close_loop,
    .submit = submit,
    .cancel = cancel,
    .wait = wait_for_events,
    .wake = wake,
    .now_ns = now_ns,
    .wall_clock_us = wall_clock_us,
    .random = fill_random,
    .choose = choose,
};

void scheduler_init(struct scheduler *scheduler, struct random *random)
{
    *scheduler = (struct scheduler){ .random = random, .now_ns = 1000000 };
    scheduler->order = random_below(random, SCHEDULER_ORDERS);
    scheduler->drift_ns = random_once_in(random, 3) ? 0 : 1500;
}

void scheduler_release(struct scheduler *scheduler)
{
    for (unsigned int i = 0; i < scheduler->loop_count; i++) {
        loop_free(scheduler->loops[i]);
    }
}

struct loop *scheduler_add_loop(struct scheduler *scheduler, const char *name)
{
    struct loop *loop;

    g_assert(scheduler->loop_count < SCHEDULER_LOOPS_MAX);
    opening = scheduler;
    loop = loop_new(&scheduler_backend, name, NULL);
    opening = NULL;
    scheduler->loops[scheduler->loop_count++] = loop;
    return loop;
}

/* The loops that can run now; with none, `*ret_deadline_ns` is the next timer
 * of any. */
static unsigned int find_runnable(const struct scheduler *scheduler,
                                  struct loop **ret_loops,
                                  uint64_t *ret_deadline_ns)
{
    unsigned int count = 0;

    *ret_deadline_ns = UINT64_MAX;
    for (unsigned int i = 0; i < scheduler->loop_count; i++) {
        struct loop *loop = scheduler->loops[i];
        uint64_t deadline_ns = timers_next_deadline_ns(loop);

        if (loop_has_work(loop) || deadline_ns <= scheduler->now_ns) {
            ret_loops[count++] = loop;
        } else {
            *ret_deadline_ns = MIN(*ret_deadline_ns, deadline_ns);
        }
    }
    return count;
}

bool scheduler_turn(struct scheduler *scheduler)
{
    struct loop *runnable[SCHEDULER_LOOPS_MAX];
    uint64_t deadline_ns;
    unsigned int count = find_runnable(scheduler, runnable, &deadline_ns);

    if (count == 0) {
        if (deadline_ns == UINT64_MAX) {
            return false;
        }
        scheduler->now_ns = deadline_ns;
        count = find_runnable(scheduler, runnable, &deadline_ns);
    }
    scheduler->turns++;
    loop_run_once(count == 1 ? runnable[0]
                             : runnable[random_below(scheduler->random, count)],
                  false);
    if (scheduler->drift_ns > 0) {
        scheduler->now_ns +=
            random_below(scheduler->random, scheduler->drift_ns);
    }
    return true;
}
