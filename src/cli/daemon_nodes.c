/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/daemon_nodes.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

static void bitmap_free(void *pointer)
{
    struct daemon_bitmap *bitmap = pointer;

    for (size_t i = 0; i < DAEMON_BASES_MAX; i++) {
        manifest_base_set(&bitmap->bases[i], NULL, NULL);
    }
    g_free(bitmap->reason);
    g_free(bitmap->name);
    g_free(bitmap);
}

static void node_free(void *pointer)
{
    struct daemon_node *node = pointer;

    g_free(node->name);
    g_ptr_array_unref(node->bitmaps);
    g_free(node);
}

static uint64_t get_size(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));

    return value < 0 ? 0 : (uint64_t)value;
}

static void add_bases(struct daemon_bitmap *bitmap, const json_t *list)
{
    size_t count = MIN(json_array_size(list), DAEMON_BASES_MAX);

    for (size_t i = 0; i < count; i++) {
        const json_t *base = json_array_get(list, i);
        const char *txid = json_string_value(json_object_get(base, "txid"));
        const char *disk = json_string_value(json_object_get(base, "disk"));
        if (txid != NULL && disk != NULL) {
            manifest_base_set(&bitmap->bases[i], txid, disk);
        }
    }
}

static void add_bitmap(struct daemon_node *node, const json_t *info)
{
    const char *name = json_string_value(json_object_get(info, "name"));
    struct daemon_bitmap *bitmap;

    if (name == NULL || name[0] == '\0') {
        return; /* a job's successor */
    }
    bitmap = g_new0(struct daemon_bitmap, 1);
    bitmap->name = g_strdup(name);
    bitmap->dirty_bytes = get_size(info, "count");
    bitmap->granularity = get_size(info, "granularity");
    bitmap->is_recording = json_is_true(json_object_get(info, "recording"));
    bitmap->is_busy = json_is_true(json_object_get(info, "busy"));
    bitmap->is_inconsistent =
        json_is_true(json_object_get(info, "inconsistent"));
    bitmap->is_persistent = json_is_true(json_object_get(info, "persistent"));
    bitmap->reason =
        g_strdup(json_string_value(json_object_get(info, "x-cohort-reason")));
    add_bases(bitmap, json_object_get(info, "x-cohort-base"));
    const json_t *recovered = json_object_get(info, "x-cohort-recovered");
    bitmap->is_recovered = json_is_object(recovered);
    bitmap->recovered_bytes = get_size(recovered, "bytes");
    g_ptr_array_add(node->bitmaps, bitmap);
}

static void add_node(GPtrArray *nodes, const json_t *info)
{
    const char *name = json_string_value(json_object_get(info, "node-name"));
    const json_t *bitmaps = json_object_get(info, "dirty-bitmaps");
    struct daemon_node *node;

    if (name == NULL) {
        return;
    }
    node = g_new0(struct daemon_node, 1);
    node->name = g_strdup(name);
    node->size = get_size(json_object_get(info, "image"), "virtual-size");
    node->is_read_only = json_is_true(json_object_get(info, "ro"));
    node->bitmaps = g_ptr_array_new_with_free_func(bitmap_free);
    for (size_t i = 0; i < json_array_size(bitmaps); i++) {
        add_bitmap(node, json_array_get(bitmaps, i));
    }
    g_ptr_array_add(nodes, node);
}

int daemon_nodes_query(struct qmp_client *client,
                       GPtrArray **ret_nodes,
                       GError **err)
{
    json_t *list = NULL;
    int ret = qmp_command(client, "query-named-block-nodes",
                          json_pack("{s:b}", "flat", 1), &list, err);

    if (ret < 0) {
        return ret;
    }
    *ret_nodes = g_ptr_array_new_with_free_func(node_free);
    for (size_t i = 0; i < json_array_size(list); i++) {
        add_node(*ret_nodes, json_array_get(list, i));
    }
    json_decref(list);
    return 0;
}

struct daemon_node *daemon_nodes_find(const GPtrArray *nodes, const char *name)
{
    for (guint i = 0; i < nodes->len; i++) {
        struct daemon_node *node = nodes->pdata[i];
        if (strcmp(node->name, name) == 0) {
            return node;
        }
    }
    return NULL;
}

struct daemon_bitmap *daemon_node_bitmap(const struct daemon_node *node,
                                         const char *name)
{
    for (guint i = 0; i < node->bitmaps->len; i++) {
        struct daemon_bitmap *bitmap = node->bitmaps->pdata[i];
        if (strcmp(bitmap->name, name) == 0) {
            return bitmap;
        }
    }
    return NULL;
}

bool daemon_bitmap_has_base(const struct daemon_bitmap *bitmap,
                            const struct manifest_base *base)
{
    for (size_t i = 0; i < DAEMON_BASES_MAX; i++) {
        if (manifest_base_equal(&bitmap->bases[i], base)) {
            return true;
        }
    }
    return false;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

/* Adds the node if it is a disk to back up and not there yet. */
static void consider(GPtrArray *names,
                     const GPtrArray *nodes,
                     const char *own_prefix,
                     const char *name)
{
    const struct daemon_node *node =
        name == NULL ? NULL : daemon_nodes_find(nodes, name);

    if (node == NULL || node->is_read_only ||
        g_str_has_prefix(name, own_prefix)) {
        return;
    }
    for (guint i = 0; i < names->len; i++) {
        if (strcmp(names->pdata[i], name) == 0) {
            return;
        }
    }
    g_ptr_array_add(names, g_strdup(name));
}

int daemon_nodes_discover(struct qmp_client *client,
                          const GPtrArray *nodes,
                          const char *own_prefix,
                          GPtrArray **ret_names,
                          GError **err)
{
    json_t *devices = NULL;
    json_t *exports = NULL;
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    int ret = qmp_command(client, "query-block", NULL, &devices, err);

    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < json_array_size(devices); i++) {
        const json_t *inserted =
            json_object_get(json_array_get(devices, i), "inserted");
        consider(names, nodes, own_prefix,
                 json_string_value(json_object_get(inserted, "node-name")));
    }
    json_decref(devices);
    ret = qmp_command(client, "query-block-exports", NULL, &exports, err);
    if (ret < 0) {
        return ret;
    }
    for (size_t i = 0; i < json_array_size(exports); i++) {
        const json_t *export = json_array_get(exports, i);
        consider(names, nodes, own_prefix,
                 json_string_value(json_object_get(export, "node-name")));
    }
    json_decref(exports);
    g_ptr_array_sort(names, compare_names);
    *ret_names = g_steal_pointer(&names);
    return 0;
}
