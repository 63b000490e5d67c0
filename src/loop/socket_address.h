/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Socket addresses as QAPI spells them, and listening on them.
 *
 * Types `inet` (host, port as a string; to, ipv4, ipv6, keep-alive, numeric),
 * `unix` (path; abstract, tight), `fd` (str: a descriptor number). The schema
 * has no others (vsock), so they are refused with its sentence.
 *
 * An address is one socket. An empty host is every address of this machine,
 * over IPv6 and IPv4; of a host that has both kinds of address, an IPv4 one is
 * taken, unless `ipv4` and `ipv6` say otherwise.
 *
 * The co_ functions are for coroutines: what blocks is done elsewhere. The
 * others see nothing of the loop: any thread.
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
 * listens on is refused as in use. Port "0" and a range up to `to` take the first
 * free one. A passed descriptor is duplicated: it stays the caller's, for the
 * next time. Blocks as long as a name takes to look up, or as another process
 * holds a lock on the socket's directory. */
int socket_listen(const struct json_value *address, GError **err);
int co_socket_listen(const struct json_value *address, GError **err);

/* Closes a listening socket and removes its UNIX path, unless somebody else
 * listens there by now. Blocks as the above. */
void socket_close_listener(int fd);
void co_socket_close_listener(int fd);

/* A person's form of an address: "unix:/run/x", "127.0.0.1:10809" (the port
 * really bound). Owned by the caller. */
char *socket_describe_listener(int fd);

#endif
