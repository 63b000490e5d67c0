/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Exports: nodes offered to guests, over NBD.
 *
 * One NBD server per daemon (nbd-server-start or --nbd-server) serves all NBD
 * exports by name. Negotiation runs on the main thread; then a connection moves
 * to its export's home and stays with it.
 *
 * An export's size is its node's, to the byte (QEMU rounds up to 512). At most
 * 100 clients are connected at once unless max-connections says otherwise;
 * others wait until one leaves.
 *
 * Main thread. co_nbd_server_start(), co_nbd_server_stop() and co_export_add()
 * are called with the graph locked (co_block_graph_lock()).
 */
#ifndef NBD_EXPORT_H
#define NBD_EXPORT_H

#include "base/json.h"
#include "base/schema.h"
#include "block/node.h"

struct export_list;

/* BLOCK_EXPORT_DELETED goes out through `event` (`data` is consumed). */
struct export_list *export_list_new(struct block_graph *graph,
                                    void (*event)(void *opaque,
                                                  const char *name,
                                                  struct json_value *data),
                                    void *opaque);
void export_list_free(struct export_list *list); /* after co_export_shutdown */

/* `options` is checked against nbd_server_start_type or
 * nbd_server_options_type (borrowed): addr,
 * max-connections, handshake-max-seconds. */
int co_nbd_server_start(struct export_list *list,
                        const struct json_value *options,
                        GError **err);
/* Drops all clients, removes all exports, returns when that is done: clients
 * go at once, an export when the disk has let go of its last request. When a
 * disk does not within five seconds: -ETIMEDOUT, naming the exports that are
 * left; they and the server go when it does. */
int co_nbd_server_stop(struct export_list *list, GError **err);

/* `options` is checked against block_export_options_type (borrowed). */
int co_export_add(struct export_list *list,
                  const struct json_value *options,
                  GError **err);
/* `hard`: drop its clients; else refused while it has some. Returns before the
 * export is gone; the event tells. */
int export_delete(struct export_list *list,
                  const char *id,
                  bool hard,
                  GError **err);
/* query-block-exports: a new list. */
struct json_value *export_query(const struct export_list *list);

/* The exports that there are, for a person: "export 'a' of node 'x', ...", with
 * "requests of" before one that only waits for these. Owned by the caller; NULL:
 * none. */
char *export_list_describe(const struct export_list *list);

/* Stops the server, if any; every export is gone on return. When no command can
 * run any more; without the lock. */
void co_export_shutdown(struct export_list *list);

/* Arguments of nbd-server-start, and of block-export-add (a union by type). */
extern const struct schema_type nbd_server_start_type;
extern const struct schema_type block_export_options_type;
/* The flat form of --nbd-server. */
extern const struct schema_type nbd_server_options_type;

#endif
