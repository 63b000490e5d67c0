/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * BlockDeviceInfo and ImageInfo of a node (docs/reference/qmp.md).
 *
 * The driver adds what only it knows (filename, actual size) on the node's
 * home thread; the rest is fixed.
 */
#include "block/node_priv.h"
#include "loop/coroutine.h"

static const char *detect_zeroes_word(enum block_detect_zeroes detect)
{
    switch (detect) {
    case BLOCK_DETECT_ZEROES_OFF: return "off";
    case BLOCK_DETECT_ZEROES_ON: return "on";
    case BLOCK_DETECT_ZEROES_UNMAP: return "unmap";
    }
    g_assert_not_reached();
}

void co_block_child_info(struct block_node *node, struct json_value *image)
{
    if (node->driver->co_info != NULL) {
        node->driver->co_info(node, image);
    }
}

static struct json_value *co_image_info(struct block_node *node, bool flat)
{
    struct json_value *image = json_dict_new();
    struct block_node *backing = block_child(node, "backing");

    json_dict_set_string(image, "filename", "");
    json_dict_set_string(image, "format", node->driver->name);
    json_dict_set_uint(image, "virtual-size", block_size(node));
    if (node->limits.cluster_bytes > 0) {
        json_dict_set_uint(image, "cluster-size", node->limits.cluster_bytes);
    }
    json_dict_set_bool(image, "dirty-flag", false);
    co_block_child_info(node, image);
    if (backing != NULL && !flat) {
        json_dict_set(image, "backing-image", co_image_info(backing, flat));
    }
    return image;
}

static struct json_value *cache_info(const struct block_node *node)
{
    struct json_value *cache = json_dict_new();

    json_dict_set_bool(cache, "writeback", true);
    json_dict_set_bool(cache, "direct", node->common.direct);
    json_dict_set_bool(cache, "no-flush", node->common.no_flush);
    return cache;
}

static struct json_value *children_info(const struct block_node *node)
{
    struct json_value *children = json_list_new();

    for (size_t i = 0; i < node->edge_count; i++) {
        struct json_value *child = json_dict_new();

        json_dict_set_string(child, "child", node->edges[i].role->name);
        json_dict_set_string(child, "node-name",
                             block_name(node->edges[i].user.node));
        json_list_append(children, child);
    }
    return children;
}

/* As it was opened, which need not be what the image says. */
static void add_backing_file(const struct block_node *node,
                             struct json_value *info)
{
    const struct block_node *backing = block_child(node, "backing");
    const char *filename = backing == NULL ? NULL : block_filename(backing);

    if (filename != NULL) {
        json_dict_set_string(info, "backing_file", filename);
    }
}

static int64_t backing_depth(const struct block_node *node)
{
    int64_t depth = 0;

    while ((node = block_child(node, "backing")) != NULL) {
        depth++;
    }
    return depth;
}

struct json_value *co_block_info(struct block_node *node, bool flat)
{
    static const char *const throttle[] = { "bps",  "bps_rd",  "bps_wr",
                                            "iops", "iops_rd", "iops_wr" };
    struct json_value *info = json_dict_new();
    struct json_value *image;

    co_block_visit(node);
    image = co_image_info(node, flat);
    co_block_leave(node);
    json_dict_set_string(info, "file", json_dict_string(image, "filename", ""));
    json_dict_set_string(info, "node-name", node->name);
    json_dict_set_bool(info, "ro", node->read_only);
    json_dict_set_string(info, "drv", node->driver->name);
    add_backing_file(node, info);
    json_dict_set_int(info, "backing_file_depth", backing_depth(node));
    json_dict_set(info, "children", children_info(node));
    json_dict_set_bool(info, "active", true);
    json_dict_set_bool(info, "encrypted", false);
    json_dict_set_string(info, "detect_zeroes",
                         detect_zeroes_word(node->common.detect_zeroes));
    for (size_t i = 0; i < G_N_ELEMENTS(throttle); i++) {
        json_dict_set_int(info, throttle[i], 0);
    }
    json_dict_set(info, "cache", cache_info(node));
    json_dict_set_int(info, "write_threshold", 0);
    json_dict_set(info, "image", image);
    return info;
}
