/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/action_tracking.h"

#include <errno.h>

#include "loop/coroutine.h"
#include "qmp/action_record.h"

struct action_tracking {
    struct block_node *node;
    struct block_user user; /* keeps the node beyond the transaction */
};

bool action_tracking_takes(const struct action_context *context,
                           const struct bitmap_view_entry *entry)
{
    return entry->is_persistent && tracker_of(entry->node) != NULL &&
           !action_record_takes(context, entry);
}

static int co_begin(struct block_node *node,
                    uint64_t new_granularity_bytes,
                    GError **err)
{
    struct tracker *tracker = tracker_of(node);
    int ret = 0;

    co_tracker_begin(tracker);
    if (new_granularity_bytes != 0) {
        ret = co_tracker_reserve(tracker, new_granularity_bytes, err);
    }
    if (ret < 0) {
        co_tracker_end(tracker);
    }
    return ret;
}

int co_action_tracking_begin(struct action_context *context,
                             struct block_node *node,
                             uint64_t new_granularity_bytes,
                             GError **err)
{
    struct action_tracking *tracking = g_new0(struct action_tracking, 1);
    struct loop *main = loop_current();
    int ret;

    g_assert(context->tracking == NULL);
    tracking->node = node;
    tracking->user = (struct block_user){
        .kind = "command",
        .id = "bitmap change",
        .shared = BLOCK_PERM_ALL,
        .pinned = true,
    };
    ret = block_attach(node, &tracking->user, err);
    if (ret < 0) {
        g_free(tracking);
        return ret;
    }
    co_move(block_home(node));
    ret = co_begin(node, new_granularity_bytes, err);
    co_move(main);
    if (ret < 0) {
        block_detach(&tracking->user);
        g_free(tracking);
        return ret;
    }
    context->tracking = tracking;
    return 0;
}

void action_tracking_tell(struct action_context *context,
                          struct dirty_bitmap *bitmap,
                          enum tracker_change change)
{
    if (context->tracking != NULL) {
        tracker_change(tracker_of(context->tracking->node), bitmap, change,
                       NULL, NULL);
    }
}

int co_action_tracking_end(struct action_context *context,
                           bool carried_out,
                           GError **err)
{
    struct action_tracking *tracking = g_steal_pointer(&context->tracking);
    struct loop *main = loop_current();
    struct tracker *tracker;
    int ret = 0;

    if (tracking == NULL) {
        return 0;
    }
    tracker = tracker_of(tracking->node);
    co_move(block_home(tracking->node));
    if (carried_out) {
        ret = co_tracker_commit(tracker, err);
    }
    co_tracker_end(tracker);
    co_move(main);
    block_detach(&tracking->user);
    g_free(tracking);
    return ret;
}
