/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * QMP sessions: framing, negotiation, dispatch, replies and events.
 *
 * Main thread. Several monitors may listen, and each serves several clients at
 * once; one dispatcher runs the commands of all, one at a time.
 */
#ifndef QMP_SERVER_H
#define QMP_SERVER_H

#include "base/json.h"
#include "qmp/engine.h"

struct qmp_server *qmp_server_new(struct engine *engine);
/* After co_qmp_server_close(). */
void qmp_server_free(struct qmp_server *server);

/* Serves clients on `fd`, a listening socket (taken over: it is closed, and its
 * UNIX path removed, by co_qmp_server_close()). */
void qmp_server_listen(struct qmp_server *server, int fd, bool pretty);
/* Stops listening; sends what is queued (for a second at most) and drops every
 * client. */
void co_qmp_server_close(struct qmp_server *server);
/* How many clients are connected to the monitor that listens on `fd`. */
unsigned int qmp_server_clients(const struct qmp_server *server, int fd);

/* Sends an event to every session in command mode. `data` is consumed; NULL:
 * none. The signature fits job_list_new() and export_list_new(). */
void qmp_server_event(void *server, const char *name, struct json_value *data);

/* Waits until no command is running; none is started after that: requests are
 * answered with an error, since the daemon is about to end. */
void co_qmp_server_quiesce(struct qmp_server *server);

#endif
