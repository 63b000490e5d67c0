/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon keeps beyond its life: its state directory and the coordinator of
 * durable transactions there. Both touch no disk until something needs them.
 *
 * Main thread.
 */
#ifndef DAEMON_STATE_H
#define DAEMON_STATE_H

#include "journal/outcome_source.h"
#include "journal/tracking.h"
#include "qmp/engine.h"

struct daemon_state {
    char *directory; /* NULL: there is no place for it */
    struct coordinator *coordinator;
    struct outcome_source outcomes; /* for trackers */
    struct tracking tracking;
};

/* `option` NULL: the place follows from the environment. `defaults`: of nodes that
 * say nothing else (copied); the log of transactions is kept likewise. `event` as
 * the coordinator's. */
void daemon_state_init(struct daemon_state *state,
                       const char *option,
                       const struct tracking_settings *defaults,
                       struct loop *main,
                       coordinator_event_fn event,
                       void *opaque);
/* Jobs and nodes are gone. */
void co_daemon_state_close(struct daemon_state *state);

#endif
