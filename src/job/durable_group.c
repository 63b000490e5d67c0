/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between jobs, trackers and the coordinator.
 *
 *     coordinator   BEGIN ............ (prepare each node) ── COMMIT ............
 *     trackers      [begin ─ instant ─ end] ... [prepare] ......... [settle] ...
 *     bitmaps                 freeze                        abdicate | reclaim
 *
 * Brackets are co_tracker_begin() and _end(), on the node's home thread. Whatever
 * fails before COMMIT is an abort: parts reclaim, and the trackers forget. When
 * the daemon is told to let go in doubt, everything is kept, with both bases: that
 * is right whichever way it went.
 */
#include "job/durable_group.h"

#include <errno.h>

#include "base/error.h"
#include "block/request.h"
#include "loop/coroutine.h"

struct durable_node {
    struct block_node *node;
    struct list parts;
    bool needs_flush; /* something else than a job changes its bitmaps */
};

struct durable_group {
    struct job_txn_decider decider;
    struct group_commit *commit;
    GPtrArray *nodes;             /* struct durable_node, owned */
    enum tracker_outcome verdict; /* TRACKER_PENDING: not decided yet */
    struct job_txn *txn;          /* while it decides */
};

/* Room that a tracking file needs for a bitmap to come. */
struct durable_room {
    struct block_node *node;
    uint64_t granularity_bytes;
};

struct durable_cut {
    struct coordinator *coordinator;
    GPtrArray *groups; /* borrowed once the cut has ended */
    GPtrArray *nodes;  /* struct block_node, each once */
    GArray *rooms;     /* struct durable_room */
    guint held;        /* how many of the nodes hold still */
};

/* --- The cut ----------------------------------------------------------------------- */

struct durable_cut *durable_cut_new(struct coordinator *coordinator)
{
    struct durable_cut *cut = g_new0(struct durable_cut, 1);

    cut->coordinator = coordinator;
    cut->groups = g_ptr_array_new();
    cut->nodes = g_ptr_array_new();
    cut->rooms = g_array_new(FALSE, FALSE, sizeof(struct durable_room));
    return cut;
}

static void co_hold(struct block_node *node)
{
    struct loop *main = loop_current();

    co_move(block_home(node));
    co_tracker_begin(tracker_of(node));
    co_move(main);
}

static void co_let_on(struct block_node *node)
{
    struct loop *main = loop_current();

    co_move(block_home(node));
    co_tracker_end(tracker_of(node));
    co_move(main);
}

static void co_release_nodes(struct durable_cut *cut)
{
    while (cut->held > 0) {
        co_let_on(g_ptr_array_index(cut->nodes, --cut->held));
    }
}

static int co_make_room(const struct durable_room *room, GError **err)
{
    struct loop *main = loop_current();
    int ret;

    co_move(block_home(room->node));
    ret = co_tracker_reserve(tracker_of(room->node), room->granularity_bytes,
                             err);
    co_move(main);
    return ret;
}

int co_durable_cut_begin(struct durable_cut *cut, GError **err)
{
    int ret = 0;

    while (cut->held < cut->nodes->len) {
        co_hold(g_ptr_array_index(cut->nodes, cut->held++));
    }
    for (guint i = 0; ret == 0 && i < cut->rooms->len; i++) {
        ret = co_make_room(&g_array_index(cut->rooms, struct durable_room, i),
                           err);
    }
    for (guint i = 0; ret == 0 && i < cut->groups->len; i++) {
        const struct durable_group *group = g_ptr_array_index(cut->groups, i);

        ret = co_group_commit_begin(group->commit, err);
    }
    return ret;
}

static void free_cut(struct durable_cut *cut)
{
    g_ptr_array_unref(cut->groups);
    g_ptr_array_unref(cut->nodes);
    g_array_unref(cut->rooms);
    g_free(cut);
}

void co_durable_cut_end(struct durable_cut **cut)
{
    struct durable_cut *ended = g_steal_pointer(cut);

    co_release_nodes(ended);
    free_cut(ended);
}

static void co_free_group(struct durable_group *group)
{
    co_group_commit_end(&group->commit);
    g_ptr_array_unref(group->nodes);
    g_free(group);
}

void co_durable_cut_discard(struct durable_cut **cut)
{
    struct durable_cut *discarded = g_steal_pointer(cut);

    if (discarded == NULL) {
        return;
    }
    co_release_nodes(discarded);
    for (guint i = 0; i < discarded->groups->len; i++) {
        struct durable_group *group = g_ptr_array_index(discarded->groups, i);

        group_commit_abort(group->commit);
        co_free_group(group);
    }
    free_cut(discarded);
}

/* --- Members ----------------------------------------------------------------------- */

/* On the node's home thread. */
static int co_prepare_tracker(struct durable_node *node,
                              const struct journal_id *txid,
                              const struct log_segment *segment,
                              GError **err)
{
    struct tracker *tracker = tracker_of(node->node);
    int ret = node->needs_flush ? co_block_flush(node->node) : 0;

    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot flush node '%s'",
                               block_name(node->node));
    }
    co_tracker_begin(tracker);
    ret = co_tracker_prepare(tracker, txid, segment, err);
    co_tracker_end(tracker);
    return ret;
}

static int co_prepare_node(void *opaque,
                           const struct journal_id *txid,
                           const struct log_segment *segment,
                           GError **err)
{
    struct durable_node *node = opaque;
    struct loop *main = loop_current();
    int ret;

    co_move(block_home(node->node));
    ret = co_prepare_tracker(node, txid, segment, err);
    co_move(main);
    return ret;
}

/* The other bitmaps of a node: its tracking file is prepared already. */
static int co_prepare_nothing(void *opaque,
                              const struct journal_id *txid,
                              const struct log_segment *segment,
                              GError **err)
{
    (void)opaque;
    (void)txid;
    (void)segment;
    (void)err;
    return 0;
}

static const struct group_member_ops first_of_node_ops = {
    .co_prepare = co_prepare_node,
};
static const struct group_member_ops other_of_node_ops = {
    .co_prepare = co_prepare_nothing,
};

static struct durable_node *find_node(struct durable_group *group,
                                      const struct block_node *node)
{
    for (guint i = 0; i < group->nodes->len; i++) {
        struct durable_node *known = g_ptr_array_index(group->nodes, i);

        if (known->node == node) {
            return known;
        }
    }
    return NULL;
}

/* --- Settling ---------------------------------------------------------------------- */

static void co_settle_node(struct durable_group *group,
                           struct durable_node *node)
{
    struct block_graph *graph = block_graph_of(node->node);
    struct loop *main = loop_current();
    struct list *link;

    LIST_FOREACH(part, &node->parts) {
        struct durable_part *quiesced =
            LIST_ENTRY(part, struct durable_part, link);

        if (quiesced->co_quiesce != NULL) {
            quiesced->co_quiesce(quiesced);
        }
    }
    /* A transaction at its instant must not see it half done. */
    co_block_graph_lock(graph);
    co_move(block_home(node->node));
    while ((link = list_take_first(&node->parts)) != NULL) {
        struct durable_part *part = LIST_ENTRY(link, struct durable_part, link);

        part->settle(part, group->verdict);
    }
    tracker_settle(tracker_of(node->node), durable_group_txid(group),
                   group->verdict);
    co_move(main);
    block_graph_unlock(graph);
}

/* The verdict stands. */
static void co_settle_all(struct durable_group *group)
{
    for (guint i = 0; i < group->nodes->len; i++) {
        co_settle_node(group, g_ptr_array_index(group->nodes, i));
    }
}

/* --- Deciding ---------------------------------------------------------------------- */

static bool tell_jobs(void *opaque, const GError *why)
{
    struct durable_group *group = opaque;

    job_txn_set_doubt(group->txn, why);
    return true;
}

static enum tracker_outcome co_decide_record(struct durable_group *group,
                                             group_doubt_fn doubt,
                                             void *opaque,
                                             GError **err)
{
    switch (co_group_commit_decide(group->commit, doubt, opaque, err)) {
    case 0: return TRACKER_COMMITTED;
    case -EINPROGRESS: return TRACKER_UNKNOWN;
    default: return TRACKER_ABORTED;
    }
}

static struct durable_group *group_of(struct job_txn_decider *decider)
{
    return (struct durable_group *)(void *)decider; /* its first member */
}

static void pending(struct job_txn_decider *decider)
{
    group_commit_set_pending(group_of(decider)->commit);
}

static int co_prepare(struct job_txn_decider *decider, GError **err)
{
    return co_group_commit_prepare(group_of(decider)->commit, err);
}

static enum job_txn_verdict co_decide(struct job_txn_decider *decider,
                                      struct job_txn *txn,
                                      GError **err)
{
    struct durable_group *group = group_of(decider);

    group->txn = txn;
    group->verdict = co_decide_record(group, tell_jobs, group, err);
    group->txn = NULL;
    switch (group->verdict) {
    case TRACKER_COMMITTED: return JOB_TXN_COMMIT;
    case TRACKER_ABORTED: return JOB_TXN_ABORT;
    case TRACKER_UNKNOWN:
    case TRACKER_PENDING: break;
    }
    return JOB_TXN_LET_GO;
}

static void co_settle(struct job_txn_decider *decider,
                      enum job_txn_verdict verdict)
{
    struct durable_group *group = group_of(decider);

    if (group->verdict == TRACKER_PENDING) {
        g_assert(verdict == JOB_TXN_ABORT);
        group_commit_abort(group->commit);
        group->verdict = TRACKER_ABORTED;
    }
    co_settle_all(group);
}

static void co_end(struct job_txn_decider *decider)
{
    co_free_group(group_of(decider));
}

struct job_txn_decider *durable_group_decider(struct durable_group *group)
{
    return &group->decider;
}

static int result_of(enum tracker_outcome verdict)
{
    switch (verdict) {
    case TRACKER_COMMITTED: return 0;
    case TRACKER_ABORTED: return -EIO;
    case TRACKER_UNKNOWN:
    case TRACKER_PENDING: break;
    }
    return -EINPROGRESS;
}

int co_durable_group_decide(struct durable_group *group,
                            group_doubt_fn doubt,
                            void *opaque,
                            GError **err)
{
    int ret;

    group_commit_set_pending(group->commit);
    ret = co_group_commit_prepare(group->commit, err);
    if (ret < 0) {
        group_commit_abort(group->commit);
        group->verdict = TRACKER_ABORTED;
    } else {
        group->verdict = co_decide_record(group, doubt, opaque, err);
        ret = result_of(group->verdict);
    }
    co_settle_all(group);
    return ret;
}

void co_durable_group_end(struct durable_group **group)
{
    co_free_group(g_steal_pointer(group));
}

/* --- Making ------------------------------------------------------------------------ */

static void free_node(gpointer node)
{
    g_free(node);
}

struct durable_group *durable_cut_add_group(struct durable_cut *cut,
                                            const char *client_id,
                                            GError **err)
{
    struct durable_group *group;

    if (cut->coordinator == NULL) {
        error_set(err, -ENOTSUP, "This daemon keeps no persistent bitmaps");
        return NULL;
    }
    group = g_new0(struct durable_group, 1);
    group->decider = (struct job_txn_decider){
        .pending = pending,
        .co_prepare = co_prepare,
        .co_decide = co_decide,
        .co_settle = co_settle,
        .co_end = co_end,
    };
    group->commit =
        group_commit_new(cut->coordinator, client_id == NULL ? "" : client_id);
    group->nodes = g_ptr_array_new_with_free_func(free_node);
    group->verdict = TRACKER_PENDING;
    g_ptr_array_add(cut->groups, group);
    return group;
}

const struct journal_id *durable_group_txid(const struct durable_group *group)
{
    return group_commit_txid(group->commit);
}

void durable_group_add(struct durable_cut *cut,
                       struct durable_group *group,
                       struct durable_part *part,
                       const struct durable_change *change)
{
    struct tracker *tracker = tracker_of(change->node);
    struct durable_node *node = find_node(group, change->node);
    struct group_member member = {
        .ops = &other_of_node_ops,
        .disk = *tracker_disk_id(tracker),
        .gets_base = change->gets_base,
        .keeps_base = change->keeps_base,
        .node = block_name(change->node),
        .job = change->job == NULL ? "" : change->job,
        .bitmap = dirty_bitmap_name(change->bitmap),
    };

    if (node == NULL) {
        node = g_new0(struct durable_node, 1);
        node->node = change->node;
        list_init(&node->parts);
        g_ptr_array_add(group->nodes, node);
        member.ops = &first_of_node_ops;
        member.opaque = node;
    }
    if (!g_ptr_array_find(cut->nodes, change->node, NULL)) {
        g_ptr_array_add(cut->nodes, change->node);
    }
    if (change->is_added) {
        const struct durable_room room = {
            .node = change->node,
            .granularity_bytes = dirty_bitmap_granularity_bytes(change->bitmap),
        };

        g_array_append_val(cut->rooms, room);
    }
    node->needs_flush |= change->job == NULL;
    (void)tracker_base(tracker, change->bitmap, &member.old_base);
    list_append(&node->parts, &part->link);
    group_commit_add(group->commit, &member);
}
