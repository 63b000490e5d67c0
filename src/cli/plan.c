/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk can be incremental when the newest point that holds it is whole, and
 * the daemon still has the bitmap which that point names, as a difference to
 * that very point. A bitmap that outlives the daemon says so itself, by its
 * base: that is compared here, and demanded again when the job is made. Of one
 * that lives in memory the name says it, which is given to it only once it is
 * relative to the point. So a bitmap of another age, of another disk, of another
 * repository or of a copy of this one does not match.
 */
#include "cli/plan.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "cli/daemon_nodes.h"
#include "repo/chain.h"
#include "repo/content.h"
#include "repo/names.h"

#define NO_HASH \
 "0000000000000000000000000000000000000000000000000000000000000000"

/* Why a bitmap that outlives the daemon is not relative to the point; NULL: it
 * is. A new string. */
static char *base_fault(const struct daemon_bitmap *bitmap,
                        const struct manifest *newest,
                        const struct manifest_disk *last)
{
    const struct manifest_base *found = &bitmap->bases[0];

    if (last->base.txid == NULL) {
        return g_strdup_printf("point %s does not say what its record of "
                               "changes is relative to",
                               newest->point);
    }
    if (daemon_bitmap_has_base(bitmap, &last->base)) {
        return NULL;
    }
    if (found->txid == NULL) {
        return g_strdup_printf("its record of changes is relative to no "
                               "backup, not to point %s",
                               newest->point);
    }
    if (strcmp(found->disk, last->base.disk) != 0) {
        return g_strdup_printf("it is not the disk that point %s holds: "
                               "another one has its name now",
                               newest->point);
    }
    return g_strdup_printf("its record of changes is relative to another "
                           "backup than point %s (the disk was rolled back, "
                           "or backed up elsewhere)",
                           newest->point);
}

/* Why the bitmap cannot be used; NULL: it can. A new string. */
static char *bitmap_fault(const struct repository *repository,
                          const struct daemon_features *features,
                          const struct daemon_node *node,
                          const struct manifest *newest,
                          const struct manifest_disk *last)
{
    const struct daemon_bitmap *bitmap =
        last->bitmap == NULL ? NULL : daemon_node_bitmap(node, last->bitmap);

    if (bitmap == NULL) {
        return g_strdup_printf("the daemon has no record of the changes since "
                               "point %s",
                               newest->point);
    }
    if (repository_is_distrusted(repository, bitmap->name)) {
        return g_strdup("it is not known what its record of changes is "
                        "relative to");
    }
    if (bitmap->is_inconsistent) {
        return bitmap->reason == NULL
                   ? g_strdup("its record of changes is inconsistent")
                   : g_strdup_printf("its record of changes is inconsistent "
                                     "(%s)",
                                     bitmap->reason);
    }
    if (!bitmap->is_recording) {
        return g_strdup("its record of changes was disabled");
    }
    if (bitmap->is_busy) {
        return g_strdup("its record of changes is in use");
    }
    if (bitmap->is_persistent && !features->keeps_records) {
        return g_strdup("the daemon cannot write down what becomes of its "
                        "record of changes");
    }
    if (bitmap->is_persistent) {
        return base_fault(bitmap, newest, last);
    }
    if (last->base.txid != NULL) {
        return g_strdup("its record of changes is not the one that was kept");
    }
    return NULL;
}

/* Why the disk cannot be incremental; NULL: it can. A new string. */
static char *reason_for_full(const struct repository *repository,
                             const struct daemon_node *node,
                             const struct daemon_features *features,
                             const struct manifest *newest)
{
    g_autoptr(GError) why = NULL;
    const struct manifest_disk *last;

    if (newest == NULL) {
        return g_strdup("first backup of this disk");
    }
    if (!features->tells_extents) {
        /* QEMU's: there each backup is full. */
        return g_strdup("the daemon cannot tell what an increment copied");
    }
    last = manifest_find_disk(newest, node->name);
    if (last->size != node->size) {
        return g_strdup_printf("its size changed from %" G_GUINT64_FORMAT
                               " to %" G_GUINT64_FORMAT " bytes",
                               last->size, node->size);
    }
    if (node->size == 0) {
        return g_strdup("it is empty");
    }
    if (repository_chain_length(repository, newest, node->name) >=
        REPOSITORY_CHAIN_MAX) {
        return g_strdup_printf("its chain has %d points", REPOSITORY_CHAIN_MAX);
    }
    char *fault = bitmap_fault(repository, features, node, newest, last);
    if (fault != NULL) {
        return fault;
    }
    g_autoptr(chain_auto) chain =
        chain_open(repository, newest, node->name, &why);
    g_autoptr(hash_list_auto) hashes =
        chain == NULL ? NULL
                      : content_load_hashes(repository, newest, last, &why);
    if (hashes == NULL) {
        return g_strdup_printf("the points it would build on are damaged (%s)",
                               why->message);
    }
    return NULL;
}

static void make_incremental(struct manifest_disk *disk,
                             const struct manifest *newest)
{
    const struct manifest_disk *last = manifest_find_disk(newest, disk->node);

    disk->incremental = true;
    disk->previous = g_strdup(newest->point);
    disk->previous_bitmap = g_strdup(last->bitmap);
    manifest_base_set(&disk->previous_base, last->base.txid, last->base.disk);
    if (last->base.txid != NULL) {
        /* Its base moves on, and its name need not. */
        g_free(disk->bitmap);
        disk->bitmap = g_strdup(last->bitmap);
    }
    disk->reason = g_strdup_printf("changes since point %s", newest->point);
}

static int plan_disk(const struct repository *repository,
                     const struct daemon_node *node,
                     bool full,
                     const struct daemon_features *features,
                     struct manifest *point,
                     GError **err)
{
    const struct manifest *newest =
        repository_newest_with(repository, node->name);
    struct manifest_disk *disk;

    if (!disk_name_is_legal(node->name)) {
        return error_set(err, -EINVAL,
                         "node '%s' cannot be backed up: its name is not one "
                         "that a file can be named for; give the node a name",
                         node->name);
    }
    if (node->size > REPO_DISK_BYTES_MAX) {
        return error_set(err, -EFBIG,
                         "disk '%s' is larger than the %" G_GUINT64_FORMAT
                         " bytes that a repository takes",
                         node->name, (guint64)REPO_DISK_BYTES_MAX);
    }
    if (manifest_find_disk(point, node->name) != NULL) {
        return error_set(err, -EINVAL, "disk '%s' was given twice", node->name);
    }
    disk = manifest_add_disk(point, node->name);
    disk->size = node->size;
    disk->bitmap = g_strdup(point->label);
    disk->hash_root = g_strdup(NO_HASH);
    disk->job = g_strdup_printf("%s-%u", point->label, point->disks->len - 1);
    disk->reason = full ? g_strdup("a full backup was asked for")
                        : reason_for_full(repository, node, features, newest);
    if (disk->reason == NULL) {
        make_incremental(disk, newest);
    }
    return 0;
}

static struct manifest *new_point(const struct repository *repository,
                                  const char *peer,
                                  GError **err)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *random = hex_random(8, err);
    struct manifest *point;

    if (random == NULL) {
        return NULL;
    }
    point = manifest_new();
    point->sequence = repository_next_sequence(repository);
    point->point = point_id_new(now, point->sequence);
    point->directory = g_strconcat(PARTIAL_PREFIX, point->point, NULL);
    point->repository = g_strdup(repository->id);
    point->label = g_strdup_printf("%s%04" G_GUINT64_FORMAT "-%s",
                                   repository->prefix, point->sequence, random);
    point->not_before = g_strdup("");
    point->not_after = g_strdup("");
    point->tool = g_strdup("cohort " COHORT_VERSION);
    point->daemon = g_strdup(peer);
    return point;
}

/* The disks to back up, by name: those given, or those found. */
static int choose_names(const struct repository *repository,
                        struct qmp_client *client,
                        const GPtrArray *nodes,
                        char *const *names,
                        GPtrArray **ret_names,
                        GError **err)
{
    int ret;

    if (names == NULL || names[0] == NULL) {
        ret = daemon_nodes_discover(client, nodes, repository->prefix,
                                    ret_names, err);
        if (ret == 0 && (*ret_names)->len == 0) {
            g_clear_pointer(ret_names, g_ptr_array_unref);
            return error_set(err, -ENOENT,
                             "the daemon serves no writable disk; name one "
                             "with --disk NODE");
        }
        return ret;
    }
    *ret_names = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; names[i] != NULL; i++) {
        g_ptr_array_add(*ret_names, g_strdup(names[i]));
    }
    return 0;
}

int plan_point(const struct repository *repository,
               struct qmp_client *client,
               const struct daemon_features *features,
               char *const *names,
               bool full,
               struct manifest **ret_point,
               GError **err)
{
    g_autoptr(GPtrArray) nodes = NULL;
    g_autoptr(GPtrArray) chosen = NULL;
    int ret = daemon_nodes_query(client, &nodes, err);

    if (ret == 0) {
        ret = choose_names(repository, client, nodes, names, &chosen, err);
    }
    if (ret < 0) {
        return ret;
    }
    g_autoptr(manifest_auto) point =
        new_point(repository, qmp_client_peer(client), err);
    if (point == NULL) {
        return -EIO;
    }
    for (guint i = 0; i < chosen->len; i++) {
        const struct daemon_node *node =
            daemon_nodes_find(nodes, chosen->pdata[i]);
        if (node == NULL) {
            return error_set(err, -ENOENT,
                             "the daemon has no disk '%s' (query-named-block-"
                             "nodes lists what it has)",
                             (char *)chosen->pdata[i]);
        }
        ret = plan_disk(repository, node, full, features, point, err);
        if (ret < 0) {
            return ret;
        }
    }
    *ret_point = g_steal_pointer(&point);
    return 0;
}
