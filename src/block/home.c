/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Homes: which thread runs a node, and changing that.
 *
 * Nodes that are each other's child form a piece and share a home. To move a
 * piece: its users come to rest, its nodes are drained, the homes are set by
 * the main thread, and on the new home everything is released. Nothing of a
 * driver is tied to a thread, so there is no more to it. When something does
 * not come to rest in time, what was stopped so far goes on, on the old home,
 * and the move fails.
 *
 * A coroutine of the main thread that visits a node's home (a query) holds off
 * moving and deleting until it is back.
 */
#include <errno.h>

#include "base/error.h"
#include "block/fence.h"
#include "block/node_priv.h"
#include "loop/coroutine.h"

#define MOVE_DEADLINE_NS (UINT64_C(2) * 1000 * 1000 * 1000)

void co_block_visit(struct block_node *node)
{
    node->visitors_waiting++;
    while (node->moving) {
        co_queue_wait(&node->visits);
    }
    node->visitors_waiting--;
    node->visitors++;
    co_move(node->home);
}

void co_block_leave(struct block_node *node)
{
    co_move(node->graph->main);
    g_assert(node->visitors > 0);
    node->visitors--;
    co_queue_wake_all(&node->visits);
}

/* A piece on its way to another home. */
struct move {
    GPtrArray *nodes;              /* of the piece */
    GPtrArray *users;              /* ... with requests of their own accord */
    guint resting;                 /* so many users were told to rest ... */
    guint drained;                 /* ... and so many nodes' gates are closed */
    bool hooks_told;               /* of the move */
    uint64_t deadline_ns;          /* for all of it */
    const struct block_node *hung; /* who did not come to rest */
};

static void piece_add(GPtrArray *nodes, struct block_node *node)
{
    if (!g_ptr_array_find(nodes, node, NULL)) {
        g_ptr_array_add(nodes, node);
    }
}

/* All nodes that hang together with `node`, by child or parent. */
static GPtrArray *piece_collect(struct block_node *node)
{
    GPtrArray *nodes = g_ptr_array_new();

    g_ptr_array_add(nodes, node);
    for (guint i = 0; i < nodes->len; i++) {
        struct block_node *member = g_ptr_array_index(nodes, i);

        for (size_t k = 0; k < member->edge_count; k++) {
            piece_add(nodes, member->edges[k].user.node);
        }
        LIST_FOREACH(link, &member->parents) {
            piece_add(nodes, LIST_ENTRY(link, struct block_edge, link)->parent);
        }
    }
    return nodes;
}

/* The user that keeps the piece where it is; NULL: none. */
static const struct block_user *piece_find_pinned(GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        struct block_node *node = g_ptr_array_index(nodes, i);

        LIST_FOREACH(link, &node->users) {
            const struct block_user *user =
                LIST_ENTRY(link, struct block_user, link);

            if (user->pinned) {
                return user;
            }
        }
    }
    return NULL;
}

/* Users that have requests of their own accord. */
static GPtrArray *piece_collect_users(GPtrArray *nodes)
{
    GPtrArray *users = g_ptr_array_new();

    for (guint i = 0; i < nodes->len; i++) {
        struct block_node *node = g_ptr_array_index(nodes, i);

        LIST_FOREACH(link, &node->users) {
            struct block_user *user = LIST_ENTRY(link, struct block_user, link);

            if (user->co_quiesce != NULL) {
                g_ptr_array_add(users, user);
            }
        }
    }
    return users;
}

/* On the old home. */
static int co_move_stop(struct move *move)
{
    while (move->resting < move->users->len) {
        struct block_user *user =
            g_ptr_array_index(move->users, move->resting++);
        int ret = user->co_quiesce(user, move->deadline_ns);

        if (ret < 0) {
            move->hung = user->node;
            return ret;
        }
    }
    while (move->drained < move->nodes->len) {
        struct block_node *node =
            g_ptr_array_index(move->nodes, move->drained++);
        int ret = co_block_drain(node, move->deadline_ns);

        if (ret < 0) {
            move->hung = node;
            return ret;
        }
    }
    for (guint i = 0; i < move->nodes->len; i++) {
        block_hooks_moving(g_ptr_array_index(move->nodes, i));
    }
    move->hooks_told = true;
    return 0;
}

/* On the home that the piece has now: what was stopped. */
static void move_go_on(const struct move *move)
{
    for (guint i = 0; move->hooks_told && i < move->nodes->len; i++) {
        block_hooks_moved(g_ptr_array_index(move->nodes, i));
    }
    for (guint i = 0; i < move->drained; i++) {
        block_undrain(g_ptr_array_index(move->nodes, i));
    }
    for (guint i = 0; i < move->resting; i++) {
        struct block_user *user = g_ptr_array_index(move->users, i);

        user->resume(user);
    }
}

/* Keeps visitors away, and waits for those that are there. */
static int co_move_close(struct move *move)
{
    for (guint i = 0; i < move->nodes->len; i++) {
        struct block_node *node = g_ptr_array_index(move->nodes, i);

        node->moving = true;
    }
    for (guint i = 0; i < move->nodes->len; i++) {
        struct block_node *node = g_ptr_array_index(move->nodes, i);

        while (node->visitors > 0) {
            if (!co_queue_wait_until(&node->visits, move->deadline_ns) &&
                node->visitors > 0) {
                move->hung = node;
                return -ETIMEDOUT;
            }
        }
    }
    return 0;
}

static void move_open(const struct move *move)
{
    for (guint i = 0; i < move->nodes->len; i++) {
        struct block_node *node = g_ptr_array_index(move->nodes, i);

        node->moving = false;
        co_queue_wake_all(&node->visits);
    }
}

static int co_move_carry_out(struct move *move, struct loop *home)
{
    struct block_node *first = g_ptr_array_index(move->nodes, 0);
    struct loop *main = first->graph->main;
    int ret;

    co_move(first->home);
    ret = co_move_stop(move);
    if (ret == 0) {
        co_move(main);
        for (guint i = 0; i < move->nodes->len; i++) {
            struct block_node *node = g_ptr_array_index(move->nodes, i);

            node->home = home;
        }
        co_move(home);
    }
    move_go_on(move);
    co_move(main);
    return ret;
}

static int co_piece_move(GPtrArray *nodes,
                         struct loop *home,
                         const struct block_node **ret_hung)
{
    struct move move = {
        .nodes = nodes,
        .deadline_ns = loop_now_ns() + MOVE_DEADLINE_NS,
    };
    int ret = co_move_close(&move);

    if (ret == 0) {
        move.users = piece_collect_users(nodes);
        ret = co_move_carry_out(&move, home);
        g_ptr_array_unref(move.users);
    }
    move_open(&move);
    if (ret < 0) {
        *ret_hung = move.hung;
    }
    return ret;
}

int co_block_move(struct block_node *node, struct loop *home, GError **err)
{
    g_autoptr(GPtrArray) nodes = piece_collect(node);
    const struct block_user *pinned = piece_find_pinned(nodes);
    const struct block_node *hung;
    int ret;

    g_assert(loop_current() == node->graph->main);
    if (node->home == home) {
        return 0;
    }
    if (pinned != NULL) {
        return error_set(err, -EBUSY,
                         "node '%s' cannot move to another thread: node '%s' "
                         "is in use by %s '%s'",
                         node->name, pinned->node->name, pinned->kind,
                         pinned->id);
    }
    ret = co_piece_move(nodes, home, &hung);
    if (ret < 0) {
        return error_set(err, ret,
                         "node '%s' cannot move to another thread: requests "
                         "of node '%s' did not end in time",
                         node->name, hung->name);
    }
    return 0;
}

int co_block_join(struct block_node *a, struct block_node *b, GError **err)
{
    g_autoptr(GPtrArray) b_nodes = NULL;

    if (a->home == b->home) {
        return 0;
    }
    b_nodes = piece_collect(b);
    if (piece_find_pinned(b_nodes) == NULL) {
        return co_block_move(b, a->home, err);
    }
    return co_block_move(a, b->home, err);
}
