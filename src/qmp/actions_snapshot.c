/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Snapshot actions: an overlay is put above a node, in its place for all who
 * use it; what the node holds is the snapshot from then on.
 *
 * Prepare opens or finds the overlay, brings both nodes to one thread, checks
 * and reserves everything; commit, with the node and all its parents drained,
 * moves the users. Abort lets go of the overlay, and closes it if it was opened
 * here. (An image file that was made stays.) Bitmaps stay on the old node; the
 * same transaction can add one to the overlay and merge them.
 */
#include <errno.h>

#include "base/error.h"
#include "block/replace.h"
#include "qmp/actions.h"
#include "qmp/backup_types.h"
#include "qmp/snapshot_image.h"

struct snapshot_action {
    struct transaction_action action;
    struct action_context *context;
    const struct json_value *data;         /* borrowed */
    struct block_replacement *replacement; /* from prepare to commit, abort */
    struct block_node *opened;             /* the overlay, if it was here */
};

static struct snapshot_action *action_of(struct transaction_action *action)
{
    return LIST_ENTRY(action, struct snapshot_action, action);
}

static int co_put_above(struct snapshot_action *self,
                        struct transaction *transaction,
                        struct block_node *node,
                        struct block_node *overlay,
                        GError **err)
{
    const GPtrArray *nodes;
    int ret = co_block_join(node, overlay, err);

    if (ret == 0) {
        ret = block_replacement_prepare(node, overlay, BLOCK_REPLACE_BY_OVERLAY,
                                        &self->replacement, err);
    }
    if (ret < 0) {
        return ret;
    }
    nodes = block_replacement_nodes(self->replacement);
    for (guint i = 0; i < nodes->len; i++) {
        transaction_add_node_drained(transaction, g_ptr_array_index(nodes, i));
    }
    return 0;
}

static int co_prepare_overlay(struct transaction_action *action,
                              struct transaction *transaction,
                              GError **err)
{
    struct snapshot_action *self = action_of(action);
    struct block_graph *graph = self->context->engine->graph;
    struct block_node *node =
        block_find(graph, json_dict_string(self->data, "node", ""), err);
    struct block_node *overlay =
        node == NULL
            ? NULL
            : block_find(graph, json_dict_string(self->data, "overlay", ""),
                         err);

    return overlay == NULL
               ? -ENOENT
               : co_put_above(self, transaction, node, overlay, err);
}

static void co_close_opened(struct snapshot_action *self)
{
    g_autofree char *name = NULL;
    g_autoptr(GError) err = NULL;

    if (self->opened != NULL) {
        name = g_strdup(block_name(self->opened));
        self->opened = NULL;
        /* Only the transaction's own hold, on a thread that is stuck, can be
         * in the way. */
        if (co_block_del(self->context->engine->graph, name, &err) < 0) {
            g_warning("Node '%s' of a snapshot that was not taken is left "
                      "open: %s",
                      name, err->message);
        }
    }
}

/* By `device`, which is a node's name here, or `node-name`. */
static struct block_node *find_node(const struct snapshot_action *self,
                                    GError **err)
{
    const char *device = json_dict_string(self->data, "device", NULL);
    const char *name = json_dict_string(self->data, "node-name", NULL);

    if ((device == NULL) == (name == NULL)) {
        error_set(err, -EINVAL,
                  "blockdev-snapshot-sync needs exactly one of 'device' and "
                  "'node-name'");
        return NULL;
    }
    if (name != NULL &&
        json_dict_get(self->data, "snapshot-node-name") == NULL) {
        error_set(err, -EINVAL,
                  "blockdev-snapshot-sync of a 'node-name' needs a "
                  "'snapshot-node-name'");
        return NULL;
    }
    return block_find(self->context->engine->graph,
                      name != NULL ? name : device, err);
}

static int co_prepare_sync(struct transaction_action *action,
                           struct transaction *transaction,
                           GError **err)
{
    struct snapshot_action *self = action_of(action);
    struct block_node *node = find_node(self, err);
    int ret;

    if (node == NULL) {
        return -ENOENT;
    }
    ret = co_snapshot_image_open(node, self->data, &self->opened, err);
    if (ret == 0) {
        ret = co_put_above(self, transaction, node, self->opened, err);
    }
    if (ret < 0) {
        co_close_opened(self);
    }
    return ret;
}

static void commit_snapshot(struct transaction_action *action)
{
    struct snapshot_action *self = action_of(action);

    block_replacement_commit(g_steal_pointer(&self->replacement));
    self->opened = NULL;
}

static void co_abort_snapshot(struct transaction_action *action)
{
    struct snapshot_action *self = action_of(action);

    block_replacement_cancel(g_steal_pointer(&self->replacement));
    co_close_opened(self);
}

static void co_clean_snapshot(struct transaction_action *action)
{
    g_free(action_of(action));
}

static const struct transaction_action_ops overlay_ops = {
    .name = "blockdev-snapshot",
    .co_prepare = co_prepare_overlay,
    .commit = commit_snapshot,
    .co_abort = co_abort_snapshot,
    .co_clean = co_clean_snapshot,
};

static const struct transaction_action_ops sync_ops = {
    .name = "blockdev-snapshot-sync",
    .co_prepare = co_prepare_sync,
    .commit = commit_snapshot,
    .co_abort = co_abort_snapshot,
    .co_clean = co_clean_snapshot,
};

static struct transaction_action *create(
    const struct transaction_action_ops *ops,
    struct action_context *context,
    const struct json_value *data)
{
    struct snapshot_action *self = g_new0(struct snapshot_action, 1);

    self->action.ops = ops;
    self->context = context;
    self->data = data;
    return &self->action;
}

static struct transaction_action *create_overlay(struct action_context *context,
                                                 const struct json_value *data)
{
    return create(&overlay_ops, context, data);
}

static struct transaction_action *create_sync(struct action_context *context,
                                              const struct json_value *data)
{
    return create(&sync_ops, context, data);
}

/* --- Types ------------------------------------------------------------------ */

const struct schema_type snapshot_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevSnapshot",
    .members =
        (const struct schema_member[]){
            { .name = "node",
              .type = &schema_string,
              .required = true,
              .doc = "The node whose content becomes the snapshot." },
            { .name = "overlay",
              .type = &schema_string,
              .required = true,
              .doc = "The node that takes its place: of the same size, used by "
                     "nobody, and opened with backing=null." },
            { .name = NULL },
        },
};

const struct schema_type snapshot_sync_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevSnapshotSync",
    .members =
        (const struct schema_member[]){
            { .name = "device",
              .type = &schema_string,
              .doc = "Taken for a node's name: there are no devices." },
            { .name = "node-name",
              .type = &schema_string,
              .doc = "Exactly one of device and node-name." },
            { .name = "snapshot-file",
              .type = &schema_string,
              .required = true,
              .doc = "The file of the overlay." },
            { .name = "snapshot-node-name",
              .type = &schema_string,
              .doc = "Name of the overlay's node; required with node-name." },
            { .name = "format",
              .type = &schema_string,
              .fallback = "qcow2",
              .doc = "Format of the overlay." },
            { .name = "mode",
              .type = &new_image_mode_type,
              .fallback = "absolute-paths",
              .doc = "Make the overlay, with the absolute name of its backing "
                     "file; or take an image that exists." },
            { .name = NULL },
        },
};

const struct action_type snapshot_action_types[] = {
    { .name = "blockdev-snapshot",
      .alone_only = true,
      .create = create_overlay },
    { .name = "blockdev-snapshot-sync",
      .alone_only = true,
      .create = create_sync },
    { .name = NULL },
};
