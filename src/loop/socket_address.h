/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Socket addresses as QAPI spells them, and listening on them.
 *
 * Types `inet` (host, port as a string; to, ipv4, ipv6, keep-alive, numeric),
 * `unix` (path; abstract, tight), `fd` (str: a descriptor number). What a build does not serve (vsock) is
 * refused with a sentence.
 */
#ifndef LOOP_SOCKET_ADDRESS_H
#define LOOP_SOCKET_ADDRESS_H

#include "base/json.h"
#include "base/schema.h"

/* Flat SocketAddress and the {type, data} form of nbd-server-start. */
extern const struct schema_type socket_address_type;
extern const struct schema_type socket_address_legacy_type;

/* A listening socket, non-blocking and close-on-exec: its descriptor, or a
 * negative errno with err set. `address` is checked, in either form (borrowed).
 * A UNIX path that a dead process left behind is taken over; one that somebody
 * listens on is refused as in use. Blocks shortly. */
int socket_listen(const struct json_value *address, GError **err);

/* Closes a listening socket and removes its UNIX path, if that is still ours. */
void socket_close_listener(int fd);

/* A person's form of an address: "unix:/run/x", "127.0.0.1:10809" (the port
 * really bound). Owned by the caller. */
char *socket_describe_listener(int fd);

#endif
