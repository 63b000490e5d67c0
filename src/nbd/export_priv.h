/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What export.c, client.c and server.c share: the list of exports, the server
 * and its clients. All of it belongs to the main thread, except what a comment
 * gives to the home thread of the export's node.
 *
 *     server ──> clients ──(negotiated)──> export ──> connections at home
 *
 * An export lives until it is deleted and its last client is gone; then it is
 * reaped: detached from its node and announced as deleted.
 */
#ifndef NBD_EXPORT_PRIV_H
#define NBD_EXPORT_PRIV_H

#include <pthread.h>

#include "base/list.h"
#include "loop/co_lock.h"
#include "loop/io.h"
#include "nbd/connection.h"
#include "nbd/export.h"
#include "nbd/negotiate.h"

struct nbd_server;

struct export_list {
    struct block_graph *graph;
    void (*event)(void *opaque, const char *name, struct json_value *data);
    void *opaque;
    struct list exports;       /* in the order added */
    struct nbd_server *server; /* NULL: none is running */
    struct co_queue changed;   /* an export, a client or the listener is gone */
    bool reaping;              /* a coroutine is on its way to reap */
};

struct nbd_export {
    struct list link; /* the list's */
    struct export_list *list;
    char *id;
    char *name;
    char *description; /* NULL: none */
    struct nbd_offer offer;
    struct block_node *node;
    struct block_user user;
    bool writethrough;
    bool shutting_down;
    unsigned int references; /* 1 until deleted, and 1 per client */

    /* Orders the main thread's starting of connections with the home thread's
     * stopping and resuming of all. Never held across a yield, and not taken by
     * requests. (Not GLib's mutex: thread sanitizers do not see through it.) */
    pthread_mutex_t lock;
    struct list clients;     /* under lock; changed by the main thread */
    struct loop *home;       /* under lock; NULL while quiesced */
    struct co_queue stopped; /* home's: a connection has stopped */
};

/* A connected client, from accept to its end. */
struct nbd_client {
    struct list link;        /* the server's */
    struct list export_link; /* the export's */
    struct nbd_server *server;
    struct nbd_export *export;         /* shared reference; NULL: none yet */
    struct nbd_connection *connection; /* NULL while it negotiates */
    int fd;       /* owned while it negotiates, then the connection's */
    bool running; /* under the export's lock: its coroutine is alive */
    struct loop_message gone; /* home tells main */
};

struct nbd_server {
    struct export_list *list;
    int listen_fd;            /* owned by the accepting coroutine */
    uint32_t connections_max; /* 0: no limit */
    uint64_t handshake_ns;    /* 0: no limit */
    struct list clients;
    unsigned int client_count;
    struct co_queue room; /* there may be room for another client */
    struct io_canceller accepting_canceller;
    bool accepting; /* that coroutine is alive */
    bool stopping;  /* for good; freed when all above are gone */
};

/* export.c: gives back a client's reference; NULL is fine. */
void nbd_export_unref(struct nbd_export *export);
/* Begins the end: no new clients, those connected are dropped. */
void nbd_export_shut_down(struct nbd_export *export);
/* Ends exports that nobody refers to any more. With the graph locked, or while
 * no command can run. */
void nbd_export_reap(struct export_list *list);

/* client.c: a new client on `fd` (consumed); negotiates and serves it. */
void nbd_client_start(struct nbd_server *server, int fd);
/* Drops it at once. It is gone some time later. */
void nbd_client_drop(struct nbd_client *client);
/* The export's struct block_user callbacks. */
int co_nbd_clients_quiesce(struct block_user *user, uint64_t deadline_ns);
void nbd_clients_resume(struct block_user *user);
void nbd_clients_follow(struct block_user *user);

/* Defaults of the server, as option_types.c tells them. */
#define NBD_CONNECTIONS_MAX_DEFAULT   100
#define NBD_HANDSHAKE_SECONDS_DEFAULT 10

#endif
