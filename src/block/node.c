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

bool block_is_top(const struct block_node *node)
{
    return list_is_empty(&node->parents);
}

static bool lies_on(const struct block_node *node,
                    const struct block_node *below)
{
    for (size_t i = 0; i < node->path_count; i++) {
        if (node->path[i] == below) {
            return true;
        }
    }
    return false;
}

/* A set of the nodes that are changed when `node` is written to: those on its
 * path, but for what it only reads. */
static GHashTable *written_below(const struct block_node *node)
{
    GHashTable *written = g_hash_table_new(NULL, NULL);

    (void)g_hash_table_add(written, node->path[0]);
    for (size_t i = 0; i < node->path_count; i++) {
        const struct block_node *parent = node->path[i];

        if (!g_hash_table_contains(written, parent)) {
            continue;
        }
        for (size_t k = 0; k < parent->edge_count; k++) {
            if (!parent->edges[k].role->read_only) {
                (void)g_hash_table_add(written, parent->edges[k].user.node);
            }
        }
    }
    return written;
}

const struct block_node *block_find_common(const struct block_node *a,
                                           const struct block_node *b)
{
    g_autoptr(GHashTable) written = written_below(b);

    for (size_t i = 0; i < b->path_count; i++) {
        const struct block_node *node = b->path[i];

        if (!node->read_only && g_hash_table_contains(written, node) &&
            lies_on(a, node)) {
            return node;
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

void block_set_read_only(struct block_node *node)
{
    node->read_only = true;
}
