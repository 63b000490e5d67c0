/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A client in transmission: its requests, their replies.
 *
 * A connection runs as a coroutine on its node's home thread. It can be stopped
 * there between any two bytes and go on on another home: what was received and
 * not yet executed, and what was answered and not yet sent, goes along.
 *
 * Its life: nbd_connection_new(), then nbd_connection_run() in a coroutine on
 * the home. When that coroutine ends it calls `stopped`, with
 * nbd_connection_is_over() telling whether there is anything left to go on
 * with. Then, on any thread, nbd_connection_free().
 */
#ifndef NBD_CONNECTION_H
#define NBD_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "block/node.h"
#include "nbd/negotiate.h"

struct nbd_connection;

struct nbd_connection_options {
    int fd;                  /* consumed; non-blocking, negotiated */
    struct block_node *node; /* borrowed; attached with WRITE if writable */
    uint64_t size_bytes;     /* as the client was told */
    bool writable;
    bool writethrough; /* every write is durable when it is answered */
    struct nbd_agreement agreement;
    /* The coroutine has ended and touches nothing any more. On the home. */
    void (*stopped)(void *opaque);
    void *opaque;
};

/* Any thread. */
struct nbd_connection *nbd_connection_new(
    const struct nbd_connection_options *options);
/* Closes the socket. NULL is fine. */
void nbd_connection_free(struct nbd_connection *connection);

/* Serves the client until it is quiesced or over; a coroutine_fn. */
void nbd_connection_run(void *connection);

/* Home thread: makes nbd_connection_run() end soon, when all requests under way
 * are answered, and keep what is left for the next run. */
void nbd_connection_quiesce(struct nbd_connection *connection);
/* When stopped, on the new home's thread: nbd_connection_run() may be called
 * again. When not stopped yet, on its home: it will not stop but go on. */
void nbd_connection_resume(struct nbd_connection *connection);

/* Another node of the same home has taken the place of the connection's: what
 * is executed from now on goes there. Any thread. */
void nbd_connection_set_node(struct nbd_connection *connection,
                             struct block_node *node);

/* Home thread, or when stopped: nothing is left to be done for this client. */
bool nbd_connection_is_over(const struct nbd_connection *connection);

/* Drops the client at once; requests under way end on their own. Any thread,
 * any time before nbd_connection_free(). */
void nbd_connection_drop(struct nbd_connection *connection);

#endif
