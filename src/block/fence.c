/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Gates: where requests wait while a node is fenced or drained.
 *
 * A request looks at the gates of its node and of all nodes below. All open:
 * it counts itself in at each and goes on; nothing yields in between, so a
 * gate never lets through what another one holds. One closed: it waits there,
 * then looks at all of them again.
 *
 * A lane that opens wakes the first of those it holds; that one, having left
 * the list, wakes the next. So they go on in order, and a newcomer, who sees
 * the list, cannot overtake them. A lane that closes again meanwhile just finds
 * them where they were.
 */
#include "block/fence.h"

#include "block/node_priv.h"
#include "loop/coroutine.h"

struct held_request {
    struct list link;
    struct coroutine *coroutine;
    struct block_node **node; /* where it is about to enter ... */
    enum block_lane lane;     /* ... and as what */
};

void block_gate_init(struct block_gate *gate)
{
    for (int i = 0; i < BLOCK_LANES; i++) {
        gate->lanes[i] = (struct block_gate_lane){ 0 };
        list_init(&gate->lanes[i].held);
    }
    co_queue_init(&gate->idle);
    gate->alone = 0;
    co_mutex_init(&gate->turn);
}

static void lane_wake_first(struct block_gate_lane *lane)
{
    struct held_request *first;

    if (lane->closed > 0 || lane->woken || list_is_empty(&lane->held)) {
        return;
    }
    first = LIST_ENTRY(lane->held.next, struct held_request, link);
    lane->woken = true;
    co_wake(first->coroutine);
}

/* A request on its way in. */
struct entering {
    struct block_node *node; /* may become another one while it is held */
    enum block_lane lane;
    bool had_turn; /* was held before and need not queue again */
};

/* Waits until the gate's lane is open and it is our turn. Returns whether it had
 * to wait. */
static bool co_lane_pass(struct entering *entering,
                         struct block_gate *gate,
                         enum block_lane where)
{
    struct block_gate_lane *lane = &gate->lanes[where];
    struct held_request self = { .coroutine = co_self(),
                                 .node = &entering->node,
                                 .lane = entering->lane };

    if (lane->closed == 0 &&
        (entering->had_turn || list_is_empty(&lane->held))) {
        return false;
    }
    if (entering->had_turn) {
        list_prepend(&lane->held, &self.link);
    } else {
        list_append(&lane->held, &self.link);
    }
    do {
        co_yield ();
        lane->woken = false;
    } while (lane->closed > 0);
    list_remove(&self.link);
    lane_wake_first(lane);
    entering->had_turn = true;
    return true;
}

/* The node's own gate first: while that is closed nothing else of the node is
 * looked at, which the main thread may be changing. */
static bool co_gates_pass(struct entering *entering)
{
    if (co_lane_pass(entering, &entering->node->gate, entering->lane)) {
        return false;
    }
    for (size_t i = 1; i < entering->node->path_count; i++) {
        const struct block_node *node = entering->node;

        if (co_lane_pass(entering, &node->path[i]->gate,
                         block_path_lane(node, i, entering->lane))) {
            return false;
        }
    }
    return true;
}

struct block_node *co_block_gate_enter(struct block_node *node,
                                       enum block_lane lane)
{
    struct entering entering = { .node = node, .lane = lane };

    while (!co_gates_pass(&entering)) {
        /* Until all were found open at once. */
    }
    node = entering.node;
    for (size_t i = 0; i < node->path_count; i++) {
        node->path[i]->gate.lanes[block_path_lane(node, i, lane)].under_way++;
    }
    return node;
}

/* Requests that wait to enter a node which another has taken the place of. */
static void carry_out_retarget(struct block_node *node)
{
    struct block_node *to = g_steal_pointer(&node->retarget);

    for (size_t i = 0; to != NULL && i < node->path_count * BLOCK_LANES; i++) {
        struct block_gate *gate = &node->path[i / BLOCK_LANES]->gate;

        LIST_FOREACH(link, &gate->lanes[i % BLOCK_LANES].held) {
            struct held_request *held =
                LIST_ENTRY(link, struct held_request, link);

            if (*held->node == node &&
                (node->retarget_all || held->lane == BLOCK_LANE_WRITE)) {
                *held->node = to;
            }
        }
    }
}

static void gate_count_out(struct block_gate *gate, enum block_lane lane)
{
    g_assert(gate->lanes[lane].under_way > 0);
    gate->lanes[lane].under_way--;
    if ((gate->lanes[lane].under_way == 0 ||
         (gate->alone > 0 && lane == BLOCK_LANE_WRITE)) &&
        !co_queue_is_empty(&gate->idle)) {
        co_queue_wake_all(&gate->idle);
    }
}

void block_gate_leave(struct block_node *node, enum block_lane lane)
{
    for (size_t i = 0; i < node->path_count; i++) {
        gate_count_out(&node->path[i]->gate, block_path_lane(node, i, lane));
    }
}

void block_background_begin(struct block_node *node)
{
    g_assert(loop_current() == node->home);
    node->gate.lanes[BLOCK_LANE_OTHER].under_way++;
}

void block_background_end(struct block_node *node)
{
    gate_count_out(&node->gate, BLOCK_LANE_OTHER);
}

static int co_wait_idle(struct block_gate *gate,
                        enum block_lane lane,
                        uint64_t deadline_ns)
{
    while (gate->lanes[lane].under_way > 0) {
        if (!co_queue_wait_until(&gate->idle, deadline_ns) &&
            gate->lanes[lane].under_way > 0) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

static void lane_open(struct block_gate_lane *lane)
{
    g_assert(lane->closed > 0);
    lane->closed--;
    lane_wake_first(lane);
}

void co_block_gate_be_alone(struct block_node *node)
{
    struct block_gate *gate = &node->gate;
    struct block_gate_lane *lane = &gate->lanes[BLOCK_LANE_WRITE];

    gate->alone++;
    lane->closed++;
    while (lane->under_way > gate->alone) {
        co_queue_wait(&gate->idle);
    }
    co_mutex_lock(&gate->turn);
}

void block_gate_go_on(struct block_node *node)
{
    struct block_gate *gate = &node->gate;

    co_mutex_unlock(&gate->turn);
    gate->alone--;
    lane_open(&gate->lanes[BLOCK_LANE_WRITE]);
}

int co_block_fence(struct block_node *node, uint64_t deadline_ns)
{
    node->gate.lanes[BLOCK_LANE_WRITE].closed++;
    return co_wait_idle(&node->gate, BLOCK_LANE_WRITE, deadline_ns);
}

void block_unfence(struct block_node *node)
{
    lane_open(&node->gate.lanes[BLOCK_LANE_WRITE]);
}

int co_block_drain(struct block_node *node, uint64_t deadline_ns)
{
    int ret;

    node->gate.lanes[BLOCK_LANE_WRITE].closed++;
    node->gate.lanes[BLOCK_LANE_OTHER].closed++;
    ret = co_wait_idle(&node->gate, BLOCK_LANE_WRITE, deadline_ns);
    if (ret == 0) {
        ret = co_wait_idle(&node->gate, BLOCK_LANE_OTHER, deadline_ns);
    }
    if (ret == 0 && node->driver->drained != NULL) {
        node->driver->drained(node);
    }
    return ret;
}

void block_undrain(struct block_node *node)
{
    carry_out_retarget(node);
    /* Idle no more if this is the last drain; a timeout has not told it. */
    if (node->driver->undrained != NULL &&
        node->gate.lanes[BLOCK_LANE_OTHER].closed == 1) {
        node->driver->undrained(node);
    }
    lane_open(&node->gate.lanes[BLOCK_LANE_WRITE]);
    lane_open(&node->gate.lanes[BLOCK_LANE_OTHER]);
}
