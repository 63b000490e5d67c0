/* SPDX-License-Identifier: BSD-3-Clause */
/* What others may ask a node, and what its driver may tell it. */
#include "block/node.h"

#include <string.h>

#include "block/node_priv.h"

const char *block_name(const struct block_node *node)
{
    return node->name;
}

const struct block_driver *block_driver_of(const struct block_node *node)
{
    return node->driver;
}

bool block_is_read_only(const struct block_node *node)
{
    return node->read_only;
}

struct block_graph *block_graph_of(const struct block_node *node)
{
    return node->graph;
}

/* Atomic, so that the main thread may ask at any time, too. */
uint64_t block_size(const struct block_node *node)
{
    return __atomic_load_n(&node->size_bytes, __ATOMIC_RELAXED);
}

void block_set_size(struct block_node *node, uint64_t size_bytes)
{
    __atomic_store_n(&node->size_bytes, size_bytes, __ATOMIC_RELAXED);
}

struct loop *block_home(const struct block_node *node)
{
    return node->home;
}

struct block_node *block_child(const struct block_node *node, const char *role)
{
    for (size_t i = 0; i < node->edge_count; i++) {
        if (strcmp(node->edges[i].role->name, role) == 0) {
            return node->edges[i].user.node;
        }
    }
    return NULL;
}

const char *block_filename(const struct block_node *node)
{
    while (node->filename == NULL && node->edge_count > 0) {
        node = node->edges[0].user.node;
    }
    return node->filename;
}

void block_set_filename(struct block_node *node, const char *filename)
{
    g_free(node->filename);
    node->filename = g_strdup(filename);
}

bool block_child_is_given(const struct block_node *node, const char *role)
{
    return json_dict_get(node->options, role) != NULL;
}

bool block_is_named_by_user(const struct block_node *node)
{
    return node->by_user;
}

const struct json_value *block_tracking_options(const struct block_node *node)
{
    return node->tracking;
}

bool block_ignores_flushes(const struct block_node *node)
{
    for (size_t i = 0; i < node->path_count; i++) {
        if (node->path_written[i] && node->path[i]->common.no_flush) {
            return true;
        }
    }
    return false;
}

bool block_is_top(const struct block_node *node)
{
    return list_is_empty(&node->parents);
}

bool block_lies_on(const struct block_node *node,
                   const struct block_node *below)
{
    for (size_t i = 0; i < node->path_count; i++) {
        if (node->path[i] == below) {
            return true;
        }
    }
    return false;
}

const struct block_node *block_find_written(const struct block_node *node,
                                            const struct block_node *by)
{
    for (size_t i = 0; i < by->path_count; i++) {
        if (by->path_written[i] && !by->path[i]->read_only &&
            block_lies_on(node, by->path[i])) {
            return by->path[i];
        }
    }
    return NULL;
}

const struct block_limits *block_limits(const struct block_node *node)
{
    return &node->limits;
}

void block_set_limits(struct block_node *node,
                      const struct block_limits *limits)
{
    node->limits = *limits;
}

void block_set_state(struct block_node *node, void *state)
{
    node->state = state;
}

void *block_state(const struct block_node *node)
{
    return node->state;
}

void block_set_read_error(struct block_node *node, int error)
{
    node->read_error = error;
}

void block_set_read_only(struct block_node *node)
{
    node->read_only = true;
}
