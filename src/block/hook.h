/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hooks: what must happen before a node's content changes.
 *
 * In stage order: the write's region becomes durable as "may change" (intent),
 * dirty bitmaps get their bits (bitmap), old content is saved for running
 * backups (copy). A hook sees writes, zeroings and discards alike, by anyone,
 * guest or job. Hooks run on the node's home thread, and again from the first
 * stage when a request that had to wait goes on: they must be idempotent.
 *
 * Adding and removing: home thread, or main thread while the node is fenced.
 */
#ifndef BLOCK_HOOK_H
#define BLOCK_HOOK_H

#include "block/node.h"

enum block_hook_stage {
    BLOCK_HOOK_INTENT,
    BLOCK_HOOK_BITMAP,
    BLOCK_HOOK_COPY,
};

struct block_hook {
    struct list link;
    enum block_hook_stage stage;
    /* Does all it has to do without waiting and returns true; or returns false
     * and the request will call co_before_write. */
    bool (*try_before_write)(struct block_hook *hook,
                             uint64_t offset,
                             uint64_t bytes);
    /* May wait. A negative errno fails the guest's request. NULL if
     * try_before_write always returns true. */
    int (*co_before_write)(struct block_hook *hook,
                           uint64_t offset,
                           uint64_t bytes);
    /* The node's size has changed; NULL: does not care. */
    void (*resized)(struct block_hook *hook,
                    uint64_t old_bytes,
                    uint64_t new_bytes);
    /* Around a change of the node's size, by who asks for it. The first may wait
     * and refuse; the second comes after it, also when the size could not be
     * changed, and after resized(). NULL (both): does not care. At most one hook
     * of a node, of stage BLOCK_HOOK_INTENT, has them. */
    int (*co_resize_begin)(struct block_hook *hook,
                           uint64_t new_bytes,
                           GError **err);
    void (*co_resize_end)(struct block_hook *hook);
    /* The node is being closed and has let go of the hook: home thread, no
     * request is under way. The owner may free it here. NULL: does not care. */
    void (*node_closing)(struct block_hook *hook, struct block_node *node);
    /* The node is drained and about to get another home: on the old one; then on
     * the new one (or, the move having failed, on the old one again). For timers.
     * NULL: does not care. */
    void (*moving)(struct block_hook *hook);
    void (*moved)(struct block_hook *hook);
};

void block_hook_add(struct block_node *node, struct block_hook *hook);
void block_hook_remove(struct block_hook *hook);
/* The first hook of a stage, NULL: none. */
struct block_hook *block_hook_find(struct block_node *node,
                                   enum block_hook_stage stage);

#endif
