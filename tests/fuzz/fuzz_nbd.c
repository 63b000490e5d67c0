/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Everything one NBD client may send, from its first byte to its last, to a
 * server of one export ("a", on a null disk of a mebibyte). Promises:
 * - the connection ends when the client has said all it had to say;
 * - nothing is left over: no request in flight, no descriptor, no memory.
 */
#include <glib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/node.h"
#include "drivers/drivers.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/io.h"
#include "loop/loop.h"
#include "nbd/connection.h"
#include "nbd/negotiate.h"
#include "nbd/protocol.h"

#include "target.h"

#define DISK_BYTES (1024 * 1024)

struct session {
    struct loop *loop;
    struct block_graph *graph;
    struct block_node *node;
    struct nbd_offer offer;
    bool claimed;
    int server;
    int client;
    const uint8_t *data;
    size_t size;
    bool said;  /* the client has sent all it has ... */
    bool heard; /* ... and the server has closed */
    struct co_queue changed;
};

static const struct nbd_offer *find(void *opaque, const char *name)
{
    struct session *session = opaque;

    return g_str_equal(name, "a") ? &session->offer : NULL;
}

static const struct nbd_offer *next(void *opaque, const struct nbd_offer *after)
{
    struct session *session = opaque;

    return after ? NULL : &session->offer;
}

static void claim(void *opaque, const struct nbd_offer *offer)
{
    struct session *session = opaque;

    g_assert(offer == &session->offer && !session->claimed);
    session->claimed = true;
}

static void stopped(void *opaque)
{
    (void)opaque; /* nbd_connection_run() was called, not spawned */
}

static void co_talk(void *opaque)
{
    struct session *session = opaque;
    struct iovec iov = { .iov_base = (void *)(uintptr_t)session->data,
                         .iov_len = session->size };

    /* The server may have hung up already. */
    (void)co_send_all(session->client, &iov, 1, NULL);
    shutdown(session->client, SHUT_WR);
    session->said = true;
    co_queue_wake_all(&session->changed);
}

static void co_listen(void *opaque)
{
    static uint8_t scratch[65536];
    struct session *session = opaque;

    while (co_recv(session->client, scratch, sizeof(scratch), NULL) > 0) {
    }
    session->heard = true;
    co_queue_wake_all(&session->changed);
}

static void co_serve(struct session *session)
{
    struct nbd_catalog catalog = {
        .opaque = session, .find = find, .next = next, .claim = claim
    };
    struct nbd_connection_options options = { .fd = session->server,
                                              .node = session->node,
                                              .size_bytes = DISK_BYTES,
                                              .writable = session->size % 2,
                                              .stopped = stopped };
    struct nbd_connection *connection;

    if (co_nbd_negotiate(session->server, UINT64_MAX, &catalog,
                         &options.agreement) < 0) {
        close(session->server);
        return;
    }
    g_assert(session->claimed);
    connection = nbd_connection_new(&options);
    nbd_connection_run(connection);
    g_assert(nbd_connection_is_over(connection));
    nbd_connection_free(connection);
}

static void co_session(void *opaque)
{
    struct session *session = opaque;
    g_autoptr(json_value) options = json_dict_new();
    int fds[2];

    session->graph = block_graph_new(session->loop, block_drivers);
    json_dict_set_string(options, "driver", "null-co");
    json_dict_set_string(options, "node-name", "a");
    json_dict_set_uint(options, "size", DISK_BYTES);
    g_assert(
        co_block_add(session->graph, options, true, &session->node, NULL) == 0);
    g_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    session->server = fds[0];
    session->client = fds[1];
    co_enter(co_talk, session);
    co_enter(co_listen, session);
    co_serve(session);
    while (!session->said || !session->heard) {
        co_queue_wait(&session->changed);
    }
    close(session->client);
    co_block_del_all(session->graph);
    block_graph_free(session->graph);
    loop_stop(session->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct session session = {
        .loop = loop_new(&loop_uring_backend, "fuzz", NULL),
        .offer = { .name = "a",
                   .size_bytes = DISK_BYTES,
                   .flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH },
        .data = data,
        .size = size,
    };

    g_assert(session.loop != NULL);
    co_queue_init(&session.changed);
    co_spawn(session.loop, co_session, &session);
    loop_run(session.loop);
    loop_free(session.loop);
    return 0;
}
