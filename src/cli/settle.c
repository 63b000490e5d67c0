/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In order: our jobs are cancelled and waited for, so that every outcome is
 * final; each partial point is published or discarded by its outcome; then what
 * is left of ours in the daemon is removed.
 *
 * The outcome of a group is told by the records that its jobs leave
 * (auto-dismiss is off), or by a bitmap that has the name it gets only after
 * the group has succeeded. With neither, it is unknown: the bitmaps may or may
 * not have been consumed, so they are written down as distrusted before the
 * point goes.
 */
#include "cli/settle.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "cli/daemon_jobs.h"
#include "cli/daemon_nodes.h"
#include "repo/durable.h"
#include "repo/names.h"

enum outcome {
    OUTCOME_COMMITTED,
    OUTCOME_ABORTED,
    OUTCOME_UNKNOWN,
};

struct settlement {
    struct repository *repository;
    struct qmp_client *client;
    GPtrArray *jobs;  /* struct daemon_job *, all ended */
    GPtrArray *nodes; /* struct daemon_node * */
    settle_say_fn say;
    void *opaque;
};

static void G_GNUC_PRINTF(3, 4) tell(const struct settlement *settlement,
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

/* What became of the group with this label. */
static enum outcome outcome_of(const struct settlement *settlement,
                               const char *label,
                               const struct manifest *point)
{
    bool any = false;

    for (guint i = 0; i < settlement->jobs->len; i++) {
        const struct daemon_job *job = settlement->jobs->pdata[i];
        if (!g_str_has_prefix(job->id, label)) {
            continue;
        }
        if (job->error != NULL) {
            return OUTCOME_ABORTED;
        }
        any = true;
    }
    if (any) {
        return OUTCOME_COMMITTED;
    }
    for (guint i = 0; point != NULL && i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        if (disk->incremental &&
            has_bitmap(settlement->nodes, disk->node, disk->bitmap)) {
            return OUTCOME_COMMITTED;
        }
    }
    return OUTCOME_UNKNOWN;
}

static int distrust_all(struct settlement *settlement,
                        const struct manifest *point,
                        GError **err)
{
    for (guint i = 0; i < point->disks->len; i++) {
        const struct manifest_disk *disk = point->disks->pdata[i];
        if (disk->previous_bitmap == NULL) {
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
        tell(settlement, SETTLE_WARNING,
             "the bitmaps of point %s keep their old names (%s)", id,
             why->message);
    }
    int ret = repository_publish(settlement->repository, point, err);
    if (ret == 0) {
        tell(settlement, SETTLE_PUBLISHED,
             "point %s had been committed by the daemon: published it", id);
    }
    return ret;
}

/* Decides one partial point. */
static int settle_point(struct settlement *settlement,
                        const char *directory,
                        GError **err)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(manifest_auto) prepared = NULL;
    g_autoptr(manifest_auto) started = NULL;
    struct repository *repository = settlement->repository;
    enum outcome outcome = OUTCOME_ABORTED;
    int ret;

    ret = repository_read_manifest(repository, directory, MANIFEST_FILE,
                                   &prepared, &why);
    if (ret < 0) {
        g_clear_error(&why);
        (void)repository_read_manifest(repository, directory, STARTED_FILE,
                                       &started, NULL);
    }
    const struct manifest *point = prepared == NULL ? started : prepared;
    if (point != NULL) {
        outcome = outcome_of(settlement, point->label, point);
    }
    if (prepared != NULL && outcome == OUTCOME_COMMITTED) {
        return publish(settlement, &prepared, err);
    }
    /* A group that only started cannot have been committed by us; if its
     * records say it was, someone else finalized it, and its bitmaps moved on
     * without a point. */
    if ((prepared != NULL && outcome == OUTCOME_UNKNOWN) ||
        outcome == OUTCOME_COMMITTED) {
        ret = distrust_all(settlement, point, err);
        if (ret < 0) {
            return ret;
        }
        tell(settlement, SETTLE_WARNING,
             "it is not known whether the daemon committed %s: discarded it, "
             "the next backup of its disks is full",
             directory);
    } else {
        tell(settlement, SETTLE_DISCARDED, "discarded the unfinished %s",
             directory);
    }
    return durable_remove_directory(repository->fd, directory, err);
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

static int remove_targets(struct settlement *settlement, GError **err)
{
    const char *prefix = settlement->repository->prefix;
    int ret = 0;

    for (guint i = 0; ret == 0 && i < settlement->nodes->len; i++) {
        const struct daemon_node *node = settlement->nodes->pdata[i];
        if (g_str_has_prefix(node->name, prefix)) {
            ret = qmp_command(settlement->client, "blockdev-del",
                              json_pack("{s:s}", "node-name", node->name), NULL,
                              err);
        }
    }
    return ret;
}

/* Is this the bitmap from which the next increment of the node starts? */
static bool is_wanted(const struct repository *repository,
                      const char *node,
                      const char *bitmap)
{
    const struct manifest *newest = repository_newest_with(repository, node);
    const struct manifest_disk *disk =
        newest == NULL ? NULL : manifest_find_disk(newest, node);

    return disk != NULL && g_strcmp0(disk->bitmap, bitmap) == 0 &&
           !repository_is_distrusted(repository, bitmap);
}

static int remove_bitmaps(struct settlement *settlement,
                          const struct daemon_node *node,
                          GError **err)
{
    const struct repository *repository = settlement->repository;
    int ret = 0;

    for (guint i = 0; ret == 0 && i < node->bitmaps->len; i++) {
        const struct daemon_bitmap *bitmap = node->bitmaps->pdata[i];
        if (bitmap->is_busy ||
            !g_str_has_prefix(bitmap->name, repository->prefix) ||
            is_wanted(repository, node->name, bitmap->name)) {
            continue;
        }
        ret = qmp_command(
            settlement->client, "block-dirty-bitmap-remove",
            json_pack("{s:s, s:s}", "node", node->name, "name", bitmap->name),
            NULL, err);
    }
    return ret;
}

static int clean_daemon(struct settlement *settlement, GError **err)
{
    int ret = daemon_jobs_dismiss_all(settlement->client,
                                      settlement->repository->prefix, err);

    if (ret == 0) {
        g_clear_pointer(&settlement->nodes, g_ptr_array_unref);
        ret = daemon_nodes_query(settlement->client, &settlement->nodes, err);
    }
    if (ret == 0) {
        ret = remove_targets(settlement, err);
    }
    for (guint i = 0; ret == 0 && i < settlement->nodes->len; i++) {
        ret = remove_bitmaps(settlement, settlement->nodes->pdata[i], err);
    }
    return ret;
}

int settle(struct repository *repository,
           struct qmp_client *client,
           settle_say_fn say,
           void *opaque,
           GError **err)
{
    struct settlement settlement = {
        .repository = repository, .client = client, .say = say, .opaque = opaque
    };
    int ret =
        daemon_jobs_end_all(client, repository->prefix, &settlement.jobs, err);

    if (ret == 0) {
        ret = daemon_nodes_query(client, &settlement.nodes, err);
    }
    if (ret == 0) {
        ret = settle_points(&settlement, err);
    }
    if (ret == 0) {
        ret = clean_daemon(&settlement, err);
    }
    if (ret < 0) {
        g_prefix_error(err, "cannot put right what an earlier run left: ");
    }
    g_clear_pointer(&settlement.jobs, g_ptr_array_unref);
    g_clear_pointer(&settlement.nodes, g_ptr_array_unref);
    return ret;
}
