/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Spinning before sleeping. A loop that falls idle asks its pollers for a
 * while, which saves the wake-up (7-31 us across CPUs) when work comes soon.
 * How long follows experience: idle times that ended within the maximum double
 * the spin, longer ones halve it, so a loop that is really idle does not spin.
 */
#include "loop/loop_priv.h"

#define SPIN_MAX_NS   UINT64_C(50000)
#define SPIN_START_NS UINT64_C(4000)

void loop_poller_add(struct loop_poller *poller)
{
    list_append(&loop_current()->pollers, &poller->link);
}

void loop_poller_remove(struct loop_poller *poller)
{
    list_remove(&poller->link);
}

static bool ask_pollers(struct loop *loop)
{
    bool found = false;

    LIST_FOREACH_SAFE(link, &loop->pollers) {
        struct loop_poller *poller = LIST_ENTRY(link, struct loop_poller, link);

        found |= poller->poll(poller);
    }
    return found;
}

bool pollers_spin(struct loop *loop, uint64_t idle_since_ns)
{
    const struct loop_backend *backend = loop->backend;
    uint64_t until_ns = idle_since_ns + loop->spin_ns;

    while (backend->now_ns(loop->backend_state) < until_ns) {
        backend->wait(loop->backend_state, 0);
        if (loop_has_work(loop) || ask_pollers(loop)) {
            pollers_learn(loop, idle_since_ns);
            return true;
        }
        if (backend->now_ns(loop->backend_state) >=
            timers_next_deadline_ns(loop)) {
            return true;
        }
    }
    return false;
}

void pollers_learn(struct loop *loop, uint64_t idle_since_ns)
{
    uint64_t idle_ns =
        loop->backend->now_ns(loop->backend_state) - idle_since_ns;

    if (idle_ns > SPIN_MAX_NS) {
        loop->spin_ns /= 2;
        if (loop->spin_ns < SPIN_START_NS) {
            loop->spin_ns = 0;
        }
    } else if (idle_ns > loop->spin_ns) {
        loop->spin_ns = CLAMP(loop->spin_ns * 2, SPIN_START_NS, SPIN_MAX_NS);
    }
}
