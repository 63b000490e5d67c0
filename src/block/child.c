/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A node's children: opening or finding them, and letting them go.
 *
 * An option in a child's role is a node's name, or the options of a node to
 * open with the parent; null and "" mean none. What the options leave open the
 * image may settle: when the other children are there, its driver is asked
 * which nodes the image names for the roles that are left (co_discover).
 *
 * A node is complete before a parent can name it, so the graph cannot have
 * loops. Images can: one that names a file which is being opened further up is
 * refused, and so are chains that are too long.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/node_priv.h"
#include "loop/coroutine.h"

static size_t count_roles(const struct block_driver *driver)
{
    size_t count = 0;

    if (driver->children != NULL) {
        while (driver->children[count].name != NULL) {
            count++;
        }
    }
    return count;
}

const struct block_child_role *block_role_find(
    const struct block_driver *driver,
    const char *name)
{
    for (size_t i = 0; i < count_roles(driver); i++) {
        if (strcmp(driver->children[i].name, name) == 0) {
            return &driver->children[i];
        }
    }
    return NULL;
}

/* Does the option name a child at all? */
static bool names_child(const struct json_value *value)
{
    if (value == NULL || json_type_of(value) == JSON_NULL) {
        return false;
    }
    return json_type_of(value) != JSON_STRING || *json_get_string(value) != 0;
}

int block_error_too_deep(GError **err)
{
    return error_set(err, -ELOOP,
                     "more than %d nodes on top of each other are not "
                     "supported",
                     BLOCK_DEPTH_MAX);
}

int block_refs_collect(struct block_graph *graph,
                       const struct json_value *options,
                       unsigned int level,
                       GPtrArray *ret_nodes,
                       GError **err)
{
    const struct block_driver *driver =
        block_driver_find(graph, json_dict_string(options, "driver", ""));

    if (driver == NULL) {
        return 0; /* opening it says so */
    }
    if (level > BLOCK_DEPTH_MAX) {
        return block_error_too_deep(err);
    }
    for (size_t i = 0; i < count_roles(driver); i++) {
        const struct json_value *value =
            json_dict_get(options, driver->children[i].name);
        int ret = 0;

        if (!names_child(value)) {
            continue;
        }
        if (json_type_of(value) == JSON_STRING) {
            struct block_node *node =
                block_find(graph, json_get_string(value), err);

            if (node == NULL) {
                return -ENOENT;
            }
            g_ptr_array_add(ret_nodes, node);
        } else {
            ret = block_refs_collect(graph, value, level + 1, ret_nodes, err);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int co_child_get(struct block_node *parent,
                        const struct block_child_role *role,
                        const struct json_value *value,
                        struct block_node **ret_child,
                        GError **err)
{
    g_autoptr(json_value) options = NULL;

    if (json_type_of(value) == JSON_STRING) {
        *ret_child = block_find(parent->graph, json_get_string(value), err);
        return *ret_child == NULL ? -ENOENT : 0;
    }
    options = block_common_inherit(&parent->common, role, value);
    return co_block_open(parent->graph, options, parent->home, parent,
                         ret_child, err);
}

int block_edge_add(struct block_node *node,
                   struct block_node *child,
                   const struct block_child_role *role,
                   GError **err)
{
    struct block_edge *edge = &node->edges[node->edge_count];
    int ret;

    edge->parent = node;
    edge->role = role;
    edge->user = (struct block_user){
        .kind = "node",
        .id = node->name,
        .permissions =
            BLOCK_PERM_READ | (role->written ? BLOCK_PERM_WRITE : 0U),
        .shared = role->written ? BLOCK_PERM_READ : BLOCK_PERM_ALL,
        .on_replace = BLOCK_USER_MOVES,
        .backing_may_change = role->written,
    };
    list_init(&edge->link);
    ret = block_attach(child, &edge->user, err);
    if (ret == 0) {
        list_append(&child->parents, &edge->link);
        node->edge_count++;
    }
    return ret;
}

struct block_node *block_edge_drop(struct block_node *node)
{
    struct block_edge *edge = &node->edges[--node->edge_count];
    struct block_node *child = edge->user.node;

    list_remove(&edge->link);
    block_detach(&edge->user);
    return child;
}

static void co_release_child(struct block_node *child)
{
    if (!child->by_user && list_is_empty(&child->users)) {
        co_block_close(child);
    }
}

static int co_edge_open(struct block_node *node,
                        const struct block_child_role *role,
                        const struct json_value *value,
                        GError **err)
{
    struct block_node *child;
    int ret;

    if (!names_child(value)) {
        if (!role->required) {
            return 0;
        }
        return error_set(err, -EINVAL,
                         "node '%s': driver '%s' needs the option '%s', a node "
                         "name or a node's options",
                         node->name, node->driver->name, role->name);
    }
    ret = co_child_get(node, role, value, &child, err);
    if (ret < 0) {
        return ret;
    }
    ret = block_edge_add(node, child, role, err);
    if (ret < 0) {
        co_release_child(child);
        return ret;
    }
    /* What is below cannot be written to: neither can this be. */
    node->read_only |= child->read_only && !role->read_only;
    return 0;
}

/* The children that the options name. */
static int co_given_open(struct block_node *node, GError **err)
{
    for (size_t i = 0; i < count_roles(node->driver); i++) {
        const struct block_child_role *role = &node->driver->children[i];
        int ret = co_edge_open(node, role,
                               json_dict_get(node->options, role->name), err);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* The file that a tree of options opens first; NULL: none is named. */
static const char *options_filename(const struct json_value *options)
{
    const struct json_value *below;

    while (json_dict_get(options, "filename") == NULL) {
        below = json_dict_get(options, "file");
        if (below == NULL || json_type_of(below) != JSON_DICT) {
            return NULL;
        }
        options = below;
    }
    return json_dict_string(options, "filename", NULL);
}

static const char *shown(const char *filename)
{
    return filename == NULL ? "(an image without a file)" : filename;
}

/* Does `child`, that the image of `node` names, lead back to an image that is
 * being opened, or too far? */
static int co_check_chain(const struct block_node *node,
                          const struct block_child_role *role,
                          const struct json_value *child,
                          GError **err)
{
    const char *filename = options_filename(child);
    const char *parents[BLOCK_DEPTH_MAX];
    size_t count = 0;

    for (const struct block_node *at = node; at != NULL; at = at->opened_for) {
        if (count == BLOCK_DEPTH_MAX) {
            return error_set(err, -ELOOP,
                             "'%s' is not opened as the %s of '%s': a chain "
                             "of more than %d images is not supported",
                             shown(filename), role->name,
                             shown(block_filename(node)), BLOCK_DEPTH_MAX);
        }
        parents[count++] = block_filename(at);
    }
    if (filename != NULL && co_block_file_is_among(filename, parents, count)) {
        return error_set(err, -ELOOP,
                         "'%s' is not opened as the %s of '%s': it lies on "
                         "that image itself, so the chain has no end",
                         filename, role->name, shown(block_filename(node)));
    }
    return 0;
}

static int co_discovered_open(struct block_node *node,
                              const struct block_child_role *role,
                              const struct json_value *child,
                              GError **err)
{
    g_autoptr(GPtrArray) named = g_ptr_array_new();
    int ret = block_refs_collect(node->graph, child, 0, named, err);

    if (ret == 0 && named->len > 0) {
        ret = error_set(err, -EINVAL,
                        "'%s' names a node of this daemon, '%s', in its %s, "
                        "which an image cannot",
                        shown(block_filename(node)),
                        block_name(g_ptr_array_index(named, 0)), role->name);
    }
    if (ret == 0) {
        ret = co_check_chain(node, role, child, err);
    }
    return ret < 0 ? ret : co_edge_open(node, role, child, err);
}

/* The children that the image names, where the options do not say. */
static int co_discover(struct block_node *node, GError **err)
{
    g_autoptr(json_value) found = NULL;
    int ret;

    co_move(node->home);
    ret = node->driver->co_discover(node, &found, err);
    co_move(node->graph->main);
    for (size_t i = 0; ret == 0 && i < count_roles(node->driver); i++) {
        const struct block_child_role *role = &node->driver->children[i];
        const struct json_value *child = json_dict_get(found, role->name);

        if (child != NULL && !block_child_is_given(node, role->name)) {
            ret = co_discovered_open(node, role, child, err);
        }
    }
    if (ret < 0 && node->opened_for == NULL) {
        g_prefix_error(err, "node '%s': ", node->name);
    }
    return ret;
}

int co_block_edges_open(struct block_node *node, GError **err)
{
    int ret;

    /* The links are embedded, so the array must not move later. */
    node->edges = g_new0(struct block_edge, count_roles(node->driver));
    ret = co_given_open(node, err);
    if (ret == 0 && node->driver->co_discover != NULL) {
        ret = co_discover(node, err);
    }
    return ret;
}

void co_block_edges_release(struct block_node *node)
{
    while (node->edge_count > 0) {
        co_release_child(block_edge_drop(node));
    }
    g_free(node->edges);
    node->edges = NULL;
}

/* Does a write to the parent get to the child? */
static bool passes_writes(const struct block_edge *edge)
{
    return !edge->role->read_only;
}

/* Marks in the node's own path where its writes can get to. */
static void mark_written(struct block_node *node)
{
    g_free(node->path_written);
    node->path_written = g_new0(bool, node->path_count);
    node->path_written[0] = true;
    for (size_t i = 0; i < node->edge_count; i++) {
        const struct block_edge *edge = &node->edges[i];
        const struct block_node *child = edge->user.node;

        for (size_t k = 0; passes_writes(edge) && k < child->path_count; k++) {
            for (size_t m = 0; child->path_written[k] && m < node->path_count;
                 m++) {
                node->path_written[m] |= node->path[m] == child->path[k];
            }
        }
    }
}

static gint deeper_first(gconstpointer a, gconstpointer b)
{
    const struct block_node *const *left = a;
    const struct block_node *const *right = b;

    return (gint)(*right)->depth - (gint)(*left)->depth;
}

void block_path_build(struct block_node *node)
{
    GPtrArray *path = g_ptr_array_new();

    node->depth = 0;
    g_ptr_array_add(path, node);
    for (size_t i = 0; i < node->edge_count; i++) {
        const struct block_node *child = node->edges[i].user.node;

        node->depth = MAX(node->depth, child->depth + 1);
        for (size_t k = 0; k < child->path_count; k++) {
            if (!g_ptr_array_find(path, child->path[k], NULL)) {
                g_ptr_array_add(path, child->path[k]);
            }
        }
    }
    g_ptr_array_sort(path, deeper_first);
    g_free(node->path);
    node->path_count = path->len;
    node->path = (struct block_node **)(void *)g_ptr_array_free(path, FALSE);
    mark_written(node);
}
