/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Three coroutines serve a client:
 *
 *     read   receives bytes, takes JSON values out of them and has each
 *            answered before it looks at the next: so replies come in the order
 *            of the requests, and a client that sends faster than we work fills
 *            its socket, not our memory.
 *     write  sends what replies and events have queued.
 *     watch  notices that the client has gone while its command runs.
 *
 * Ends: the client has sent its last byte (what it asked is still answered, then
 * the connection closes: `printf ... | socat` works); the client is gone, a
 * write failed or the client does not read and LIMIT_QMP_OUTPUT_BYTES pile up
 * (dropped: requests not started are forgotten, a started command runs to its
 * end and its reply goes nowhere); the daemon ends (finish).
 *
 * Whatever is no JSON is answered with an error, and reading goes on.
 */
#include "qmp/session.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/json_reader.h"
#include "base/limits.h"
#include "loop/co_lock.h"
#include "loop/io.h"
#include "qmp/version.h"

#define RECEIVE_BYTES 16384

struct qmp_session {
    struct list link; /* the owner's */
    struct qmp_session_owner *owner;
    void *monitor;
    int fd;
    bool pretty;
    enum qmp_mode mode;
    unsigned int coroutines; /* that still run; 0: freed */
    bool gone;               /* nothing is read, started or sent any more */
    bool finishing;          /* nothing is read; ends when all is sent */

    struct json_reader *reader;
    struct io_canceller read_canceller;
    struct io_canceller write_canceller;
    struct io_canceller watch_canceller;
    GString *output;       /* not handed to the socket yet */
    size_t sending;        /* bytes that the writer has in hand */
    struct co_queue write; /* the writer waits for output or the end */
};

void *qmp_session_monitor(const struct qmp_session *session)
{
    return session->monitor;
}

struct list *qmp_session_link(struct qmp_session *session)
{
    return &session->link;
}

struct qmp_session *qmp_session_of_link(struct list *link)
{
    return LIST_ENTRY(link, struct qmp_session, link);
}

enum qmp_mode *qmp_session_mode(struct qmp_session *session)
{
    return &session->mode;
}

bool qmp_session_is_gone(const struct qmp_session *session)
{
    return session->gone;
}

static void session_release(struct qmp_session *session)
{
    g_assert(session->coroutines > 0);
    session->coroutines--;
    if (session->coroutines > 0) {
        return;
    }
    session->owner->ended(session->owner, session);
    close(session->fd);
    json_reader_free(session->reader);
    g_string_free(session->output, TRUE);
    g_free(session);
}

void qmp_session_drop(struct qmp_session *session)
{
    if (session->gone) {
        return;
    }
    session->gone = true;
    io_cancel(&session->read_canceller);
    io_cancel(&session->write_canceller);
    io_cancel(&session->watch_canceller);
    co_queue_wake_all(&session->write);
}

void qmp_session_finish(struct qmp_session *session)
{
    session->finishing = true;
    io_cancel(&session->read_canceller);
    co_queue_wake_all(&session->write);
}

void qmp_session_send(struct qmp_session *session,
                      const struct json_value *value)
{
    if (session->gone) {
        return;
    }
    json_write(value, session->pretty, session->output);
    g_string_append(session->output, "\r\n");
    if (session->output->len + session->sending > LIMIT_QMP_OUTPUT_BYTES) {
        qmp_session_drop(session);
        return;
    }
    co_queue_wake_all(&session->write);
}

static void send_greeting(struct qmp_session *session)
{
    g_autoptr(json_value) greeting = json_dict_new();
    struct json_value *qmp = json_dict_new();

    json_dict_set(qmp, "version", qmp_version_info());
    json_dict_set(qmp, "capabilities", json_list_new());
    json_dict_set(greeting, "QMP", qmp);
    qmp_session_send(session, greeting);
}

static void send_error(struct qmp_session *session, const GError *err)
{
    g_autoptr(json_value) reply = qmp_error_reply(err);

    qmp_session_send(session, reply);
}

static void co_answer(struct qmp_session *session,
                      const struct json_value *request)
{
    g_autoptr(json_value) reply =
        session->owner->co_answer(session->owner, session, request);

    if (reply != NULL) {
        qmp_session_send(session, reply);
    }
}

static bool session_reads(const struct qmp_session *session)
{
    return !session->gone && !session->finishing;
}

/* Answers every value that the bytes complete. */
static void co_take_values(struct qmp_session *session,
                           const char *bytes,
                           size_t length)
{
    while (session_reads(session)) {
        g_autoptr(json_value) request = NULL;
        g_autoptr(GError) err = NULL;

        switch (json_reader_next(session->reader, &bytes, &length, &request,
                                 &err)) {
        case JSON_READER_MORE: return;
        case JSON_READER_VALUE: co_answer(session, request); break;
        case JSON_READER_ERROR: send_error(session, err); break;
        }
    }
}

static void co_read(void *opaque)
{
    struct qmp_session *session = opaque;
    g_autofree char *buffer = g_malloc(RECEIVE_BYTES);

    while (session_reads(session)) {
        ssize_t received = co_recv(session->fd, buffer, RECEIVE_BYTES,
                                   &session->read_canceller);

        if (received <= 0) {
            break;
        }
        co_take_values(session, buffer, (size_t)received);
    }
    qmp_session_finish(session);
    session_release(session);
}

/* Sends the queued output in turns: what is queued meanwhile goes next. */
static void co_write(void *opaque)
{
    struct qmp_session *session = opaque;

    for (;;) {
        g_autofree char *text = NULL;
        struct iovec iov;
        int rc;

        while (session->output->len == 0 && session_reads(session)) {
            co_queue_wait(&session->write);
        }
        if (session->gone || session->output->len == 0) {
            break;
        }
        session->sending = session->output->len;
        text = g_string_free(session->output, FALSE);
        session->output = g_string_new(NULL);
        iov = (struct iovec){ .iov_base = text, .iov_len = session->sending };
        rc = co_send_all(session->fd, &iov, 1, &session->write_canceller);
        session->sending = 0;
        if (rc < 0) {
            break;
        }
    }
    /* A session that can say nothing more has no use. */
    qmp_session_drop(session);
    session_release(session);
}

static void co_watch(void *opaque)
{
    struct qmp_session *session = opaque;

    /* No events are asked for, so that a hang-up or an error ends this; or that
     * the client has shut down its side, which is no reason to drop it. */
    int events = co_poll(session->fd, 0, &session->watch_canceller);

    if (events != -ECANCELED &&
        (events < 0 || (events & (POLLHUP | POLLERR | POLLNVAL)) != 0)) {
        qmp_session_drop(session);
    }
    session_release(session);
}

struct qmp_session *qmp_session_start(struct qmp_session_owner *owner,
                                      void *monitor,
                                      int fd,
                                      bool pretty)
{
    struct qmp_session *session = g_new0(struct qmp_session, 1);
    struct loop *loop = loop_current();

    list_init(&session->link);
    session->owner = owner;
    session->monitor = monitor;
    session->fd = fd;
    session->pretty = pretty;
    session->mode = QMP_MODE_NEGOTIATION;
    session->coroutines = 3;
    session->reader = json_reader_new();
    io_canceller_init(&session->read_canceller);
    io_canceller_init(&session->write_canceller);
    io_canceller_init(&session->watch_canceller);
    session->output = g_string_new(NULL);
    co_queue_init(&session->write);
    send_greeting(session);
    co_spawn(loop, co_write, session);
    co_spawn(loop, co_read, session);
    co_spawn(loop, co_watch, session);
    return session;
}
