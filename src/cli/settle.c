/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In order: our jobs are cancelled and waited for, and the daemon is asked what
 * became of our transactions, until every outcome is final; what is found in the
 * repository is synced, for who left it may have died before doing so; each partial
 * point is published or discarded by its outcome; then what is left of ours in the
 * daemon is removed (settle_clean.c).
 *
 * The outcome is told, in this order, by the daemon's log, which outlives it; by
 * the records that the group's jobs leave (auto-dismiss is off); by a bitmap
 * that has the base, or else the name, which it gets only when the group has
 * succeeded. With none of them it is unknown. Bitmaps with a base then say
 * themselves what they are good for, and the point is kept: the log may turn up
 * again. Of bitmaps in memory it is not known whether they were consumed: they
 * are written down as distrusted before the point goes.
 */
#include "cli/settle.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "cli/daemon_jobs.h"
#include "cli/settle_priv.h"
#include "repo/durable.h"

enum outcome {
    OUTCOME_COMMITTED,
    OUTCOME_ABORTED,
    OUTCOME_UNKNOWN,
};

void settle_tell(const struct settlement *settlement,
                 enum settle_news news,
                 const char *format,
                 ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *sentence = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    settlement->say(settlement->opaque, news, sentence);
}

static bool has_bitmap(const GPtrArray *nodes,
                       const char *node_name,
                       const char *bitmap)
{
    const struct daemon_node *node = daemon_nodes_find(nodes, node_name);

    return node != NULL && bitmap != NULL &&
           daemon_node_bitmap(node, bitmap) != NULL;
}

static void add_action(json_t *actions, const char *type, json_t *data)
{
    json_t *action = json_pack("{s:s, s:o}", "type", type, "data", data);

    g_assert(action != NULL && json_array_append_new(actions, action) == 0);
}

/* A bitmap has no rename of its own: a new one takes the bits over. */
static void add_rename(json_t *actions,
                       const struct manifest_disk *disk,
                       uint64_t granularity)
{
    add_action(actions, "block-dirty-bitmap-add",
               json_pack("{s:s, s:s, s:I}", "node", disk->node, "name",
                         disk->bitmap, "granularity", (json_int_t)granularity));
    add_action(actions, "block-dirty-bitmap-merge",
               json_pack("{s:s, s:s, s:[s]}", "node", disk->node, "target",
                         disk->bitmap, "bitmaps", disk->previous_bitmap));
    add_action(actions, "block-dirty-bitmap-remove",
               json_pack("{s:s, s:s}", "node", disk->node, "name",
                         disk->previous_bitmap));
}

int settle_rename_bitmaps(struct qmp_client *client,
                          const struct manifest *point,
                          GError **err)
{
    g_autoptr(GPtrArray) nodes = NULL;
    json_t *actions;
    int ret = daemon_nodes_query(client, &nodes, err);

    if (ret < 0) {
        return ret;
    }
    actions = json_array();
    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        if (disk->previous_bitmap == NULL || disk->bitmap == NULL ||
            !has_bitmap(nodes, disk->node, disk->previous_bitmap) ||
            has_bitmap(nodes, disk->node, disk->bitmap)) {
            continue;
        }
        const struct daemon_bitmap *bitmap = daemon_node_bitmap(
            daemon_nodes_find(nodes, disk->node), disk->previous_bitmap);
        add_rename(actions, disk, bitmap->granularity);
    }
    if (json_array_size(actions) == 0) {
        json_decref(actions);
        return 0;
    }
    return qmp_command(client, "transaction",
                       json_pack("{s:o}", "actions", actions), NULL, err);
}

/* What the log says. */
static enum outcome logged_outcome(const struct settlement *settlement,
                                   const struct manifest *point)
{
    const struct daemon_transaction *transaction = daemon_transactions_find(
        settlement->transactions, point->label, point->txid);

    if (transaction == NULL) {
        return OUTCOME_UNKNOWN;
    }
    switch (transaction->outcome) {
    case DAEMON_OUTCOME_COMMITTED: return OUTCOME_COMMITTED;
    case DAEMON_OUTCOME_ABORTED: return OUTCOME_ABORTED;
    case DAEMON_OUTCOME_UNKNOWN:
    case DAEMON_OUTCOME_OPEN:
    case DAEMON_OUTCOME_IN_DOUBT: break;
    }
    return OUTCOME_UNKNOWN;
}

/* What the jobs say. */
static enum outcome jobs_outcome(const struct settlement *settlement,
                                 const struct manifest *point)
{
    bool any = false;

    for (guint i = 0; i < settlement->jobs->len; i++) {
        const struct daemon_job *job = settlement->jobs->pdata[i];
        if (!g_str_has_prefix(job->id, point->label)) {
            continue;
        }
        if (job->error != NULL) {
            return OUTCOME_ABORTED;
        }
        any = true;
    }
    return any ? OUTCOME_COMMITTED : OUTCOME_UNKNOWN;
}

/* Does a bitmap say by its base, or its name, that the group has succeeded? It
 * says nothing about failure: the disk may have been rolled back. */
static bool bitmap_tells_success(const struct settlement *settlement,
                                 const struct manifest_disk *disk)
{
    const struct daemon_node *node =
        daemon_nodes_find(settlement->nodes, disk->node);
    const struct daemon_bitmap *bitmap =
        node == NULL || disk->bitmap == NULL
            ? NULL
            : daemon_node_bitmap(node, disk->bitmap);

    if (bitmap == NULL) {
        return false;
    }
    if (bitmap->is_persistent) {
        return manifest_base_equal(&bitmap->bases[0], &disk->base) &&
               bitmap->bases[1].txid == NULL;
    }
    return disk->incremental &&
           g_strcmp0(disk->bitmap, disk->previous_bitmap) != 0;
}

/* What became of the point's group. */
static enum outcome outcome_of(const struct settlement *settlement,
                               const struct manifest *point)
{
    enum outcome outcome = logged_outcome(settlement, point);

    if (outcome == OUTCOME_UNKNOWN) {
        outcome = jobs_outcome(settlement, point);
    }
    for (guint i = 0; outcome == OUTCOME_UNKNOWN && i < point->disks->len;
         i++) {
        if (bitmap_tells_success(settlement, point->disks->pdata[i])) {
            outcome = OUTCOME_COMMITTED;
        }
    }
    return outcome;
}

/* Bitmaps with a base say themselves what they are relative to. */
static int distrust_all(struct settlement *settlement,
                        const struct manifest *point,
                        GError **err)
{
    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        if (disk->previous_bitmap == NULL || disk->previous_base.txid != NULL ||
            repository_is_distrusted(settlement->repository,
                                     disk->previous_bitmap)) {
            continue;
        }
        int ret = repository_distrust(settlement->repository,
                                      disk->previous_bitmap, err);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int publish(struct settlement *settlement,
                   struct manifest **point,
                   GError **err)
{
    g_autoptr(GError) why = NULL;
    g_autofree char *id = g_strdup((*point)->point);

    if (settle_rename_bitmaps(settlement->client, *point, &why) < 0) {
        /* Their old names match no newest point: the next backup is full. */
        settle_tell(settlement, SETTLE_WARNING,
                    "the bitmaps of point %s keep their old names (%s)", id,
                    why->message);
    }
    int ret = repository_publish(settlement->repository, point, err);
    if (ret == 0) {
        settle_tell(settlement, SETTLE_PUBLISHED,
                    "point %s had been committed by the daemon: published it",
                    id);
    }
    return ret;
}

/* The manifest of a partial point, if it has one, and how far it came. */
static struct manifest *read_partial(const struct repository *repository,
                                     const char *directory,
                                     bool *ret_prepared)
{
    struct manifest *point = NULL;

    *ret_prepared = repository_read_manifest(repository, directory,
                                             MANIFEST_FILE, &point, NULL) == 0;
    if (!*ret_prepared) {
        (void)repository_read_manifest(repository, directory, STARTED_FILE,
                                       &point, NULL);
    }
    return point;
}

static int settle_unknown(struct settlement *settlement,
                          const struct manifest *point,
                          bool is_prepared,
                          GError **err)
{
    int ret = distrust_all(settlement, point, err);

    if (ret < 0) {
        return ret;
    }
    if (is_prepared && point->txid != NULL) {
        g_hash_table_add(settlement->kept, g_strdup(point->label));
        settle_tell(settlement, SETTLE_WARNING,
                    "it is not known whether the daemon committed point %s: "
                    "kept it as %s, unpublished; nothing builds on it",
                    point->point, point->directory);
        return 0;
    }
    settle_tell(settlement, SETTLE_WARNING,
                "it is not known whether the daemon committed %s: discarded "
                "it, the next backup of its disks is full",
                point->directory);
    return durable_remove_directory(settlement->repository->fd,
                                    point->directory, err);
}

/* Decides one partial point. */
static int settle_point(struct settlement *settlement,
                        const char *directory,
                        GError **err)
{
    bool is_prepared;
    g_autoptr(manifest_auto) point =
        read_partial(settlement->repository, directory, &is_prepared);
    enum outcome outcome =
        point == NULL ? OUTCOME_ABORTED : outcome_of(settlement, point);

    if (is_prepared && outcome == OUTCOME_COMMITTED) {
        return publish(settlement, &point, err);
    }
    /* A group that only started cannot have been committed by us; if its
     * records say it was, someone else finalized it, and its bitmaps moved on
     * without a point. */
    if ((is_prepared && outcome == OUTCOME_UNKNOWN) ||
        outcome == OUTCOME_COMMITTED) {
        return settle_unknown(settlement, point, is_prepared, err);
    }
    settle_tell(settlement, SETTLE_DISCARDED, "discarded the unfinished %s",
                directory);
    return durable_remove_directory(settlement->repository->fd, directory, err);
}

static int settle_points(struct settlement *settlement, GError **err)
{
    g_autoptr(GPtrArray) partials =
        repository_partials(settlement->repository, err);
    int ret = partials == NULL ? -EIO : 0;

    for (guint i = 0; ret == 0 && i < partials->len; i++) {
        ret = settle_point(settlement, partials->pdata[i], err);
    }
    return ret;
}

/* A daemon that keeps no records has none of our transactions. */
static int query_transactions(struct settlement *settlement, GError **err)
{
    g_clear_pointer(&settlement->transactions, g_ptr_array_unref);
    if (!settlement->features->keeps_records) {
        settlement->transactions = g_ptr_array_new();
        return 0;
    }
    return daemon_transactions_query(settlement->client,
                                     settlement->repository->prefix,
                                     &settlement->transactions, err);
}

static const struct daemon_transaction *find_outcome(
    const struct settlement *settlement,
    enum daemon_outcome outcome)
{
    for (guint i = 0; i < settlement->transactions->len; i++) {
        const struct daemon_transaction *transaction =
            settlement->transactions->pdata[i];
        if (transaction->outcome == outcome) {
            return transaction;
        }
    }
    return NULL;
}

static int end_jobs(struct settlement *settlement, GError **err)
{
    g_clear_pointer(&settlement->jobs, g_ptr_array_unref);
    return daemon_jobs_end_all(settlement->client,
                               settlement->repository->prefix,
                               &settlement->jobs, err);
}

/* Waits, within limits, until no outcome can change any more. */
static int wait_final(struct settlement *settlement, GError **err)
{
    int64_t deadline_us = g_get_monotonic_time() + SETTLE_US;
    bool said = false;

    for (;;) {
        int ret = query_transactions(settlement, err);
        if (ret == 0 &&
            find_outcome(settlement, DAEMON_OUTCOME_IN_DOUBT) == NULL) {
            ret = end_jobs(settlement, err);
            ret = ret < 0 ? ret : query_transactions(settlement, err);
        }
        if (ret < 0) {
            return ret;
        }
        const struct daemon_transaction *doubt =
            find_outcome(settlement, DAEMON_OUTCOME_IN_DOUBT);
        const struct daemon_transaction *unsettled =
            doubt == NULL ? find_outcome(settlement, DAEMON_OUTCOME_OPEN)
                          : doubt;
        if (unsettled == NULL) {
            return 0;
        }
        const char *reason = doubt == NULL || doubt->reason == NULL
                                 ? "it has not ended"
                                 : doubt->reason;
        if (g_get_monotonic_time() > deadline_us) {
            return error_set(err, -ETIMEDOUT,
                             "the outcome of %s is not decided yet (%s)",
                             unsettled->id, reason);
        }
        if (doubt != NULL && !said) {
            settle_tell(settlement, SETTLE_WARNING,
                        "the daemon is in doubt about the outcome of %s (%s): "
                        "waiting, a minute at most",
                        doubt->id, reason);
            said = true;
        }
        ret = daemon_jobs_pause(settlement->client, err);
        if (ret < 0) {
            return ret;
        }
    }
}

int settle(struct repository *repository,
           struct qmp_client *client,
           const struct daemon_features *features,
           settle_say_fn say,
           void *opaque,
           GError **err)
{
    struct settlement settlement = {
        .repository = repository,
        .client = client,
        .features = features,
        .kept = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
        .say = say,
        .opaque = opaque,
    };
    int ret = wait_final(&settlement, err);

    if (ret == 0) {
        ret = repository_sync_found(repository, err);
    }
    if (ret == 0) {
        ret = daemon_nodes_query(client, &settlement.nodes, err);
    }
    if (ret == 0) {
        ret = settle_points(&settlement, err);
    }
    if (ret == 0) {
        ret = settle_clean(&settlement, err);
    }
    if (ret < 0) {
        g_prefix_error(err, "cannot put right what an earlier run left: ");
    }
    g_clear_pointer(&settlement.jobs, g_ptr_array_unref);
    g_clear_pointer(&settlement.nodes, g_ptr_array_unref);
    g_clear_pointer(&settlement.transactions, g_ptr_array_unref);
    g_hash_table_unref(settlement.kept);
    return ret;
}
