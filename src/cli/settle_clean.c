/* SPDX-License-Identifier: BSD-3-Clause */
/* What runs leave in the daemon: records of jobs, targets, bitmaps that no point
 * names, outcomes that nobody will ask for again. */
#include <errno.h>

#include "cli/daemon_jobs.h"
#include "cli/settle_priv.h"
#include "repo/durable.h"

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

/* The repository has taken note of what was decided, by a rename or by having
 * removed what was not to be. A refusal does no harm: the next run says it
 * again. */
static int acknowledge(struct settlement *settlement, GError **err)
{
    for (guint i = 0; i < settlement->transactions->len; i++) {
        const struct daemon_transaction *transaction =
            settlement->transactions->pdata[i];
        g_autoptr(GError) why = NULL;
        if ((transaction->outcome != DAEMON_OUTCOME_COMMITTED &&
             transaction->outcome != DAEMON_OUTCOME_ABORTED) ||
            g_hash_table_contains(settlement->kept, transaction->id)) {
            continue;
        }
        int ret = daemon_transactions_acknowledge(settlement->client,
                                                  transaction->txid, &why);
        if (ret < 0 && ret != -EREMOTEIO) {
            g_propagate_error(err, g_steal_pointer(&why));
            return ret;
        }
    }
    return 0;
}

int settle_clean(struct settlement *settlement, GError **err)
{
    /* What was found published or gone may be so in a cache only: who did it may
     * have died before it was durable. What is given up now tells of it. */
    int ret = durable_sync(settlement->repository->fd,
                           settlement->repository->path, err);

    if (ret == 0) {
        ret = daemon_jobs_dismiss_all(settlement->client,
                                      settlement->repository->prefix, err);
    }
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
    return ret < 0 ? ret : acknowledge(settlement, err);
}
