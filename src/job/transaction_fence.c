/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each node has a coroutine that goes to its home thread, fences it, comes
 * back to the main thread with the answer, waits there for the release, goes
 * home to open the gate, and comes back to let go of the node:
 *
 *     main   close ─┐            ┌─ answer ── release ─┐          ┌─ detach
 *     home          └─ co_block_fence ──┘              └─ unfence ─┘
 *
 * So every field below belongs to the main thread. The set lives until the
 * last of these coroutines is through; the transaction does not wait for one
 * that is late, and that one finds the set released when it comes.
 */
#include "job/transaction_fence.h"

#include <errno.h>

#include "base/error.h"
#include "block/fence.h"
#include "loop/co_lock.h"

/* As many names as a sentence bears. */
#define NAMES_MAX 8

struct fence {
    struct list link;
    struct fence_set *set;
    struct block_node *node;
    struct block_user user; /* keeps the node, and keeps it where it is */
    uint64_t deadline_ns;
    bool drained; /* reads are held, too */
    bool closed;  /* came back in time and drained */
};

struct fence_set {
    struct list fences;
    GHashTable *nodes; /* node -> its fence, borrowed */
    size_t references; /* the transaction's, and one per coroutine */
    size_t unanswered; /* on their way to the gate and back */
    bool closing;      /* the coroutines have been started */
    bool released;
    struct co_queue all_answered;
    struct co_queue release;
    struct co_queue all_gone;
};

struct fence_set *fence_set_new(void)
{
    struct fence_set *set = g_new0(struct fence_set, 1);

    list_init(&set->fences);
    set->nodes = g_hash_table_new(NULL, NULL);
    set->references = 1;
    co_queue_init(&set->all_answered);
    co_queue_init(&set->release);
    co_queue_init(&set->all_gone);
    return set;
}

static void fence_set_unref(struct fence_set *set)
{
    set->references--;
    if (set->references == 1) {
        co_queue_wake_all(&set->all_gone);
    } else if (set->references == 0) {
        g_assert(list_is_empty(&set->fences));
        g_hash_table_destroy(set->nodes);
        g_free(set);
    }
}

void fence_set_add(struct fence_set *set, struct block_node *node, bool drained)
{
    struct fence *fence = g_hash_table_lookup(set->nodes, node);

    if (fence == NULL) {
        fence = g_new0(struct fence, 1);
        fence->set = set;
        fence->node = node;
        list_append(&set->fences, &fence->link);
        g_hash_table_insert(set->nodes, node, fence);
    }
    fence->drained |= drained;
}

size_t fence_set_size(const struct fence_set *set)
{
    return g_hash_table_size(set->nodes);
}

/* Gone through, or never begun. */
static void drop_fence(struct fence *fence)
{
    list_remove(&fence->link);
    block_detach(&fence->user);
    g_free(fence);
}

static void co_hold_node(void *opaque)
{
    struct fence *fence = opaque;
    struct fence_set *set = fence->set;
    struct loop *main = block_graph_main(block_graph_of(fence->node));
    struct loop *home = loop_current();

    int result = fence->drained
                     ? co_block_drain(fence->node, fence->deadline_ns)
                     : co_block_fence(fence->node, fence->deadline_ns);
    co_move(main);
    fence->closed = result == 0;
    if (--set->unanswered == 0) {
        co_queue_wake_all(&set->all_answered);
    }
    if (!set->released) {
        co_queue_wait(&set->release);
    }
    co_move(home);
    if (fence->drained) {
        block_undrain(fence->node);
    } else {
        block_unfence(fence->node);
    }
    co_move(main);
    drop_fence(fence);
    fence_set_unref(set);
}

static int refuse(const struct fence_set *set,
                  uint64_t timeout_ns,
                  GError **err)
{
    g_autoptr(GString) names = g_string_new(NULL);
    size_t count = 0;
    bool drained = false;

    LIST_FOREACH(link, &set->fences) {
        const struct fence *fence = LIST_ENTRY(link, struct fence, link);
        drained |= !fence->closed && fence->drained;
        if (fence->closed || ++count > NAMES_MAX) {
            continue;
        }
        g_string_append_printf(names, "%s'%s'", count > 1 ? ", " : "",
                               block_name(fence->node));
    }
    if (count > NAMES_MAX) {
        g_string_append_printf(names, " and %zu more", count - NAMES_MAX);
    }
    return error_set(err, -ETIMEDOUT,
                     "The %s under way on %s %s did not finish within "
                     "%.1f s, so there was no one instant for all disks; "
                     "nothing has been changed. Look at the storage below, "
                     "then try again",
                     drained ? "requests" : "writes",
                     count == 1 ? "node" : "nodes", names->str,
                     (double)timeout_ns / 1e9);
}

int co_fence_set_close(struct fence_set *set, uint64_t timeout_ns, GError **err)
{
    uint64_t deadline_ns = loop_now_ns() + timeout_ns;

    set->closing = true;
    LIST_FOREACH(link, &set->fences) {
        struct fence *fence = LIST_ENTRY(link, struct fence, link);
        fence->deadline_ns = deadline_ns;
        fence->user.kind = "command";
        fence->user.id = "transaction";
        fence->user.shared = BLOCK_PERM_ALL;
        fence->user.pinned = true;
        fence->user.on_replace = BLOCK_USER_STAYS;
        /* It uses nothing and tolerates all. */
        int result = block_attach(fence->node, &fence->user, NULL);
        g_assert(result == 0);
        set->unanswered++;
        set->references++;
        co_spawn(block_home(fence->node), co_hold_node, fence);
    }
    while (set->unanswered > 0 &&
           co_queue_wait_until(&set->all_answered, deadline_ns)) {
        /* Until all have answered or the deadline has come. */
    }
    LIST_FOREACH(link, &set->fences) {
        if (!LIST_ENTRY(link, struct fence, link)->closed) {
            return refuse(set, timeout_ns, err);
        }
    }
    return 0;
}

void co_fence_set_release(struct fence_set **set, uint64_t timeout_ns)
{
    struct fence_set *released = g_steal_pointer(set);
    uint64_t deadline_ns = loop_now_ns() + timeout_ns;

    released->released = true;
    if (!released->closing) {
        LIST_FOREACH_SAFE(link, &released->fences) {
            drop_fence(LIST_ENTRY(link, struct fence, link));
        }
    }
    co_queue_wake_all(&released->release);
    while (released->references > 1 &&
           co_queue_wait_until(&released->all_gone, deadline_ns)) {
        /* Until all are through, but a thread that is stuck is left behind. */
    }
    fence_set_unref(released);
}
