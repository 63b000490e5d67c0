/* SPDX-License-Identifier: BSD-3-Clause */
/* What negotiate.c and handshake_options.c share: one handshake, and its reply to come. */
#ifndef NBD_NEGOTIATE_PRIV_H
#define NBD_NEGOTIATE_PRIV_H

#include <glib.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "nbd/negotiate.h"

/* What one option may carry: a name, and queries of a few contexts. */
#define OPTION_DATA_BYTES_MAX (64 * KIB)

_Static_assert(OPTION_DATA_BYTES_MAX > 2 * LIMIT_NBD_NAME_BYTES,
               "a name and a query fit");

/* What answering an option returns, apart from negative errnos, which end the
 * connection. */
#define OPTION_ANSWERED 0 /* the reply is to be sent */
#define OPTION_FINISHED 1 /* ... is sent: transmission begins */

struct handshake {
    int fd;
    uint64_t deadline_ns;
    const struct nbd_catalog *catalog;
    struct nbd_agreement agreement;
    char *context_export; /* owned; whose contexts are selected */
    bool no_zeroes;       /* NBD_HANDSHAKE_NO_ZEROES */
    GByteArray *reply;    /* owned; not sent yet */
    uint32_t option;      /* being answered ... */
    uint32_t bytes;       /* ... and its data */
    uint8_t data[OPTION_DATA_BYTES_MAX];
};

/* negotiate.c */
int co_handshake_send(struct handshake *handshake);

/* handshake_options.c: how an option is answered, once its data is in `data`. */
struct option_answer {
    uint32_t option;
    int (*co_answer)(struct handshake *handshake);
};
/* NULL: nobody knows that option. */
const struct option_answer *option_answer_find(uint32_t option);
/* Appends an error reply with its sentence. Returns OPTION_ANSWERED. */
int option_refuse(struct handshake *handshake,
                  uint32_t type,
                  const char *sentence);

#endif
