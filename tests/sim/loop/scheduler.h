/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many loops in one thread, in an order that follows from a seed.
 *
 * The scheduler owns the loops and the clock. A turn picks one of the loops
 * that have something to do; the loop picks, by the same chance, which of its
 * ready coroutines runs. When nothing is ready the clock jumps to the next
 * timer. There is no other I/O: simulated disks wait on timers.
 */
#ifndef SIM_LOOP_SCHEDULER_H
#define SIM_LOOP_SCHEDULER_H

#include "loop/loop.h"
#include "random.h"

#define SCHEDULER_LOOPS_MAX 4

/* Which ready coroutine runs next. */
enum scheduler_order {
    SCHEDULER_ANY,
    SCHEDULER_OLDEST,
    SCHEDULER_NEWEST,
    SCHEDULER_MOSTLY_OLDEST,
    SCHEDULER_ORDERS,
};

struct scheduler {
    struct random *random; /* borrowed */
    enum scheduler_order order;
    uint64_t drift_ns; /* at most this much passes from turn to turn */
    uint64_t now_ns;
    uint64_t turns;
    struct loop *loops[SCHEDULER_LOOPS_MAX];
    unsigned int loop_count;
};

void scheduler_init(struct scheduler *scheduler, struct random *random);
/* All loops must have come to rest. */
void scheduler_release(struct scheduler *scheduler);

/* A new loop; the scheduler owns it. */
struct loop *scheduler_add_loop(struct scheduler *scheduler, const char *name);

/* One turn. False: nothing is ready and no timer runs, so that nothing can
 * happen any more. */
bool scheduler_turn(struct scheduler *scheduler);

#endif
