/* SPDX-License-Identifier: BSD-3-Clause */
#include "fake_backend.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

struct fake_world fake_world;

struct fake_state {
    struct loop *loop;
    struct list pending;
};

static int fake_open(struct loop *loop, void **ret_state, GError **err)
{
    struct fake_state *fake;

    if (fake_world.refuse_open) {
        return error_set(err, -ENOSYS, "no backend today");
    }
    fake = g_new0(struct fake_state, 1);
    fake->loop = loop;
    list_init(&fake->pending);
    *ret_state = fake;
    return 0;
}

static void fake_close(void *state)
{
    struct fake_state *fake = state;

    g_assert(list_is_empty(&fake->pending));
    g_free(fake);
}

static void fake_submit(void *state, struct io_request *request)
{
    struct fake_state *fake = state;

    g_assert(loop_current() == fake->loop);
    fake_world.submitted++;
    list_append(&fake->pending, &request->link);
}

static void fake_cancel(void *state, struct io_request *request)
{
    (void)state;
    g_assert(request->result == 0); /* not asked before */
    request->result = -ECANCELED;
}

static int64_t transfer(const struct io_request *request)
{
    size_t moved = 0;

    for (int i = 0; i < request->iov_count; i++) {
        for (size_t at = 0; at < request->iov[i].iov_len; at++, moved++) {
            char *byte = (char *)request->iov[i].iov_base + at;
            size_t place = request->offset + moved;

            if (place >= fake_world.file_bytes ||
                (fake_world.transfer_max != 0 &&
                 moved == fake_world.transfer_max)) {
                return (int64_t)moved;
            }
            if (request->operation == IO_PREADV) {
                *byte = fake_world.file[place];
            } else {
                fake_world.file[place] = *byte;
            }
        }
    }
    return (int64_t)moved;
}

static int64_t carry_out(struct io_request *request)
{
    if (fake_world.fail_once != 0 && fake_world.fail_skip-- == 0) {
        int failure = fake_world.fail_once;

        fake_world.fail_once = 0;
        fake_world.fail_skip = 0;
        return failure;
    }
    switch (request->operation) {
    case IO_PREADV:
    case IO_PWRITEV: return transfer(request);
    case IO_CALL: return request->call(request->opaque);
    case IO_POLL: return request->result < 0 ? request->result : request->flags;
    case IO_DATASYNC:
    case IO_ALLOCATE: return 0;
    }
    return -EINVAL;
}

static void fake_wait(void *state, uint64_t deadline_ns)
{
    struct fake_state *fake = state;
    struct list *link = list_take_first(&fake->pending);

    if (link != NULL) {
        struct io_request *request = LIST_ENTRY(link, struct io_request, link);

        request->result = carry_out(request);
        request->done(request);
    } else if (deadline_ns > fake_world.now_ns) {
        fake_world.sleeps++;
        fake_world.slept_until_ns = deadline_ns;
        if (deadline_ns != UINT64_MAX) {
            fake_world.now_ns = deadline_ns;
        }
    }
}

static void fake_wake(void *state)
{
    (void)state;
    fake_world.wakes++;
}

static uint64_t fake_now_ns(void *state)
{
    (void)state;
    void (*on_clock)(void) = fake_world.on_clock;

    fake_world.on_clock = NULL;
    if (on_clock != NULL) {
        on_clock();
    }
    fake_world.now_ns += fake_world.tick_ns;
    return fake_world.now_ns;
}

static uint64_t fake_wall_clock_us(void *state)
{
    (void)state;
    return 1000000 + fake_world.now_ns / 1000;
}

static void fake_random(void *state, void *buffer, size_t bytes)
{
    (void)state;
    memset(buffer, 4, bytes);
}

static size_t fake_choose(void *state, size_t count)
{
    (void)state;
    fake_world.chooser_asked++;
    return fake_world.chooser_answer % count;
}

#define FAKE_BACKEND                                            \
 .open = fake_open, .close = fake_close, .submit = fake_submit, \
 .cancel = fake_cancel, .wait = fake_wait, .wake = fake_wake,   \
 .now_ns = fake_now_ns, .wall_clock_us = fake_wall_clock_us,    \
 .random = fake_random

const struct loop_backend fake_backend = { FAKE_BACKEND };
const struct loop_backend fake_choosing_backend = { FAKE_BACKEND,
                                                    .choose = fake_choose };
const struct loop_backend fake_spinning_backend = { FAKE_BACKEND,
                                                    .may_spin = true };
