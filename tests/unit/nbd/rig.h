/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of the NBD server stand on: two loop threads, a node whose
 * content is memory and which can be made to wait or fail, and a client that
 * says exactly the bytes it is told to.
 *
 * Everything is called from the test's own thread. Whatever waits gives up
 * after ten seconds and fails the test.
 */
#ifndef TESTS_NBD_RIG_H
#define TESTS_NBD_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/node.h"
#include "nbd/export.h"
#include "nbd/negotiate.h"

#define RIG_DISK_BYTES ((size_t)1024 * 1024 + 100) /* not of whole sectors */

struct rig;

struct rig *rig_new(void);
/* Stops the server, deletes the node, ends the threads. */
void rig_free(struct rig *rig);

/* Runs `call(opaque)` in a coroutine on the main loop and returns its result
 * when it is done. */
int rig_run(struct rig *rig, int (*co_call)(void *opaque), void *opaque);

/* The node `disk` and its content. Look at it when no request is under way. */
struct block_node *rig_node(struct rig *rig);
uint8_t *rig_content(struct rig *rig);
unsigned int rig_flushes(struct rig *rig);

/* How the disk behaves from now on. */
enum rig_mood {
    RIG_QUICK, /* answers without waiting */
    RIG_SLOW,  /* every request needs a coroutine */
    RIG_HUNG,  /* ... and waits until the mood changes */
    RIG_BROKEN /* every request fails with EIO */
};

void rig_set_mood(struct rig *rig, enum rig_mood mood);
/* Waits until `count` requests hang. */
void rig_wait_for_hung(struct rig *rig, unsigned int count);

/* The export list, with its server on rig_socket() once started. */
struct export_list *rig_exports(struct rig *rig);
const char *rig_socket(struct rig *rig);
void rig_start_server(struct rig *rig, uint32_t connections_max);
/* Export `id` of the node, with that name. */
int rig_export(struct rig *rig, const char *id, bool writable, GError **err);
int rig_delete(struct rig *rig, const char *id, bool hard, GError **err);
/* Waits for that many BLOCK_EXPORT_DELETED since the rig began. */
void rig_wait_for_deleted(struct rig *rig, unsigned int count);
/* Moves the node to the other of the two threads. */
void rig_move(struct rig *rig);

/* The client: a connected socket whose transfers time out. */
int client_connect(struct rig *rig);
void client_send(int fd, const void *bytes, size_t count);
void client_receive(int fd, void *bytes, size_t count);
/* The stream has ended (or was reset). */
void client_expect_end(int fd);

/* Negotiation, piece by piece. */
void client_greet(int fd, uint32_t flags);
void client_option(int fd, uint32_t option, const void *data, uint32_t bytes);
/* Reads an option reply: its type; its data goes to `data` (at most 1024
 * bytes), the count to `ret_bytes` (may be NULL). */
uint32_t client_reply(int fd, uint32_t option, void *data, size_t *ret_bytes);
/* Into transmission with export `name`; structured replies and
 * base:allocation if `structured`. */
int client_open(struct rig *rig, const char *name, bool structured);

/* Transmission. */
struct client_request {
    uint16_t flags;
    uint16_t type;
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
};

void client_request(int fd, const struct client_request *request);
/* A simple reply's error; checks magic and cookie. */
uint32_t client_simple(int fd, uint64_t cookie);
/* A structured chunk's header: type; payload size to `ret_bytes`. Checks magic,
 * cookie and that it is the last. */
uint16_t client_chunk(int fd, uint64_t cookie, uint32_t *ret_bytes);

#endif
