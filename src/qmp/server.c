/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Happy path: a monitor accepts a client, a session serves it (session.c), and
 * each request takes its turn at `turn`, the lock that makes one command run at
 * a time in the whole process, first come first served over all sessions.
 *
 * Failures: a client beyond LIMIT_QMP_SESSIONS is told so and closed. When no
 * connection can be accepted for want of descriptors the monitor waits a moment
 * rather than spin.
 */
#include "qmp/server.h"

#include <errno.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"
#include "loop/co_lock.h"
#include "loop/io.h"
#include "loop/socket_address.h"
#include "qmp/dispatch.h"
#include "qmp/session.h"

#define SECOND_NS         UINT64_C(1000000000)
#define CLOSE_DEADLINE_NS SECOND_NS
#define ACCEPT_RETRY_NS   (SECOND_NS / 10)

struct monitor {
    struct list link;
    struct qmp_server *server;
    int fd;
    bool pretty;
    struct io_canceller canceller;
};

struct qmp_server {
    struct qmp_session_owner owner;
    struct engine *engine;
    struct list monitors;
    struct list sessions;
    unsigned int session_count;
    unsigned int accepting;  /* monitors whose coroutine still runs */
    bool closing;            /* accepts nobody */
    bool quiesced;           /* starts no command */
    struct co_mutex turn;    /* held while a command runs */
    struct co_queue changed; /* a session or an accepting coroutine ended */
};

static struct json_value *co_server_answer(struct qmp_session_owner *owner,
                                           struct qmp_session *session,
                                           const struct json_value *request)
{
    struct qmp_server *server = LIST_ENTRY(owner, struct qmp_server, owner);
    struct json_value *reply = NULL;

    co_mutex_lock(&server->turn);
    if (server->quiesced) {
        g_autoptr(GError) err = NULL;

        error_set(&err, -ESHUTDOWN, "the daemon is shutting down");
        reply = qmp_error_reply(err);
    } else if (!qmp_session_is_gone(session)) {
        reply = co_qmp_dispatch(qmp_all_commands, server->engine,
                                qmp_session_mode(session), request);
    }
    co_mutex_unlock(&server->turn);
    return reply;
}

static void server_session_ended(struct qmp_session_owner *owner,
                                 struct qmp_session *session)
{
    struct qmp_server *server = LIST_ENTRY(owner, struct qmp_server, owner);

    list_remove(qmp_session_link(session));
    server->session_count--;
    co_queue_wake_all(&server->changed);
}

struct qmp_server *qmp_server_new(struct engine *engine)
{
    struct qmp_server *server = g_new0(struct qmp_server, 1);

    server->owner.co_answer = co_server_answer;
    server->owner.ended = server_session_ended;
    server->engine = engine;
    list_init(&server->monitors);
    list_init(&server->sessions);
    co_mutex_init(&server->turn);
    co_queue_init(&server->changed);
    return server;
}

void qmp_server_free(struct qmp_server *server)
{
    if (server == NULL) {
        return;
    }
    g_assert(list_is_empty(&server->monitors));
    g_assert(list_is_empty(&server->sessions));
    g_free(server);
}

/* Tells a client that there is no room for it. A fresh socket takes a line
 * without waiting; if it does not, the client sees the end of the stream. */
static void co_refuse_client(struct monitor *monitor, int fd)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) reply = NULL;
    GString *text = g_string_new(NULL);
    struct iovec iov;

    error_set(&err, -EMFILE,
              "%d clients are connected to this daemon already, which is the "
              "most",
              LIMIT_QMP_SESSIONS);
    reply = qmp_error_reply(err);
    json_write(reply, monitor->pretty, text);
    g_string_append(text, "\r\n");
    iov = (struct iovec){ .iov_base = text->str, .iov_len = text->len };
    (void)co_send_all(fd, &iov, 1, &monitor->canceller); /* gone: as well */
    g_string_free(text, TRUE);
    close(fd);
}

static void co_serve_client(struct monitor *monitor, int fd)
{
    struct qmp_server *server = monitor->server;
    struct qmp_session *session;

    if (server->session_count >= LIMIT_QMP_SESSIONS) {
        co_refuse_client(monitor, fd);
        return;
    }
    session = qmp_session_start(&server->owner, monitor, fd, monitor->pretty);
    list_append(&server->sessions, qmp_session_link(session));
    server->session_count++;
}

static void co_accept_clients(void *opaque)
{
    struct monitor *monitor = opaque;
    struct qmp_server *server = monitor->server;

    while (!server->closing) {
        int fd = co_accept(monitor->fd, &monitor->canceller);

        if (fd >= 0) {
            co_serve_client(monitor, fd);
        } else if (fd != -ECANCELED) {
            co_sleep_until(loop_now_ns() + ACCEPT_RETRY_NS);
        }
    }
    server->accepting--;
    co_queue_wake_all(&server->changed);
}

void qmp_server_listen(struct qmp_server *server, int fd, bool pretty)
{
    struct monitor *monitor = g_new0(struct monitor, 1);

    monitor->server = server;
    monitor->fd = fd;
    monitor->pretty = pretty;
    io_canceller_init(&monitor->canceller);
    list_append(&server->monitors, &monitor->link);
    server->accepting++;
    co_spawn(server->engine->main, co_accept_clients, monitor);
}

unsigned int qmp_server_clients(const struct qmp_server *server, int fd)
{
    unsigned int count = 0;

    LIST_FOREACH(link, &server->sessions) {
        const struct monitor *monitor =
            qmp_session_monitor(qmp_session_of_link(link));

        count += monitor->fd == fd;
    }
    return count;
}

static struct json_value *event_new(const char *name, struct json_value *data)
{
    struct json_value *event = json_dict_new();
    struct json_value *timestamp = json_dict_new();
    uint64_t now_us = loop_wall_clock_us();

    json_dict_set_uint(timestamp, "seconds", now_us / 1000000);
    json_dict_set_uint(timestamp, "microseconds", now_us % 1000000);
    json_dict_set(event, "timestamp", timestamp);
    json_dict_set_string(event, "event", name);
    if (data != NULL) {
        json_dict_set(event, "data", data);
    }
    return event;
}

void qmp_server_event(void *opaque, const char *name, struct json_value *data)
{
    struct qmp_server *server = opaque;
    g_autoptr(json_value) event = event_new(name, data);

    LIST_FOREACH(link, &server->sessions) {
        struct qmp_session *session = qmp_session_of_link(link);

        if (*qmp_session_mode(session) == QMP_MODE_COMMAND) {
            qmp_session_send(session, event);
        }
    }
}

void co_qmp_server_quiesce(struct qmp_server *server)
{
    co_mutex_lock(&server->turn);
    server->quiesced = true;
    co_mutex_unlock(&server->turn);
}

static void end_sessions(struct qmp_server *server,
                         void (*end)(struct qmp_session *session))
{
    LIST_FOREACH_SAFE(link, &server->sessions) {
        end(qmp_session_of_link(link));
    }
}

void co_qmp_server_close(struct qmp_server *server)
{
    uint64_t deadline_ns = loop_now_ns() + CLOSE_DEADLINE_NS;

    server->closing = true;
    LIST_FOREACH(link, &server->monitors) {
        io_cancel(&LIST_ENTRY(link, struct monitor, link)->canceller);
    }
    while (server->accepting > 0) {
        co_queue_wait(&server->changed);
    }
    end_sessions(server, qmp_session_finish);
    while (!list_is_empty(&server->sessions)) {
        if (!co_queue_wait_until(&server->changed, deadline_ns)) {
            end_sessions(server, qmp_session_drop);
            deadline_ns = UINT64_MAX;
        }
    }
    for (struct list *link; (link = list_take_first(&server->monitors));) {
        struct monitor *monitor = LIST_ENTRY(link, struct monitor, link);

        co_socket_close_listener(monitor->fd);
        g_free(monitor);
    }
}
