/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Commands on block nodes.
 *
 * All of them hold the graph lock, the queries too: they visit each node on its
 * home thread, and no job that ends meanwhile may take the node away.
 */
#include "qmp/command.h"

#include <errno.h>

#include "base/error.h"
#include "bitmap/dirty_bitmap.h"
#include "block/driver.h"
#include "block/request.h"
#include "loop/coroutine.h"
#include "qmp/actions.h"
#include "qmp/block_info_types.h"

static int co_blockdev_add(struct engine *engine,
                           const struct json_value *arguments,
                           struct json_value **ret,
                           GError **err)
{
    int rc;

    (void)ret;
    co_block_graph_lock(engine->graph);
    rc = co_block_add(engine->graph, arguments, true, NULL, err);
    block_graph_unlock(engine->graph);
    return rc;
}

static const struct schema_member blockdev_del_members[] = {
    { .name = "node-name", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_type blockdev_del_type = {
    .kind = SCHEMA_STRUCT,
    .members = blockdev_del_members,
};

static int co_blockdev_del(struct engine *engine,
                           const struct json_value *arguments,
                           struct json_value **ret,
                           GError **err)
{
    int rc;

    (void)ret;
    co_block_graph_lock(engine->graph);
    rc = co_block_del(engine->graph,
                      json_dict_string(arguments, "node-name", NULL), err);
    block_graph_unlock(engine->graph);
    return rc;
}

/* BlockDeviceInfo with the bitmaps, which live on the home thread. */
static struct json_value *co_describe_node(struct engine *engine,
                                           struct block_node *node,
                                           bool flat)
{
    struct json_value *info = co_block_info(node, flat);
    struct json_value *bitmaps;

    co_move(block_home(node));
    bitmaps = dirty_bitmap_query(node);
    co_move(engine->main);
    if (bitmaps != NULL) {
        json_dict_set(info, "dirty-bitmaps", bitmaps);
    }
    return info;
}

static const struct schema_member query_nodes_members[] = {
    { .name = "flat",
      .type = &schema_bool,
      .doc = "Leave out what lies under an image (image.backing-image).",
      .fallback = "false" },
    { .name = NULL },
};
static const struct schema_type query_nodes_type = {
    .kind = SCHEMA_STRUCT,
    .members = query_nodes_members,
};

static int co_query_nodes(struct engine *engine,
                          const struct json_value *arguments,
                          struct json_value **ret,
                          GError **err)
{
    bool flat = json_dict_bool(arguments, "flat", false);
    struct json_value *list = json_list_new();

    (void)err;
    co_block_graph_lock(engine->graph);
    for (struct block_node *node = block_next(engine->graph, NULL);
         node != NULL; node = block_next(engine->graph, node)) {
        json_list_append(list, co_describe_node(engine, node, flat));
    }
    block_graph_unlock(engine->graph);
    *ret = list;
    return 0;
}

static int co_query_block(struct engine *engine,
                          const struct json_value *arguments,
                          struct json_value **ret,
                          GError **err)
{
    struct json_value *list = json_list_new();

    (void)arguments;
    (void)err;
    co_block_graph_lock(engine->graph);
    for (struct block_node *node = block_next(engine->graph, NULL);
         node != NULL; node = block_next(engine->graph, node)) {
        struct json_value *info;

        if (!block_is_top(node)) {
            continue;
        }
        info = json_dict_new();
        json_dict_set_string(info, "device", "");
        json_dict_set_string(info, "type", "unknown");
        json_dict_set_bool(info, "removable", false);
        json_dict_set_bool(info, "locked", false);
        json_dict_set(info, "inserted", co_describe_node(engine, node, false));
        json_list_append(list, info);
    }
    block_graph_unlock(engine->graph);
    *ret = list;
    return 0;
}

static const struct schema_member resize_members[] = {
    { .name = "device",
      .type = &schema_string,
      .doc = "Taken for a node's name: there are no devices." },
    { .name = "node-name",
      .type = &schema_string,
      .doc = "Exactly one of device and node-name." },
    { .name = "size",
      .type = &schema_int,
      .doc = "Bytes; what lies beyond is gone.",
      .required = true },
    { .name = NULL },
};
static const struct schema_type resize_type = {
    .kind = SCHEMA_STRUCT,
    .members = resize_members,
};

static int co_resize_node(struct engine *engine,
                          struct block_node *node,
                          uint64_t size_bytes,
                          GError **err)
{
    struct block_user user = {
        .kind = "command",
        .id = "block_resize",
        .permissions = BLOCK_PERM_RESIZE,
        .shared = BLOCK_PERM_ALL,
    };
    int rc = block_attach(node, &user, err);

    if (rc < 0) {
        return rc;
    }
    co_move(block_home(node));
    rc = co_block_truncate(node, size_bytes, true, err);
    co_move(engine->main);
    block_detach(&user);
    return rc;
}

static int co_resize(struct engine *engine,
                     const struct json_value *arguments,
                     struct json_value **ret,
                     GError **err)
{
    const char *device = json_dict_string(arguments, "device", NULL);
    const char *name = json_dict_string(arguments, "node-name", NULL);
    int64_t size_bytes = json_dict_int(arguments, "size", 0);
    struct block_node *node;
    int rc = -ENOENT;

    (void)ret;
    if ((device == NULL) == (name == NULL)) {
        return error_set(err, -EINVAL,
                         "block_resize needs exactly one of 'device' and "
                         "'node-name'");
    }
    if (size_bytes < 0) {
        return error_set(err, -EINVAL,
                         "block_resize: size %" G_GINT64_FORMAT " is negative",
                         size_bytes);
    }
    co_block_graph_lock(engine->graph);
    node = block_find(engine->graph, name != NULL ? name : device, err);
    if (node != NULL) {
        rc = co_resize_node(engine, node, (uint64_t)size_bytes, err);
    }
    block_graph_unlock(engine->graph);
    return rc;
}

static int co_snapshot(struct engine *engine,
                       const struct json_value *arguments,
                       struct json_value **ret,
                       GError **err)
{
    (void)ret;
    return co_action_run(engine, "blockdev-snapshot", arguments, err);
}

static int co_snapshot_sync(struct engine *engine,
                            const struct json_value *arguments,
                            struct json_value **ret,
                            GError **err)
{
    (void)ret;
    return co_action_run(engine, "blockdev-snapshot-sync", arguments, err);
}

static const char *const snapshot_features[] = { "allow-write-only-overlay",
                                                 NULL };

const struct qmp_command qmp_commands_block[] = {
    { .name = "blockdev-add",
      .doc = "Opens a block node, with the nodes it lies on. A node-name is "
             "needed.",
      .arguments = &blockdev_options_type,
      .co_run = co_blockdev_add },
    { .name = "blockdev-del",
      .doc = "Closes a node that blockdev-add (or --blockdev) opened and that "
             "nobody uses.",
      .arguments = &blockdev_del_type,
      .co_run = co_blockdev_del },
    { .name = "query-named-block-nodes",
      .doc = "All nodes, the newest first.",
      .arguments = &query_nodes_type,
      .returns = &qmp_block_device_info_list_type,
      .co_run = co_query_nodes },
    { .name = "query-block",
      .doc = "The nodes that no other node uses, as clients that look for a "
             "machine's disks expect them.",
      .returns = &qmp_block_info_list_type,
      .co_run = co_query_block },
    { .name = "block_resize",
      .doc = "Changes a node's size. Refused while a job or an export that "
             "relies on it uses the node.",
      .arguments = &resize_type,
      .co_run = co_resize },
    { .name = "blockdev-snapshot",
      .doc = "Puts an overlay above a node, in its place for all who use it: "
             "what is written from then on goes to the overlay.",
      .arguments = &snapshot_type,
      .features = snapshot_features,
      .co_run = co_snapshot },
    { .name = "blockdev-snapshot-sync",
      .doc = "The same, with an overlay that is made and opened, or only "
             "opened, as part of it.",
      .arguments = &snapshot_sync_type,
      .co_run = co_snapshot_sync },
    { .name = NULL },
};
