/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: receive, execute all that came, send all replies with one
 * call, wait for more. While the loop has nothing else to do it polls the
 * socket for a short time; a request that is found then is executed right
 * there, without waking this coroutine.
 *
 * The connection ends when the client says goodbye, goes away or breaks the
 * protocol: what is under way is finished and, if the socket still takes it,
 * answered. When it is quiesced the coroutine ends, too, with everything kept
 * for the next run.
 */
#include "nbd/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nbd/connection_priv.h"

/* A socket that was polled so often in vain is left to the kernel: with many
 * idle clients polling would cost more than a wake-up. */
#define POLL_MISSES_MAX 256

/* A client that always has more to say lets others run after so many batches:
 * a batch takes a fraction of a millisecond. */
#define BATCHES_MAX 4

static bool poll_socket(struct loop_poller *poller);

struct nbd_connection *nbd_connection_new(
    const struct nbd_connection_options *options)
{
    struct nbd_connection *connection = g_new0(struct nbd_connection, 1);

    connection->options = *options;
    connection->received = g_malloc(RECEIVE_BYTES);
    connection->arena = g_malloc(ARENA_BYTES);
    connection->poller.poll = poll_socket;
    list_init(&connection->replies);
    list_init(&connection->round);
    list_init(&connection->idle);
    co_queue_init(&connection->room);
    nbd_connection_resume(connection);
    for (size_t i = 0; i < G_N_ELEMENTS(connection->requests); i++) {
        struct nbd_request *request = &connection->requests[i];

        request->connection = connection;
        list_append(&connection->idle, &request->link);
    }
    return connection;
}

void nbd_connection_free(struct nbd_connection *connection)
{
    if (!connection) {
        return;
    }
    g_assert(connection->in_flight == 0 && !connection->sending);
    for (size_t i = 0; i < G_N_ELEMENTS(connection->requests); i++) {
        free(connection->requests[i].buffer);
    }
    close(connection->options.fd);
    g_free(connection->received);
    g_free(connection->arena);
    g_free(connection);
}

bool nbd_connection_is_over(const struct nbd_connection *connection)
{
    return connection->over;
}

void nbd_connection_drop(struct nbd_connection *connection)
{
    /* Fails when the peer has closed already: as good. */
    (void)shutdown(connection->options.fd, SHUT_RDWR);
}

void nbd_connection_set_node(struct nbd_connection *connection,
                             struct block_node *node)
{
    __atomic_store_n(&connection->options.node, node, __ATOMIC_RELEASE);
}

void nbd_connection_quiesce(struct nbd_connection *connection)
{
    connection->quiescing = true;
    io_cancel(&connection->receive_canceller);
    io_cancel(&connection->send_canceller);
    co_queue_wake_all(&connection->room);
}

void nbd_connection_resume(struct nbd_connection *connection)
{
    connection->quiescing = false;
    io_canceller_init(&connection->receive_canceller);
    io_canceller_init(&connection->send_canceller);
    co_queue_wake_all(&connection->room);
}

static void stop_polling(struct nbd_connection *connection)
{
    if (connection->polling) {
        loop_poller_remove(&connection->poller);
        connection->polling = false;
    }
}

static void start_polling(struct nbd_connection *connection)
{
    if (!connection->polling) {
        connection->polling = true;
        connection->poll_misses = 0;
        loop_poller_add(&connection->poller);
    }
}

/* Input has come, or the end of it. */
static void take_input(struct nbd_connection *connection, ssize_t received)
{
    connection->poll_misses = 0;
    if (received == 0) {
        connection->ending = true;
    } else if (received < 0) {
        nbd_break(connection);
    }
}

/* From the spinning loop, while the coroutine waits for input. */
static bool poll_socket(struct loop_poller *poller)
{
    struct nbd_connection *connection =
        LIST_ENTRY(poller, struct nbd_connection, poller);
    ssize_t n;

    if (!connection->waiting_for_input ||
        connection->poll_misses > POLL_MISSES_MAX) {
        return false;
    }
    n = nbd_receive(connection);
    if (n == -EAGAIN) {
        connection->poll_misses++;
        return false;
    }
    take_input(connection, n);
    if (n <= 0 || nbd_execute(connection) != NBD_NEED_INPUT ||
        !nbd_send_now(connection) || connection->ending) {
        connection->waiting_for_input = false;
        io_cancel(&connection->receive_canceller);
    }
    return true;
}

static void co_wait_for_input(struct nbd_connection *connection)
{
    /* A client that sends one request at a time has nothing more to say yet. */
    ssize_t n = connection->executed == 1 ? -EAGAIN : nbd_receive(connection);
    int ret;

    if (n != -EAGAIN) {
        take_input(connection, n);
        return;
    }
    connection->batches = 0;
    connection->executed = 0;
    start_polling(connection);
    connection->waiting_for_input = true;
    ret =
        co_poll(connection->options.fd, POLLIN, &connection->receive_canceller);
    connection->waiting_for_input = false;
    if (ret == -ECANCELED && !connection->quiescing) {
        io_canceller_init(&connection->receive_canceller);
    }
    if (connection->poll_misses > POLL_MISSES_MAX) {
        stop_polling(connection);
    }
}

/* Sends what is there, if anything is and nobody else does. */
static void co_send_output(struct nbd_connection *connection)
{
    if (!nbd_send_now(connection)) {
        connection->sending = true;
        co_nbd_send(connection);
    }
}

/* One step of a connection that goes on. */
static void co_serve(struct nbd_connection *connection)
{
    if (++connection->batches > BATCHES_MAX) {
        connection->batches = 0;
        co_reschedule();
    }
    switch (nbd_execute(connection)) {
    case NBD_NEED_INPUT:
        co_send_output(connection);
        if (!connection->quiescing && !connection->ending) {
            co_wait_for_input(connection);
        }
        break;
    case NBD_NEED_ROOM:
        if (nbd_has_output(connection) && !connection->sending) {
            co_send_output(connection);
        } else {
            co_queue_wait(&connection->room);
        }
        break;
    case NBD_NEED_END: connection->ending = true; break;
    }
}

/* One step towards the end: finish, answer, be over. */
static void co_wind_up(struct nbd_connection *connection)
{
    if (nbd_has_output(connection) && !connection->sending) {
        co_send_output(connection);
    } else if (connection->in_flight > 0 || connection->sending) {
        co_queue_wait(&connection->room);
    } else {
        connection->over = true;
        nbd_connection_drop(connection);
    }
}

void nbd_connection_run(void *opaque)
{
    struct nbd_connection *connection = opaque;

    while (!connection->over) {
        if (connection->quiescing) {
            if (connection->in_flight == 0 && !connection->sending) {
                break;
            }
            co_queue_wait(&connection->room);
        } else if (connection->ending) {
            co_wind_up(connection);
        } else {
            co_serve(connection);
        }
    }
    stop_polling(connection);
    connection->options.stopped(connection->options.opaque);
}
