/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The graph: names, adding, deleting, walking.
 *
 * Adding finds the home first (that of the nodes it builds on, else the next
 * loop in turn), then opens children, then the node itself on its home thread.
 * A node that is being opened holds its name but cannot be found. On failure
 * whatever was opened is closed again, children after parents.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "block/node_priv.h"
#include "loop/coroutine.h"

struct block_graph *block_graph_new(struct loop *main,
                                    const struct block_driver *const *drivers)
{
    struct block_graph *graph = g_new0(struct block_graph, 1);

    graph->main = main;
    graph->drivers = drivers;
    graph->loops = g_ptr_array_new();
    list_init(&graph->nodes);
    co_mutex_init(&graph->lock);
    return graph;
}

void block_graph_free(struct block_graph *graph)
{
    if (graph == NULL) {
        return;
    }
    g_assert(list_is_empty(&graph->nodes));
    g_ptr_array_free(graph->loops, TRUE);
    g_free(graph);
}

void block_graph_set_watcher(struct block_graph *graph,
                             struct block_watcher *watcher)
{
    graph->watcher = watcher;
}

void block_graph_add_loop(struct block_graph *graph, struct loop *loop)
{
    g_ptr_array_add(graph->loops, loop);
}

int block_graph_remove_loop(struct block_graph *graph,
                            struct loop *loop,
                            GError **err)
{
    LIST_FOREACH(link, &graph->nodes) {
        const struct block_node *node =
            LIST_ENTRY(link, struct block_node, link);

        if (node->home == loop) {
            return error_set(err, -EBUSY, "thread '%s' is in use by node '%s'",
                             loop_name(loop), node->name);
        }
    }
    g_ptr_array_remove(graph->loops, loop);
    return 0;
}

struct loop *block_graph_main(const struct block_graph *graph)
{
    return graph->main;
}

struct loop *block_graph_find_loop(const struct block_graph *graph,
                                   const char *name,
                                   GError **err)
{
    for (guint i = 0; i < graph->loops->len; i++) {
        struct loop *loop = g_ptr_array_index(graph->loops, i);

        if (strcmp(loop_name(loop), name) == 0) {
            return loop;
        }
    }
    error_set(err, -ENOENT, "there is no iothread named '%s'", name);
    return NULL;
}

struct loop *block_graph_choose_loop(struct block_graph *graph)
{
    if (graph->loops->len == 0) {
        return graph->main;
    }
    return g_ptr_array_index(graph->loops,
                             graph->next_loop++ % graph->loops->len);
}

void co_block_graph_lock(struct block_graph *graph)
{
    co_mutex_lock(&graph->lock);
}

void block_graph_unlock(struct block_graph *graph)
{
    co_mutex_unlock(&graph->lock);
}

void block_graph_add_drivers(struct block_graph *graph,
                             const struct block_driver *const *drivers)
{
    graph->more_drivers = drivers;
}

static const struct block_driver *find_driver(
    const struct block_driver *const *drivers,
    const char *name)
{
    while (drivers != NULL && *drivers != NULL) {
        if (strcmp((*drivers)->name, name) == 0) {
            return *drivers;
        }
        drivers++;
    }
    return NULL;
}

const struct block_driver *block_driver_find(const struct block_graph *graph,
                                             const char *name)
{
    const struct block_driver *driver = find_driver(graph->drivers, name);

    return driver != NULL ? driver : find_driver(graph->more_drivers, name);
}

bool block_name_is_legal(const char *name)
{
    if (!g_ascii_isalpha(name[0])) {
        return false;
    }
    for (const char *at = name; *at != 0; at++) {
        if (!g_ascii_isalnum(*at) && strchr("-._", *at) == NULL) {
            return false;
        }
    }
    return true;
}

/* Also nodes that are being opened or deleted: their name is taken. */
static struct block_node *find_any(struct block_graph *graph, const char *name)
{
    LIST_FOREACH(link, &graph->nodes) {
        struct block_node *node = LIST_ENTRY(link, struct block_node, link);

        if (strcmp(node->name, name) == 0) {
            return node;
        }
    }
    return NULL;
}

struct block_node *block_find(struct block_graph *graph,
                              const char *name,
                              GError **err)
{
    struct block_node *node = find_any(graph, name);

    if (node == NULL || node->opening || node->deleting) {
        error_set(err, -ENOENT, "there is no node named '%s'", name);
        return NULL;
    }
    return node;
}

struct block_node *block_next(struct block_graph *graph,
                              struct block_node *node)
{
    struct list *link = node == NULL ? &graph->nodes : &node->link;

    while ((link = link->next) != &graph->nodes) {
        struct block_node *next = LIST_ENTRY(link, struct block_node, link);

        if (!next->opening && !next->deleting) {
            return next;
        }
    }
    return NULL;
}

/* The name for a new node: its own, or a generated one. Owned by the caller. */
static char *choose_name(struct block_graph *graph,
                         const char *wanted,
                         GError **err)
{
    char *name = NULL;

    if (wanted == NULL) {
        do {
            g_free(name);
            name = g_strdup_printf("#block%03u", graph->names_generated++);
        } while (find_any(graph, name) != NULL);
        return name;
    }
    if (!block_name_is_legal(wanted) ||
        strlen(wanted) > LIMIT_NODE_NAME_BYTES) {
        error_set(err, -EINVAL,
                  "'%s' cannot be a node name: a letter, then letters, digits, "
                  "'-', '.' and '_', %d characters at most",
                  wanted, LIMIT_NODE_NAME_BYTES);
        return NULL;
    }
    if (find_any(graph, wanted) != NULL) {
        error_set(err, -EEXIST, "a node named '%s' exists already", wanted);
        return NULL;
    }
    return g_strdup(wanted);
}

static void node_free(struct block_node *node)
{
    list_remove(&node->link);
    json_free(node->tracking);
    g_free(node->path);
    g_free(node->path_written);
    g_free(node->filename);
    g_free(node->name);
    g_free(node);
}

static struct block_node *node_new(struct block_graph *graph,
                                   const struct block_driver *driver,
                                   char **name,
                                   struct loop *home,
                                   const struct block_common *common)
{
    struct block_node *node = g_new0(struct block_node, 1);

    node->graph = graph;
    node->driver = driver;
    node->name = g_steal_pointer(name);
    node->home = home;
    node->common = *common;
    node->read_only = common->read_only;
    node->opening = true;
    node->limits.request_alignment_bytes = 1;
    list_init(&node->users);
    list_init(&node->parents);
    list_init(&node->hooks);
    co_queue_init(&node->visits);
    block_gate_init(&node->gate);
    range_lock_init(&node->ranges);
    co_queue_init(&node->readers.ended);
    list_prepend(&graph->nodes, &node->link);
    return node;
}

static int check_opened(const struct block_node *node, GError **err)
{
    uint32_t alignment = node->limits.request_alignment_bytes;
    uint64_t size_bytes = block_size(node);

    g_assert(is_power_of_two(alignment));
    if (size_bytes > LIMIT_DISK_BYTES) {
        return error_set(err, -EFBIG,
                         "node '%s': a size of %" G_GUINT64_FORMAT
                         " bytes is more than the 4 EiB supported",
                         node->name, size_bytes);
    }
    if (size_bytes % alignment != 0) {
        return error_set(err, -EINVAL,
                         "node '%s': its size of %" G_GUINT64_FORMAT
                         " bytes is no multiple of the %u bytes in which it "
                         "must be accessed; use cache.direct=off",
                         node->name, size_bytes, alignment);
    }
    return 0;
}

static int co_open_driver(struct block_node *node,
                          const struct json_value *options,
                          GError **err)
{
    int ret;

    co_move(node->home);
    ret = node->driver->co_open(node, options, err);
    if (ret == 0) {
        ret = check_opened(node, err);
        if (ret < 0 && node->driver->co_close != NULL) {
            node->driver->co_close(node);
        }
    }
    co_move(node->graph->main);
    return ret;
}

static void co_close_driver(struct block_node *node)
{
    struct loop *main = node->graph->main;

    co_move(node->home);
    block_hooks_release(node);
    if (node->driver->co_close != NULL) {
        node->driver->co_close(node);
    }
    co_move(main);
}

static int co_tell_opened(struct block_node *node, GError **err)
{
    struct block_watcher *watcher = node->graph->watcher;
    int ret = watcher == NULL ? 0 : watcher->co_opened(watcher, node, err);

    if (ret < 0) {
        co_close_driver(node);
    }
    return ret;
}

int co_block_open(struct block_graph *graph,
                  const struct json_value *options,
                  struct loop *home,
                  const struct block_node *opened_for,
                  struct block_node **ret_node,
                  GError **err)
{
    const char *driver_name = json_dict_string(options, "driver", "");
    const struct block_driver *driver = block_driver_find(graph, driver_name);
    g_autofree char *name = NULL;
    struct block_common common;
    struct block_node *node;
    int ret;

    if (driver == NULL) {
        return error_set(err, -EINVAL, "there is no block driver named '%s'",
                         driver_name);
    }
    ret = block_common_parse(&common, options, err);
    if (ret < 0) {
        return ret;
    }
    name =
        choose_name(graph, json_dict_string(options, "node-name", NULL), err);
    if (name == NULL) {
        return -EINVAL;
    }
    node = node_new(graph, driver, &name, home, &common);
    node->by_user = opened_for == NULL;
    if (json_dict_get(options, "x-cohort-tracking") != NULL) {
        node->tracking = json_copy(json_dict_get(options, "x-cohort-tracking"));
    }
    node->opened_for = opened_for;
    node->options = options;
    ret = co_block_edges_open(node, err);
    if (ret == 0) {
        block_path_build(node);
        ret = node->depth > BLOCK_DEPTH_MAX ? block_error_too_deep(err) : 0;
    }
    if (ret == 0) {
        ret = co_open_driver(node, options, err);
    }
    if (ret == 0) {
        ret = co_tell_opened(node, err);
    }
    if (ret < 0) {
        co_block_edges_release(node);
        node_free(node);
        return ret;
    }
    node->opening = false;
    node->opened_for = NULL;
    node->options = NULL;
    /* It is newer than the children that were opened for it. */
    list_remove(&node->link);
    list_prepend(&graph->nodes, &node->link);
    *ret_node = node;
    return 0;
}

/* Finds the home of a new tree; brings together what it builds on. */
static int co_choose_home(struct block_graph *graph,
                          const struct json_value *options,
                          struct loop **ret_home,
                          GError **err)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    int ret = block_refs_collect(graph, options, 0, nodes, err);

    for (guint i = 1; ret == 0 && i < nodes->len; i++) {
        ret = co_block_join(g_ptr_array_index(nodes, 0),
                            g_ptr_array_index(nodes, i), err);
    }
    if (ret < 0) {
        return ret;
    }
    *ret_home = nodes->len > 0 ? block_home(g_ptr_array_index(nodes, 0))
                               : block_graph_choose_loop(graph);
    return 0;
}

int co_block_add(struct block_graph *graph,
                 const struct json_value *options,
                 bool needs_name,
                 struct block_node **ret_node,
                 GError **err)
{
    struct block_node *node;
    struct loop *home;
    int ret;

    g_assert(loop_current() == graph->main);
    if (needs_name && json_dict_string(options, "node-name", NULL) == NULL) {
        return error_set(err, -EINVAL,
                         "the option 'node-name' is missing: a node added by "
                         "itself needs a name");
    }
    ret = co_choose_home(graph, options, &home, err);
    if (ret == 0) {
        ret = co_block_open(graph, options, home, NULL, &node, err);
    }
    if (ret == 0 && ret_node != NULL) {
        *ret_node = node;
    }
    return ret;
}

static int co_close(struct block_node *node, bool may_stay, GError **err)
{
    struct block_watcher *watcher = node->graph->watcher;
    int ret = 0;

    node->deleting = true;
    while (node->visitors + node->visitors_waiting > 0) {
        co_queue_wait(&node->visits);
    }
    if (watcher != NULL) {
        ret = watcher->co_closing(watcher, node, may_stay, err);
    }
    if (ret < 0 && may_stay) {
        node->deleting = false;
        return ret;
    }
    co_close_driver(node);
    co_block_edges_release(node);
    node_free(node);
    return 0;
}

void co_block_close(struct block_node *node)
{
    (void)co_close(node, false, NULL); /* cannot fail */
}

const char *block_closing(const struct block_graph *graph)
{
    LIST_FOREACH(link, &graph->nodes) {
        const struct block_node *node =
            LIST_ENTRY(link, struct block_node, link);

        if (node->deleting) {
            return node->name;
        }
    }
    return NULL;
}

int co_block_del(struct block_graph *graph, const char *name, GError **err)
{
    struct block_node *node = block_find(graph, name, err);

    if (node == NULL) {
        return -ENOENT;
    }
    if (!list_is_empty(&node->users)) {
        const struct block_user *user =
            LIST_ENTRY(node->users.next, struct block_user, link);

        return error_set(err, -EBUSY, "node '%s' is in use by %s '%s'", name,
                         user->kind, user->id);
    }
    if (!node->by_user) {
        return error_set(err, -EPERM,
                         "node '%s' was not added by itself and goes with the "
                         "node it was opened for",
                         name);
    }
    return co_close(node, true, err);
}

/* Whoever needs durability flushes; this is for guests that were not asked.
 * Only at the very end, when nobody has to wait for a disk that hangs. */
static void co_flush_last(struct block_node *node)
{
    struct loop *main = node->graph->main;
    int ret;

    co_move(node->home);
    ret = co_block_child_flush(node);
    co_move(main);
    if (ret < 0) {
        g_warning("Node '%s' could not be flushed when it was closed, and what "
                  "was written to it last may be lost: %s",
                  node->name, g_strerror(-ret));
    }
}

void co_block_del_all(struct block_graph *graph)
{
    struct list *link = graph->nodes.next;

    while (link != &graph->nodes) {
        struct block_node *node = LIST_ENTRY(link, struct block_node, link);

        if (node->deleting || node->opening || !list_is_empty(&node->users)) {
            link = link->next;
            continue;
        }
        node->deleting = true;
        co_flush_last(node);
        co_block_close(node);
        link = graph->nodes.next;
    }
}
