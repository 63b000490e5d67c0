/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Permissions: who may use a node together.
 *
 * Every user says what it does with a node and what it tolerates in others. A
 * parent node passes on what its own users do: as long as nobody writes to the
 * parent, it only reads its child and minds nothing; with a writer it writes,
 * and then nobody else may write to the child past it (its bitmaps and caches
 * would not see it). Its backing node it only ever reads; but a parent that is
 * written to relies on what is there.
 *
 * Attaching puts the user on the list, brings the holds of the parents below up
 * to date and looks for a clash among all that share a node; if there is one,
 * it is all taken back.
 */
#include <errno.h>

#include "base/error.h"
#include "block/node_priv.h"

static const char *permission_verb(unsigned int permissions)
{
    if ((permissions & BLOCK_PERM_WRITE) != 0) {
        return "write to";
    }
    if ((permissions & BLOCK_PERM_RESIZE) != 0) {
        return "resize";
    }
    return "read";
}

/* What a user of a node tolerates in others at the node's backing node. */
static unsigned int shared_backing(const struct block_user *user)
{
    if (user->backing_may_change) {
        return BLOCK_PERM_ALL;
    }
    return (user->permissions & BLOCK_PERM_WRITE) != 0 ? BLOCK_PERM_READ
                                                       : user->shared;
}

/* Sets what the node's holds on its children do, from what its users do. */
static void refresh_holds(struct block_node *node)
{
    unsigned int used = BLOCK_PERM_READ;
    unsigned int shared = BLOCK_PERM_ALL;
    unsigned int backing = BLOCK_PERM_ALL;

    LIST_FOREACH(link, &node->users) {
        const struct block_user *user =
            LIST_ENTRY(link, struct block_user, link);

        used |= user->permissions;
        shared &= user->shared;
        backing &= shared_backing(user);
    }
    if ((used & BLOCK_PERM_WRITE) != 0) {
        shared = BLOCK_PERM_READ;
    }
    for (size_t i = 0; i < node->edge_count; i++) {
        struct block_edge *edge = &node->edges[i];
        bool resizes = edge->role->grows && (used & BLOCK_PERM_WRITE) != 0;

        edge->user.permissions = used | (resizes ? BLOCK_PERM_RESIZE : 0U);
        edge->user.shared = shared;
        if (edge->role->read_only) {
            edge->user.permissions = BLOCK_PERM_READ;
            edge->user.shared = backing;
        } else if (edge->role->written) {
            edge->user.permissions = BLOCK_PERM_READ | BLOCK_PERM_WRITE;
            edge->user.shared = BLOCK_PERM_READ;
        }
    }
}

void block_refresh_below(struct block_node *node)
{
    for (size_t i = 0; i < node->path_count; i++) {
        refresh_holds(node->path[i]);
    }
}

static int check_pair(const struct block_node *node,
                      const struct block_user *newcomer,
                      const struct block_user *holder,
                      GError **err)
{
    unsigned int unwelcome = newcomer->permissions & ~holder->shared;
    unsigned int intolerable = holder->permissions & ~newcomer->shared;

    if (unwelcome != 0) {
        return error_set(err, -EBUSY,
                         "node '%s' is in use by %s '%s', which does not let "
                         "%s '%s' %s it",
                         node->name, holder->kind, holder->id, newcomer->kind,
                         newcomer->id, permission_verb(unwelcome));
    }
    if (intolerable != 0) {
        return error_set(err, -EBUSY,
                         "node '%s' is in use by %s '%s', which may %s it; %s "
                         "'%s' does not allow that",
                         node->name, holder->kind, holder->id,
                         permission_verb(intolerable), newcomer->kind,
                         newcomer->id);
    }
    return 0;
}

/* `newcomer` against the other users of its node. */
static int check_user(const struct block_user *newcomer, GError **err)
{
    const struct block_node *node = newcomer->node;

    if (newcomer->leaving) {
        return 0;
    }
    LIST_FOREACH(link, &node->users) {
        const struct block_user *user =
            LIST_ENTRY(link, struct block_user, link);
        int ret = user == newcomer || user->leaving
                      ? 0
                      : check_pair(node, newcomer, user, err);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* The holds of the node and of all below it against their neighbours. */
static int check_below(const struct block_node *node, GError **err)
{
    for (size_t i = 0; i < node->path_count; i++) {
        const struct block_node *below = node->path[i];

        for (size_t k = 0; k < below->edge_count; k++) {
            int ret = check_user(&below->edges[k].user, err);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

int block_attach(struct block_node *node, struct block_user *user, GError **err)
{
    int ret;

    g_assert(user->node == NULL && !node->deleting);
    if (node->read_only &&
        (user->permissions & (BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE)) != 0) {
        return error_set(err, -EROFS,
                         "node '%s' is read-only and %s '%s' needs to %s it",
                         node->name, user->kind, user->id,
                         permission_verb(user->permissions));
    }
    list_append(&node->users, &user->link);
    user->node = node;
    block_refresh_below(node);
    ret = check_user(user, err);
    if (ret == 0) {
        ret = check_below(node, err);
    }
    if (ret < 0) {
        block_detach(user);
    }
    return ret;
}

void block_detach(struct block_user *user)
{
    struct block_node *node = user->node;

    if (node == NULL) {
        return;
    }
    list_remove(&user->link);
    user->node = NULL;
    block_refresh_below(node);
}
