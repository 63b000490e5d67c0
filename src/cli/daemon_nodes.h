/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's block nodes and their dirty bitmaps, as it tells them.
 * One thread; blocking.
 */
#ifndef CLI_DAEMON_NODES_H
#define CLI_DAEMON_NODES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/qmp_client.h"
#include "repo/manifest.h"

/* What a bitmap is a difference to: `{txid, disk}` as in a manifest. */
#define DAEMON_BASES_MAX 2

struct daemon_bitmap {
    char *name;
    uint64_t dirty_bytes;
    uint64_t granularity; /* bytes */
    bool is_recording;
    bool is_busy;
    bool is_inconsistent;
    bool is_persistent;
    char *reason; /* why it is inconsistent; NULL: not told */
    struct manifest_base bases[DAEMON_BASES_MAX]; /* unused ones are none */
    uint64_t recovered_bytes; /* marked after a crash, to be safe */
    bool is_recovered;        /* the daemon had crashed */
};

struct daemon_node {
    char *name;
    uint64_t size; /* bytes */
    bool is_read_only;
    GPtrArray *bitmaps; /* struct daemon_bitmap *, named ones; owned */
};

/* All named nodes (struct daemon_node *), owned by the caller. */
int daemon_nodes_query(struct qmp_client *client,
                       GPtrArray **ret_nodes,
                       GError **err);

/* Borrowed; NULL when there is none. */
struct daemon_node *daemon_nodes_find(const GPtrArray *nodes, const char *name);
struct daemon_bitmap *daemon_node_bitmap(const struct daemon_node *node,
                                         const char *name);

/* Is the bitmap a difference to the backup that left this base? */
bool daemon_bitmap_has_base(const struct daemon_bitmap *bitmap,
                            const struct manifest_base *base);

/* The names of the nodes that are disks of guests: those that query-block
 * lists, and those that are exported; writable, not ours (`own_prefix`),
 * sorted. A list of owned strings. */
int daemon_nodes_discover(struct qmp_client *client,
                          const GPtrArray *nodes,
                          const char *own_prefix,
                          GPtrArray **ret_names,
                          GError **err);

#endif
