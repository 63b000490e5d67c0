/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * SIGINT, SIGTERM and SIGHUP as something to wait for and to ask about, never
 * as something that breaks in: from interrupt_begin() on they are blocked and
 * read from a descriptor. SIGPIPE is blocked too, so that a backup outlives the
 * reader of its progress.
 *
 * Main thread, before any other thread or child.
 */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <glib.h>
#include <signal.h>
#include <stdbool.h>

struct interrupt {
    int fd;          /* readable when a signal is there */
    int signal;      /* the one that came; 0: none */
    sigset_t before; /* what was blocked before: for children */
};

int interrupt_begin(struct interrupt *interrupt, GError **err);
void interrupt_end(struct interrupt *interrupt);

/* Has one come? Stays true. */
bool interrupt_came(struct interrupt *interrupt);

#endif
