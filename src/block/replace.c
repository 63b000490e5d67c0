/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replacing: everyone who uses one node uses another.
 *
 * Prepare attaches to the new node a stand-in for each user that will move, so
 * that permissions are checked now and hold until then, and marks the user as
 * leaving. Commit puts the users in the place of their stand-ins, which cannot
 * fail any more. The paths of parents change with it, which is why they are
 * drained too: a request counts itself in and out by its node's path.
 *
 * What is held at the gates meanwhile goes on by itself: a parent's request
 * finds the parent's new path; one to the old node is led to the new one when
 * the drain ends (fence.c), if it is a write. (Reads are let go where they were
 * headed: some are a job's that stays there, and for a guest the content is
 * still the same.)
 */
#include "block/replace.h"

#include <errno.h>

#include "base/error.h"
#include "block/fence.h"
#include "block/node_priv.h"
#include "loop/coroutine.h"

struct block_replacement {
    struct block_node *from;
    struct block_node *to;
    enum block_replacement_kind kind;
    GPtrArray *nodes;     /* from, and all parents */
    GPtrArray *stand_ins; /* struct block_user, owned */
};

static gint lower_first(gconstpointer a, gconstpointer b)
{
    const struct block_node *const *left = a;
    const struct block_node *const *right = b;

    return (gint)(*left)->depth - (gint)(*right)->depth;
}

/* `node` and whatever lies on it, children before parents. */
static GPtrArray *collect_above(struct block_node *node)
{
    GPtrArray *nodes = g_ptr_array_new();

    g_ptr_array_add(nodes, node);
    for (guint i = 0; i < nodes->len; i++) {
        const struct block_node *member = g_ptr_array_index(nodes, i);

        LIST_FOREACH(link, &member->parents) {
            struct block_node *parent =
                LIST_ENTRY(link, struct block_edge, link)->parent;

            if (!g_ptr_array_find(nodes, parent, NULL)) {
                g_ptr_array_add(nodes, parent);
            }
        }
    }
    g_ptr_array_sort(nodes, lower_first);
    return nodes;
}

static int check_overlay(const struct block_node *from,
                         const struct block_node *to,
                         GError **err)
{
    if (block_role_find(to->driver, "backing") == NULL ||
        to->driver->children_changed == NULL) {
        return error_set(err, -ENOTSUP,
                         "node '%s' cannot be put above node '%s': driver "
                         "'%s' has no backing file",
                         to->name, from->name, to->driver->name);
    }
    if (to->driver->backing_problem != NULL &&
        to->driver->backing_problem(to) != NULL) {
        return error_set(err, -EINVAL, "node '%s' can have no backing file: %s",
                         block_name(to), to->driver->backing_problem(to));
    }
    if (block_child(to, "backing") != NULL) {
        return error_set(err, -EINVAL,
                         "node '%s' cannot be put above node '%s': it has a "
                         "backing file already; open it with backing=null",
                         to->name, from->name);
    }
    if (block_lies_on(to, from)) {
        return error_set(err, -EINVAL,
                         "node '%s' cannot be put above node '%s': it stores "
                         "its data there",
                         to->name, from->name);
    }
    if (block_size(to) != block_size(from)) {
        return error_set(err, -EINVAL,
                         "node '%s' cannot be put above node '%s': it has "
                         "%" G_GUINT64_FORMAT " bytes, not %" G_GUINT64_FORMAT,
                         to->name, from->name, block_size(to),
                         block_size(from));
    }
    return 0;
}

static int check_nodes(const struct block_replacement *replacement,
                       GError **err)
{
    const struct block_node *from = replacement->from;
    const struct block_node *to = replacement->to;

    if (from == to) {
        return error_set(err, -EINVAL, "node '%s' cannot be put above itself",
                         to->name);
    }
    if (!list_is_empty(&to->users)) {
        const struct block_user *user =
            LIST_ENTRY(to->users.next, struct block_user, link);

        return error_set(err, -EBUSY,
                         "node '%s' cannot be put above node '%s': it is in "
                         "use by %s '%s'",
                         to->name, from->name, user->kind, user->id);
    }
    return replacement->kind == BLOCK_REPLACE_BY_OVERLAY
               ? check_overlay(from, to, err)
               : 0;
}

/* Does this user move along? */
static bool moves(const struct block_replacement *replacement,
                  const struct block_user *user)
{
    if (user->on_replace != BLOCK_USER_MOVES) {
        return false;
    }
    for (size_t i = 0; i < replacement->to->edge_count; i++) {
        if (user == &replacement->to->edges[i].user) {
            return false;
        }
    }
    return true;
}

static int check_user_of_old(const struct block_replacement *replacement,
                             const struct block_user *user,
                             GError **err)
{
    const struct block_node *from = replacement->from;

    if (user->leaving) {
        return error_set(err, -EBUSY,
                         "node '%s' is about to get another node above it",
                         from->name);
    }
    if (user->on_replace == BLOCK_USER_IN_THE_WAY &&
        replacement->kind == BLOCK_REPLACE_BY_OVERLAY) {
        return error_set(err, -EBUSY,
                         "node '%s' cannot be put above node '%s': that is in "
                         "use by %s '%s'",
                         replacement->to->name, from->name, user->kind,
                         user->id);
    }
    return 0;
}

static int check_parent(const struct block_replacement *replacement,
                        const struct block_edge *edge,
                        GError **err)
{
    const struct block_node *parent = edge->parent;

    if (parent->driver->children_changed == NULL) {
        return error_set(err, -ENOTSUP,
                         "node '%s' cannot be put above node '%s': that is in "
                         "use by node '%s', whose driver '%s' holds on to it",
                         replacement->to->name, replacement->from->name,
                         parent->name, parent->driver->name);
    }
    /* A filter may: for a while, and what it passes gets where it should. */
    if (edge->role->grows && replacement->kind == BLOCK_REPLACE_BY_OVERLAY) {
        return error_set(err, -EBUSY,
                         "node '%s' cannot be put above node '%s': node '%s' "
                         "keeps its image there; name that node instead",
                         replacement->to->name, replacement->from->name,
                         parent->name);
    }
    return 0;
}

static int check_parents(const struct block_replacement *replacement,
                         GError **err)
{
    LIST_FOREACH(link, &replacement->from->parents) {
        const struct block_edge *edge =
            LIST_ENTRY(link, struct block_edge, link);
        int ret = edge->parent == replacement->to
                      ? 0
                      : check_parent(replacement, edge, err);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int check_users(const struct block_replacement *replacement,
                       GError **err)
{
    LIST_FOREACH(link, &replacement->from->users) {
        int ret = check_user_of_old(
            replacement, LIST_ENTRY(link, struct block_user, link), err);

        if (ret < 0) {
            return ret;
        }
    }
    return check_parents(replacement, err);
}

static int check_depth(const struct block_replacement *replacement,
                       GError **err)
{
    const struct block_node *top =
        g_ptr_array_index(replacement->nodes, replacement->nodes->len - 1);

    /* A filter counts already, but its parents do not know of it yet. */
    return top->depth + 1 > BLOCK_DEPTH_MAX ? block_error_too_deep(err) : 0;
}

static void set_leaving(const struct block_replacement *replacement,
                        bool leaving)
{
    LIST_FOREACH(link, &replacement->from->users) {
        struct block_user *user = LIST_ENTRY(link, struct block_user, link);

        if (moves(replacement, user)) {
            user->leaving = leaving;
        }
    }
}

static int add_stand_ins(struct block_replacement *replacement, GError **err)
{
    LIST_FOREACH(link, &replacement->from->users) {
        const struct block_user *user =
            LIST_ENTRY(link, struct block_user, link);
        struct block_user *stand_in;
        int ret;

        if (!moves(replacement, user)) {
            continue;
        }
        stand_in = g_new0(struct block_user, 1);
        stand_in->kind = user->kind;
        stand_in->id = user->id;
        stand_in->permissions = user->permissions;
        stand_in->shared = user->shared;
        stand_in->on_replace = BLOCK_USER_MOVES;
        g_ptr_array_add(replacement->stand_ins, stand_in);
        ret = block_attach(replacement->to, stand_in, err);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void drop_stand_ins(struct block_replacement *replacement)
{
    for (guint i = 0; i < replacement->stand_ins->len; i++) {
        block_detach(g_ptr_array_index(replacement->stand_ins, i));
    }
}

static void replacement_free(struct block_replacement *replacement)
{
    g_ptr_array_unref(replacement->nodes);
    g_ptr_array_unref(replacement->stand_ins);
    g_free(replacement);
}

/* `to` is used by nobody, so nobody looks at its children or its path. */
static int add_backing(struct block_replacement *replacement, GError **err)
{
    struct block_node *to = replacement->to;
    int ret = block_edge_add(to, replacement->from,
                             block_role_find(to->driver, "backing"), err);

    if (ret == 0) {
        block_path_build(to);
        to->driver->children_changed(to);
    }
    return ret;
}

static void drop_backing(struct block_node *node)
{
    (void)block_edge_drop(node); /* it has others who keep it */
    block_path_build(node);
    node->driver->children_changed(node);
}

int block_replacement_prepare(struct block_node *from,
                              struct block_node *to,
                              enum block_replacement_kind kind,
                              struct block_replacement **ret_replacement,
                              GError **err)
{
    struct block_replacement *replacement = g_new0(struct block_replacement, 1);
    int ret;

    replacement->from = from;
    replacement->to = to;
    replacement->kind = kind;
    replacement->nodes = collect_above(from);
    replacement->stand_ins = g_ptr_array_new_with_free_func(g_free);
    ret = check_nodes(replacement, err);
    if (ret == 0) {
        ret = check_users(replacement, err);
    }
    if (ret == 0) {
        ret = check_depth(replacement, err);
    }
    if (ret < 0) {
        replacement_free(replacement);
        return ret;
    }
    g_assert(from->home == to->home);
    set_leaving(replacement, true);
    if (kind == BLOCK_REPLACE_BY_OVERLAY) {
        ret = add_backing(replacement, err);
        if (ret < 0) {
            set_leaving(replacement, false);
            replacement_free(replacement);
            return ret;
        }
    }
    ret = add_stand_ins(replacement, err);
    if (ret < 0) {
        block_replacement_cancel(replacement);
        return ret;
    }
    *ret_replacement = replacement;
    return 0;
}

const GPtrArray *block_replacement_nodes(
    const struct block_replacement *replacement)
{
    return replacement->nodes;
}

void block_replacement_cancel(struct block_replacement *replacement)
{
    drop_stand_ins(replacement);
    set_leaving(replacement, false);
    if (replacement->kind == BLOCK_REPLACE_BY_OVERLAY) {
        drop_backing(replacement->to);
    }
    block_refresh_below(replacement->from);
    replacement_free(replacement);
}

static void move_edges(struct block_node *from, struct block_node *to)
{
    LIST_FOREACH_SAFE(link, &from->parents) {
        struct block_edge *edge = LIST_ENTRY(link, struct block_edge, link);

        if (edge->parent != to) {
            list_remove(&edge->link);
            list_append(&to->parents, &edge->link);
        }
    }
}

/* Appends those who want to know to `ret_told`. */
static void move_users(const struct block_replacement *replacement,
                       GPtrArray *ret_told)
{
    struct block_node *to = replacement->to;

    LIST_FOREACH_SAFE(link, &replacement->from->users) {
        struct block_user *user = LIST_ENTRY(link, struct block_user, link);

        if (moves(replacement, user)) {
            list_remove(&user->link);
            list_append(&to->users, &user->link);
            user->node = to;
            user->leaving = false;
            if (user->moved != NULL) {
                g_ptr_array_add(ret_told, user);
            }
        }
    }
}

/* Drained, except for `to`, which a filter's requests pass through, or which
 * gets its first requests when the users are told. */
static void carry_out(const struct block_replacement *replacement)
{
    struct block_node *from = replacement->from;
    struct block_node *to = replacement->to;
    g_autoptr(GPtrArray) above = collect_above(from);
    g_autoptr(GPtrArray) told = g_ptr_array_new();

    move_edges(from, to);
    move_users(replacement, told);
    for (guint i = 0; i < above->len; i++) {
        struct block_node *node = g_ptr_array_index(above, i);

        if (node != from && node != to) {
            block_path_build(node);
            if (node->driver->children_changed != NULL) {
                node->driver->children_changed(node);
            }
        }
    }
    from->retarget = to;
    block_refresh_below(from);
    block_refresh_below(to);
    for (guint i = 0; i < told->len; i++) {
        struct block_user *user = g_ptr_array_index(told, i);

        user->moved(user);
    }
}

void block_replacement_commit(struct block_replacement *replacement)
{
    drop_stand_ins(replacement);
    replacement->from->retarget_all = false;
    if (replacement->kind == BLOCK_REPLACE_BY_OVERLAY) {
        replacement->to->backing_unflushed = !replacement->from->read_only;
    }
    carry_out(replacement);
    replacement_free(replacement);
}

/* On the home. `*ret_drained` of the nodes are closed, whatever it returns. */
static int co_drain_all(GPtrArray *nodes,
                        uint64_t deadline_ns,
                        guint *ret_drained)
{
    int ret = 0;

    *ret_drained = 0;
    while (ret == 0 && *ret_drained < nodes->len) {
        ret =
            co_block_drain(g_ptr_array_index(nodes, *ret_drained), deadline_ns);
        (*ret_drained)++;
    }
    return ret;
}

int co_block_filter_remove(struct block_node *filter,
                           const char *role,
                           uint64_t timeout_ns,
                           GError **err)
{
    struct block_replacement replacement = {
        .from = filter,
        .to = block_child(filter, role),
        .kind = BLOCK_REPLACE_BY_FILTER,
    };
    g_autoptr(GPtrArray) nodes = collect_above(filter);
    struct loop *main = loop_current();
    guint drained;
    int ret;

    co_move(filter->home);
    ret = co_drain_all(nodes, loop_now_ns() + timeout_ns, &drained);
    if (ret == 0) {
        co_move(main);
        filter->retarget_all = true;
        carry_out(&replacement);
        co_move(filter->home);
    }
    while (drained > 0) {
        block_undrain(g_ptr_array_index(nodes, --drained));
    }
    co_move(main);
    if (ret < 0) {
        return error_set(err, ret,
                         "node '%s' cannot be removed from above node '%s': "
                         "its requests did not end in time",
                         filter->name, replacement.to->name);
    }
    return 0;
}
