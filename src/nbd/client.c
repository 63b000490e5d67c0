/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: a client negotiates on the main thread, claims an export, and
 * its connection starts on the home of the export's node. When the node gets
 * another home all of the export's connections stop on the old one and start
 * again on the new. When a connection is over, home tells main, and the client
 * is gone.
 *
 * A client that fails to negotiate is dropped without further ado; it was told
 * what could be told. Dropping one that is connected shuts its socket: that
 * ends every wait on it, whichever thread waits.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd/export_priv.h"
#include "nbd/protocol.h"

static void free_client(struct nbd_client *client)
{
    struct nbd_server *server = client->server;

    list_remove(&client->link);
    server->client_count--;
    if (client->connection) {
        nbd_connection_free(client->connection);
    } else {
        close(client->fd);
    }
    nbd_export_unref(client->export);
    g_free(client);
    co_queue_wake_all(&server->room);
    co_queue_wake_all(&server->list->changed);
}

/* On main: the connection is over. */
static void connection_gone(struct loop_message *message)
{
    struct nbd_client *client = LIST_ENTRY(message, struct nbd_client, gone);

    pthread_mutex_lock(&client->export->lock);
    list_remove(&client->export_link);
    pthread_mutex_unlock(&client->export->lock);
    free_client(client);
}

/* On the home, at the end of the connection's coroutine. */
static void connection_stopped(void *opaque)
{
    struct nbd_client *client = opaque;
    struct nbd_export *export = client->export;
    bool over = nbd_connection_is_over(client->connection);

    pthread_mutex_lock(&export->lock);
    client->running = false;
    pthread_mutex_unlock(&export->lock);
    co_queue_wake_all(&export->stopped);
    if (over) {
        loop_post(block_graph_main(export->list->graph), &client->gone);
    }
}

/* With the lock held. */
static void start_connection(struct nbd_export *export,
                             struct nbd_client *client)
{
    client->running = true;
    co_spawn(export->home, nbd_connection_run, client->connection);
}

static void connect_client(struct nbd_client *client,
                           const struct nbd_agreement *agreement)
{
    struct nbd_export *export = client->export;
    struct nbd_connection_options options = {
        .fd = client->fd,
        .node = export->node,
        .size_bytes = export->offer.size_bytes,
        .writable = !(export->offer.flags & NBD_FLAG_READ_ONLY),
        .writethrough = export->writethrough,
        .agreement = *agreement,
        .stopped = connection_stopped,
        .opaque = client,
    };

    client->connection = nbd_connection_new(&options);
    if (export->shutting_down || client->server->stopping) {
        nbd_connection_drop(client->connection);
    }
    pthread_mutex_lock(&export->lock);
    list_append(&export->clients, &client->export_link);
    if (export->home) {
        start_connection(export, client);
    }
    pthread_mutex_unlock(&export->lock);
}

static bool any_running(struct nbd_export *export)
{
    bool running = false;

    pthread_mutex_lock(&export->lock);
    LIST_FOREACH(link, &export->clients) {
        running |= LIST_ENTRY(link, struct nbd_client, export_link)->running;
    }
    pthread_mutex_unlock(&export->lock);
    return running;
}

int co_nbd_clients_quiesce(struct block_user *user, uint64_t deadline_ns)
{
    struct nbd_export *export = LIST_ENTRY(user, struct nbd_export, user);

    pthread_mutex_lock(&export->lock);
    export->home = NULL;
    LIST_FOREACH(link, &export->clients) {
        struct nbd_client *client =
            LIST_ENTRY(link, struct nbd_client, export_link);

        if (client->running) {
            nbd_connection_quiesce(client->connection);
        }
    }
    pthread_mutex_unlock(&export->lock);
    while (any_running(export)) {
        if (!co_queue_wait_until(&export->stopped, deadline_ns) &&
            any_running(export)) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

void nbd_clients_resume(struct block_user *user)
{
    struct nbd_export *export = LIST_ENTRY(user, struct nbd_export, user);

    pthread_mutex_lock(&export->lock);
    export->home = loop_current();
    LIST_FOREACH(link, &export->clients) {
        struct nbd_client *client =
            LIST_ENTRY(link, struct nbd_client, export_link);

        if (nbd_connection_is_over(client->connection)) {
            continue;
        }
        nbd_connection_resume(client->connection);
        if (!client->running) { /* else it did not come to rest in time */
            start_connection(export, client);
        }
    }
    pthread_mutex_unlock(&export->lock);
}

void nbd_clients_follow(struct block_user *user)
{
    struct nbd_export *export = LIST_ENTRY(user, struct nbd_export, user);

    export->node = user->node;
    pthread_mutex_lock(&export->lock);
    LIST_FOREACH(link, &export->clients) {
        const struct nbd_client *client =
            LIST_ENTRY(link, struct nbd_client, export_link);

        nbd_connection_set_node(client->connection, export->node);
    }
    pthread_mutex_unlock(&export->lock);
}

static struct nbd_export *export_of(const struct nbd_offer *offer)
{
    /* Offers are handed out as constants; the export behind is ours. */
    return (struct nbd_export *)((uintptr_t)offer -
                                 offsetof(struct nbd_export, offer));
}

static const struct nbd_offer *next_offer(void *opaque,
                                          const struct nbd_offer *after)
{
    struct nbd_client *client = opaque;
    struct list *exports = &client->server->list->exports;
    struct list *link = after ? export_of(after)->link.next : exports->next;

    for (; link != exports; link = link->next) {
        struct nbd_export *export = LIST_ENTRY(link, struct nbd_export, link);

        if (!export->shutting_down) {
            return &export->offer;
        }
    }
    return NULL;
}

static const struct nbd_offer *find_offer(void *opaque, const char *name)
{
    const struct nbd_offer *offer = NULL;

    while ((offer = next_offer(opaque, offer))) {
        if (g_str_equal(offer->name, name)) {
            break;
        }
    }
    return offer;
}

static void claim_offer(void *opaque, const struct nbd_offer *offer)
{
    struct nbd_client *client = opaque;

    g_assert(!client->export);
    client->export = export_of(offer);
    client->export->references++;
}

static void co_client_run(void *opaque)
{
    struct nbd_client *client = opaque;
    uint64_t limit_ns = client->server->handshake_ns;
    struct nbd_catalog catalog = { .opaque = client,
                                   .find = find_offer,
                                   .next = next_offer,
                                   .claim = claim_offer };
    struct nbd_agreement agreement;
    int ret = co_nbd_negotiate(
        client->fd, limit_ns > 0 ? loop_now_ns() + limit_ns : UINT64_MAX,
        &catalog, &agreement);

    if (ret < 0) {
        free_client(client);
    } else {
        connect_client(client, &agreement);
    }
}

void nbd_client_start(struct nbd_server *server, int fd)
{
    struct nbd_client *client = g_new0(struct nbd_client, 1);

    client->server = server;
    client->fd = fd;
    client->gone.run = connection_gone;
    list_init(&client->export_link);
    list_append(&server->clients, &client->link);
    server->client_count++;
    co_spawn(loop_current(), co_client_run, client);
}

void nbd_client_drop(struct nbd_client *client)
{
    /* Fails when the peer has closed already: as good. */
    (void)shutdown(client->fd, SHUT_RDWR);
}
