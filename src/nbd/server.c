/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: listen, accept, hand each client on.
 *
 * At the limit of clients no more are accepted until one leaves; they wait in
 * the socket's backlog. When the process is short of descriptors accepting
 * pauses and tries again. Stopping ends the accepting, drops every client,
 * deletes every export and waits until all are gone. No client can hold that
 * up, but requests that hang in a disk can: after a while the caller is told
 * which, and what is left is waited for in the background.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/error.h"
#include "loop/socket_address.h"
#include "nbd/export_priv.h"

/* What a batch of replies may take up in the socket. */
#define SEND_BUFFER_BYTES (1024 * 1024)
#define ACCEPT_PAUSE_NS   UINT64_C(100000000)
#define SECOND_NS         UINT64_C(1000000000)
#define STOP_SECONDS      5

/* All of this only makes a connection faster; without it, it works. */
static void tune_socket(int fd)
{
    int one = 1;
    int bytes = SEND_BUFFER_BYTES;

    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    /* Refused on UNIX sockets, which never delay. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    /* A client whose machine died is noticed some day. */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

static bool is_full(const struct nbd_server *server)
{
    return server->connections_max > 0 &&
           server->client_count >= server->connections_max;
}

static void co_accept_clients(void *opaque)
{
    struct nbd_server *server = opaque;

    while (!server->stopping) {
        int fd;

        if (is_full(server)) {
            co_queue_wait(&server->room);
            continue;
        }
        fd = co_accept(server->listen_fd, &server->accepting_canceller);
        if (fd >= 0) {
            tune_socket(fd);
            nbd_client_start(server, fd);
        } else if (fd != -ECANCELED) {
            (void)co_queue_wait_until(&server->room,
                                      loop_now_ns() + ACCEPT_PAUSE_NS);
        }
    }
    co_socket_close_listener(server->listen_fd);
    server->accepting = false;
    co_queue_wake_all(&server->list->changed);
}

int co_nbd_server_start(struct export_list *list,
                        const struct json_value *options,
                        GError **err)
{
    struct nbd_server *server;
    int fd;

    if (list->server && list->server->stopping) {
        g_autofree char *left = export_list_describe(list);

        return error_set(err, -EBUSY, "The NBD server is still stopping: %s",
                         left ? left : "clients leave");
    }
    if (list->server) {
        return error_set(err, -EBUSY, "The NBD server is already running");
    }
    fd = co_socket_listen(json_dict_get(options, "addr"), err);
    if (fd < 0) {
        g_prefix_error(err, "Cannot start the NBD server: ");
        return fd;
    }
    server = g_new0(struct nbd_server, 1);
    server->list = list;
    server->listen_fd = fd;
    server->connections_max = (uint32_t)json_dict_uint(
        options, "max-connections", NBD_CONNECTIONS_MAX_DEFAULT);
    server->handshake_ns = json_dict_uint(options, "handshake-max-seconds",
                                          NBD_HANDSHAKE_SECONDS_DEFAULT) *
                           SECOND_NS;
    server->accepting = true;
    list_init(&server->clients);
    co_queue_init(&server->room);
    io_canceller_init(&server->accepting_canceller);
    list->server = server;
    co_spawn(loop_current(), co_accept_clients, server);
    return 0;
}

static bool is_stopped(const struct nbd_server *server)
{
    return list_is_empty(&server->list->exports) &&
           list_is_empty(&server->clients) && !server->accepting;
}

static void free_server(struct nbd_server *server)
{
    server->list->server = NULL;
    co_queue_wake_all(&server->list->changed);
    g_free(server);
}

/* Waits for a server that could not stop in time. Exports are reaped by who
 * lets go of them last. */
static void co_await_stop(void *opaque)
{
    struct nbd_server *server = opaque;

    while (!is_stopped(server)) {
        co_queue_wait(&server->list->changed);
    }
    free_server(server);
}

static void begin_stop(struct nbd_server *server)
{
    server->stopping = true;
    io_cancel(&server->accepting_canceller);
    co_queue_wake_all(&server->room);
    LIST_FOREACH(link, &server->clients) {
        nbd_client_drop(LIST_ENTRY(link, struct nbd_client, link));
    }
    LIST_FOREACH(link, &server->list->exports) {
        nbd_export_shut_down(LIST_ENTRY(link, struct nbd_export, link));
    }
}

int co_nbd_server_stop(struct export_list *list, GError **err)
{
    struct nbd_server *server = list->server;
    uint64_t deadline_ns = loop_now_ns() + STOP_SECONDS * SECOND_NS;
    g_autofree char *left = NULL;

    if (!server) {
        return error_set(err, -ENOTCONN, "The NBD server is not running");
    }
    if (server->stopping) {
        left = export_list_describe(list);
        return error_set(err, -EALREADY,
                         "The NBD server is stopping already: %s",
                         left ? left : "clients leave");
    }
    begin_stop(server);
    for (;;) {
        nbd_export_reap(list);
        if (is_stopped(server)) {
            free_server(server);
            return 0;
        }
        if (!co_queue_wait_until(&list->changed, deadline_ns)) {
            break;
        }
    }
    co_spawn(loop_current(), co_await_stop, server);
    left = export_list_describe(list);
    return error_set(err, -ETIMEDOUT,
                     "The NBD server takes no clients any more, but could not "
                     "stop within %d seconds; it will when these end: %s",
                     STOP_SECONDS, left ? left : "clients that leave");
}
