/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The hooks of a node, in stage order.
 *
 * While a hook's co_before_write() waits, the list may change around it, and
 * the hook itself may go. So the walk leaves a bookmark behind the hook: an
 * entry without functions, which everyone skips.
 */
#include "block/hook.h"

#include "block/node_priv.h"

static bool is_bookmark(const struct block_hook *hook)
{
    return hook->try_before_write == NULL;
}

void block_hook_add(struct block_node *node, struct block_hook *hook)
{
    struct list *place = &node->hooks;

    g_assert(hook->try_before_write != NULL);
    LIST_FOREACH(link, &node->hooks) {
        if (LIST_ENTRY(link, struct block_hook, link)->stage <= hook->stage) {
            place = link;
        }
    }
    list_insert_after(place, &hook->link);
}

void block_hook_remove(struct block_hook *hook)
{
    list_remove(&hook->link);
}

struct block_hook *block_hook_find(struct block_node *node,
                                   enum block_hook_stage stage)
{
    LIST_FOREACH(link, &node->hooks) {
        struct block_hook *hook = LIST_ENTRY(link, struct block_hook, link);

        if (hook->stage == stage && !is_bookmark(hook)) {
            return hook;
        }
    }
    return NULL;
}

bool block_hooks_try(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    LIST_FOREACH(link, &node->hooks) {
        struct block_hook *hook = LIST_ENTRY(link, struct block_hook, link);

        if (!is_bookmark(hook) &&
            !hook->try_before_write(hook, offset, bytes)) {
            return false;
        }
    }
    return true;
}

int co_block_hooks_run(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    struct list *link = node->hooks.next;

    while (link != &node->hooks) {
        struct block_hook *hook = LIST_ENTRY(link, struct block_hook, link);
        struct block_hook bookmark = { .stage = hook->stage };
        int ret;

        if (is_bookmark(hook) || hook->try_before_write(hook, offset, bytes)) {
            link = link->next;
            continue;
        }
        list_insert_after(link, &bookmark.link);
        ret = hook->co_before_write(hook, offset, bytes);
        link = bookmark.link.next;
        list_remove(&bookmark.link);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

void block_hooks_resized(struct block_node *node,
                         uint64_t old_bytes,
                         uint64_t new_bytes)
{
    LIST_FOREACH_SAFE(link, &node->hooks) {
        struct block_hook *hook = LIST_ENTRY(link, struct block_hook, link);

        if (hook->resized != NULL) {
            hook->resized(hook, old_bytes, new_bytes);
        }
    }
}

void block_hooks_moving(struct block_node *node)
{
    LIST_FOREACH(link, &node->hooks) {
        struct block_hook *hook = LIST_ENTRY(link, struct block_hook, link);

        if (hook->moving != NULL) {
            hook->moving(hook);
        }
    }
}

void block_hooks_moved(struct block_node *node)
{
    LIST_FOREACH(link, &node->hooks) {
        struct block_hook *hook = LIST_ENTRY(link, struct block_hook, link);

        if (hook->moved != NULL) {
            hook->moved(hook);
        }
    }
}

void block_hooks_release(struct block_node *node)
{
    for (;;) {
        struct list *link = list_take_first(&node->hooks);
        struct block_hook *hook;

        if (link == NULL) {
            return;
        }
        hook = LIST_ENTRY(link, struct block_hook, link);
        if (hook->node_closing != NULL) {
            hook->node_closing(hook, node);
        }
    }
}
