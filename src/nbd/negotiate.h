/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The handshake of one NBD client: fixed newstyle negotiation.
 *
 * Knows nothing of exports but what a catalog tells, so that it can be tested
 * and fuzzed with bytes alone.
 */
#ifndef NBD_NEGOTIATE_H
#define NBD_NEGOTIATE_H

#include <stdbool.h>
#include <stdint.h>

/* What a client may learn of an export. */
struct nbd_offer {
    const char *name;
    const char *description; /* NULL: none */
    uint64_t size_bytes;
    uint16_t flags; /* enum nbd_transmission_flags, without SEND_DF */
};

/* The exports on offer. Offers are borrowed until the next yield. */
struct nbd_catalog {
    void *opaque;
    /* NULL: there is none of that name. "" asks for a default export. */
    const struct nbd_offer *(*find)(void *opaque, const char *name);
    /* Walks all: NULL to begin, NULL at the end. */
    const struct nbd_offer *(*next)(void *opaque,
                                    const struct nbd_offer *after);
    /* The client takes this one: keep it until the connection is over. Called
     * at most once, before the client is told. */
    void (*claim)(void *opaque, const struct nbd_offer *offer);
};

/* What was agreed on. */
struct nbd_agreement {
    bool structured; /* structured replies */
    bool allocation; /* the context base:allocation is selected */
};

/*
 * Negotiates on `fd`, a non-blocking socket. 0: the client is in transmission
 * and the next byte is a request's. Else a negative errno, and the connection
 * is to be closed: -ECONNRESET the client left, -ETIMEDOUT `deadline_ns`
 * (monotonic; UINT64_MAX: none) passed, -EPROTO it broke the protocol.
 */
int co_nbd_negotiate(int fd,
                     uint64_t deadline_ns,
                     const struct nbd_catalog *catalog,
                     struct nbd_agreement *ret_agreement);

#endif
