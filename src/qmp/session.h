/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One client of a monitor.
 *
 *     qmp_session_start()  greeting, then requests are read, run and answered
 *     qmp_session_send()   replies and events, queued and sent in order
 *     qmp_session_finish() send what is queued, then end
 *     qmp_session_drop()   end at once
 *
 * A session frees itself when its coroutines have ended, and tells its owner.
 * Main thread.
 */
#ifndef QMP_SESSION_H
#define QMP_SESSION_H

#include "base/json.h"
#include "base/list.h"
#include "qmp/dispatch.h"

struct qmp_session;

/* What a session needs of its server. */
struct qmp_session_owner {
    /* Answers one request: a new value; waits for its turn. NULL: it was not
     * started, since the session ended first. */
    struct json_value *(*co_answer)(struct qmp_session_owner *owner,
                                    struct qmp_session *session,
                                    const struct json_value *request);
    /* The last word about a session; it is freed on return. */
    void (*ended)(struct qmp_session_owner *owner, struct qmp_session *session);
};

/* Serves the connected socket `fd` (taken over). `monitor` is the owner's. */
struct qmp_session *qmp_session_start(struct qmp_session_owner *owner,
                                      void *monitor,
                                      int fd,
                                      bool pretty);
void *qmp_session_monitor(const struct qmp_session *session);
/* The owner's link. */
struct list *qmp_session_link(struct qmp_session *session);
struct qmp_session *qmp_session_of_link(struct list *link);

enum qmp_mode *qmp_session_mode(struct qmp_session *session);
bool qmp_session_is_gone(const struct qmp_session *session);

/* Queues a value for the client (borrowed). */
void qmp_session_send(struct qmp_session *session,
                      const struct json_value *value);
void qmp_session_finish(struct qmp_session *session);
void qmp_session_drop(struct qmp_session *session);

#endif
