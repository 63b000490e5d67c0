/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Advice to the kernel, given behind the requests' back.
 *
 * It may wait for the device, so it runs on the offload pool. To the block
 * layer it is under way like a request: a node that moves to another thread
 * waits for it. Only advice: if it fails, something is slower, no more.
 */
#include "drivers/file_priv.h"
#include "loop/coroutine.h"

struct background_call {
    struct file_state *state;
    int (*call)(void *opaque);
    bool *under_way;
};

static void co_background(void *opaque)
{
    const struct background_call copy = *(const struct background_call *)opaque;
    struct file_state *state = copy.state;

    (void)co_file_call(state, copy.call, state);
    *copy.under_way = false;
    state->background_calls--;
    co_queue_wake_all(&state->background_ended);
    block_background_end(state->node);
}

void file_background_start(struct file_state *state,
                           int (*call)(void *opaque),
                           bool *under_way)
{
    struct background_call start = { state, call, under_way };

    g_assert(!*under_way);
    *under_way = true;
    state->background_calls++;
    block_background_begin(state->node);
    co_enter(co_background, &start); /* copies it before it yields */
}

void co_file_background_finish(struct file_state *state)
{
    while (state->background_calls > 0) {
        co_queue_wait(&state->background_ended);
    }
}
