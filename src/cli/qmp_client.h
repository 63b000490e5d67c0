/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A blocking QMP client: one connection, one command at a time.
 *
 *     qmp_client_connect() ... qmp_command() ... qmp_client_close()
 *
 * Events that arrive meanwhile are kept until qmp_client_take_event(). Errors:
 * -EREMOTEIO the daemon refused the command (its own words are the sentence),
 * -EPIPE the connection was lost, -ETIMEDOUT no answer in time, -ECANCELED a
 * signal came. After -EPIPE every call fails with it; after the others the
 * connection can be used on: a late answer is recognised by its id and dropped.
 *
 * One thread.
 */
#ifndef CLI_QMP_CLIENT_H
#define CLI_QMP_CLIENT_H

#include <glib.h>
#include <jansson.h>

#include "cli/interrupt.h"

/* The typedef exists for g_autoptr(qmp_client_auto) only. */
typedef struct qmp_client qmp_client_auto;
struct qmp_client;

/* `address`: a path, "unix:PATH", "HOST:PORT", "tcp:HOST:PORT". Reads the
 * greeting and negotiates. -ECONNREFUSED, with a sentence, if that fails. */
int qmp_client_connect(const char *address,
                       unsigned timeout_ms,
                       struct interrupt *interrupt,
                       struct qmp_client **ret_client,
                       GError **err);
void qmp_client_close(struct qmp_client *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(qmp_client_auto, qmp_client_close)

/* Signals are no longer heeded from here on (clean-up). */
void qmp_client_ignore_interrupt(struct qmp_client *client);

/* "cohortd 0.1.0": who answered; borrowed. */
const char *qmp_client_peer(const struct qmp_client *client);

/* Sends `name` with `arguments` (consumed, NULL: none) and waits for the
 * answer. `*ret_value` (may be NULL) is owned by the caller. */
int qmp_command(struct qmp_client *client,
                const char *name,
                json_t *arguments,
                json_t **ret_value,
                GError **err);
/* As qmp_command(), with its own limit on the wait for the answer. */
int qmp_command_within(struct qmp_client *client,
                       unsigned timeout_ms,
                       const char *name,
                       json_t *arguments,
                       json_t **ret_value,
                       GError **err);

/* The oldest event not taken yet, owned by the caller; NULL: none. */
json_t *qmp_client_take_event(struct qmp_client *client);

/* Waits until something has arrived, or `timeout_ms` have passed: 0 both. */
int qmp_client_wait(struct qmp_client *client,
                    unsigned timeout_ms,
                    GError **err);

#endif
