/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An NBD client that says exactly the bytes it is told to, and whose transfers
 * fail the test after ten seconds.
 */
#ifndef TESTS_NBD_CLIENT_H
#define TESTS_NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rig.h"

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
