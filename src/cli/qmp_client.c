/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Incoming bytes collect in a buffer until the braces of a value balance; the
 * value is then parsed strictly. Answers and events are told apart by their
 * members; an answer to an earlier command that was given up is dropped.
 */
#include "cli/qmp_client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"
#include "cli/qmp_connect.h"

#define READ_BYTES 65536
/* Jobs of one group make a handful of events each. */
#define EVENTS_MAX 65536

struct qmp_client {
    int fd;
    char *address;
    char *peer;
    unsigned timeout_ms;
    struct interrupt *interrupt; /* borrowed; NULL: signals are not heeded */
    json_int_t next_id;
    bool is_lost;
    GQueue *events; /* json_t *, owned */

    GString *input;
    /* Where the scan for the value's end stands. */
    gsize scanned;
    unsigned depth;
    bool in_string;
    bool after_backslash;
};

void qmp_client_close(struct qmp_client *client)
{
    if (client == NULL) {
        return;
    }
    if (client->fd >= 0) {
        (void)close(client->fd); /* all that mattered was answered */
    }
    json_t *event;
    while ((event = g_queue_pop_head(client->events)) != NULL) {
        json_decref(event);
    }
    g_queue_free(client->events);
    g_string_free(client->input, TRUE);
    g_free(client->address);
    g_free(client->peer);
    g_free(client);
}

void qmp_client_ignore_interrupt(struct qmp_client *client)
{
    client->interrupt = NULL;
}

const char *qmp_client_peer(const struct qmp_client *client)
{
    return client->peer;
}

static int lost(struct qmp_client *client, GError **err, const char *why)
{
    client->is_lost = true;
    if (client->peer == NULL) {
        /* One that has just died may still have taken the connection. */
        return error_set(err, -EPIPE, "cannot reach the daemon at '%s': %s",
                         client->address, why);
    }
    return error_set(err, -EPIPE, "lost the daemon at '%s': %s",
                     client->address, why);
}

/* Waits until the socket is ready for `events`, at most until the deadline
 * (monotonic, microseconds). */
static int wait_ready(struct qmp_client *client,
                      short events,
                      int64_t deadline_us,
                      GError **err)
{
    struct interrupt *interrupt = client->interrupt;

    for (;;) {
        int64_t left_us = deadline_us - g_get_monotonic_time();
        struct pollfd fds[] = {
            { .fd = client->fd, .events = events },
            { .fd = interrupt == NULL ? -1 : interrupt->fd, .events = POLLIN },
        };
        if (interrupt != NULL && interrupt_came(interrupt)) {
            return error_set(err, -ECANCELED, "interrupted by signal %d (%s)",
                             interrupt->signal, strsignal(interrupt->signal));
        }
        if (left_us <= 0) {
            return error_set(err, -ETIMEDOUT,
                             "the daemon at '%s' did not answer in time",
                             client->address);
        }
        int count =
            poll(fds, G_N_ELEMENTS(fds), (int)MIN(left_us / 1000 + 1, 60000));
        if (count < 0 && errno != EINTR) {
            return error_set_errno(err, -errno, "cannot wait for the daemon");
        }
        if (count > 0 && fds[0].revents != 0) {
            return 0;
        }
    }
}

static int send_all(struct qmp_client *client,
                    const char *text,
                    size_t bytes,
                    int64_t deadline_us,
                    GError **err)
{
    while (bytes > 0) {
        ssize_t done =
            send(client->fd, text, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done >= 0) {
            text += done;
            bytes -= (size_t)done;
        } else if (errno == EAGAIN) {
            int ret = wait_ready(client, POLLOUT, deadline_us, err);
            if (ret < 0) {
                /* Half a command is on its way: of no more use. */
                client->is_lost = true;
                return ret;
            }
        } else if (errno != EINTR) {
            return lost(client, err, g_strerror(errno));
        }
    }
    return 0;
}

/* Reads what is there. */
static int receive(struct qmp_client *client, GError **err)
{
    gsize before = client->input->len;

    g_string_set_size(client->input, before + READ_BYTES);
    ssize_t done =
        recv(client->fd, client->input->str + before, READ_BYTES, MSG_DONTWAIT);
    g_string_set_size(client->input, before + (gsize)MAX(done, 0));
    if (done == 0) {
        return lost(client, err, "it closed the connection");
    }
    if (done < 0) {
        return errno == EAGAIN || errno == EINTR
                   ? 0
                   : lost(client, err, g_strerror(errno));
    }
    if (client->input->len > LIMIT_JSON_TEXT_BYTES) {
        return lost(client, err, "it sent more than 64 MiB in one piece");
    }
    return 0;
}

/* Looks at one byte; true when it ends a value. */
static bool scan_byte(struct qmp_client *client, char byte)
{
    if (client->in_string) {
        if (client->after_backslash) {
            client->after_backslash = false;
        } else if (byte == '\\') {
            client->after_backslash = true;
        } else if (byte == '"') {
            client->in_string = false;
        }
        return false;
    }
    if (byte == '"') {
        client->in_string = true;
    } else if (byte == '{' || byte == '[') {
        client->depth++;
    } else if ((byte == '}' || byte == ']') && client->depth > 0) {
        client->depth--;
        return client->depth == 0;
    }
    return false;
}

/* Takes the first whole value off the input: 1 and the value, 0 when there is
 * none yet. */
static int take_value(struct qmp_client *client,
                      json_t **ret_value,
                      GError **err)
{
    while (client->scanned < client->input->len) {
        if (!scan_byte(client, client->input->str[client->scanned++])) {
            continue;
        }
        json_error_t where;
        json_t *value =
            json_loadb(client->input->str, client->scanned, 0, &where);
        g_string_erase(client->input, 0, (gssize)client->scanned);
        client->scanned = 0;
        if (!json_is_object(value)) {
            json_decref(value);
            return lost(client, err, "it does not speak QMP");
        }
        *ret_value = value;
        return 1;
    }
    return 0;
}

/* Waits for the next value that is no event; keeps the events. */
static int next_answer(struct qmp_client *client,
                       int64_t deadline_us,
                       json_t **ret_value,
                       GError **err)
{
    for (;;) {
        json_t *value = NULL;
        int ret = take_value(client, &value, err);
        if (ret < 0) {
            return ret;
        }
        if (ret == 0) {
            ret = wait_ready(client, POLLIN, deadline_us, err);
            ret = ret < 0 ? ret : receive(client, err);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        if (json_object_get(value, "event") == NULL) {
            *ret_value = value;
            return 0;
        }
        if (g_queue_get_length(client->events) >= EVENTS_MAX) {
            json_decref(g_queue_pop_head(client->events));
        }
        g_queue_push_tail(client->events, value);
    }
}

json_t *qmp_client_take_event(struct qmp_client *client)
{
    return g_queue_pop_head(client->events);
}

int qmp_client_wait(struct qmp_client *client,
                    unsigned timeout_ms,
                    GError **err)
{
    g_autoptr(GError) why = NULL;
    json_t *stray = NULL;

    if (client->is_lost) {
        return lost(client, err, "earlier");
    }
    int ret =
        wait_ready(client, POLLIN,
                   g_get_monotonic_time() + (int64_t)timeout_ms * 1000, &why);
    if (ret == 0) {
        /* What is there may be half a value: take only what is whole. */
        ret = receive(client, &why);
        while (ret == 0) {
            int taken = take_value(client, &stray, &why);
            if (taken <= 0) {
                ret = taken;
                break;
            }
            if (json_object_get(stray, "event") != NULL) {
                g_queue_push_tail(client->events, stray);
            } else {
                json_decref(stray); /* an answer that came too late */
            }
        }
    }
    if (ret == -ETIMEDOUT) {
        return 0;
    }
    if (ret < 0) {
        g_propagate_error(err, g_steal_pointer(&why));
    }
    return ret;
}

/* The daemon's refusal as an error. */
static int refusal(const char *name, const json_t *error, GError **err)
{
    const char *words = json_string_value(json_object_get(error, "desc"));
    const char *class = json_string_value(json_object_get(error, "class"));
    enum error_class code = ERROR_GENERIC;

    if (g_strcmp0(class, "CommandNotFound") == 0) {
        code = ERROR_COMMAND_NOT_FOUND;
    } else if (g_strcmp0(class, "DeviceNotFound") == 0) {
        code = ERROR_DEVICE_NOT_FOUND;
    } else if (g_strcmp0(class, "DeviceNotActive") == 0) {
        code = ERROR_DEVICE_NOT_ACTIVE;
    }
    return error_set_class(err, -EREMOTEIO, code, "%s: %s", name,
                           words == NULL ? "refused" : words);
}

static int await_reply(struct qmp_client *client,
                       const char *name,
                       json_int_t id,
                       int64_t deadline_us,
                       json_t **ret_value,
                       GError **err)
{
    for (;;) {
        json_t *answer = NULL;
        int ret = next_answer(client, deadline_us, &answer, err);
        if (ret < 0) {
            g_prefix_error(err, "%s: ", name);
            return ret;
        }
        const json_t *its_id = json_object_get(answer, "id");
        const json_t *error = json_object_get(answer, "error");
        if (!json_is_integer(its_id) || json_integer_value(its_id) != id) {
            json_decref(answer);
            continue;
        }
        if (error != NULL) {
            ret = refusal(name, error, err);
        } else if (ret_value != NULL) {
            *ret_value = json_incref(json_object_get(answer, "return"));
        }
        json_decref(answer);
        return ret;
    }
}

int qmp_command_within(struct qmp_client *client,
                       unsigned timeout_ms,
                       const char *name,
                       json_t *arguments,
                       json_t **ret_value,
                       GError **err)
{
    int64_t deadline_us = g_get_monotonic_time() + (int64_t)timeout_ms * 1000;
    json_int_t id = client->next_id++;
    json_t *request = json_pack("{s:s, s:I, s:o*}", "execute", name, "id", id,
                                "arguments", arguments);
    char *text;
    int ret;

    g_assert(request != NULL);
    text = json_dumps(request, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(request);
    g_assert(text != NULL);
    if (client->is_lost) {
        ret = lost(client, err, "earlier");
    } else {
        ret = send_all(client, text, strlen(text), deadline_us, err);
    }
    free(text);
    return ret < 0 ? ret
                   : await_reply(client, name, id, deadline_us, ret_value, err);
}

int qmp_command(struct qmp_client *client,
                const char *name,
                json_t *arguments,
                json_t **ret_value,
                GError **err)
{
    return qmp_command_within(client, client->timeout_ms, name, arguments,
                              ret_value, err);
}

/* The greeting's version as a person would write it. */
static char *describe_peer(const json_t *greeting)
{
    json_t *qmp = json_object_get(greeting, "QMP");
    json_t *version = json_object_get(qmp, "version");
    json_t *numbers = json_object_get(version, "qemu");
    const char *package =
        json_string_value(json_object_get(version, "package"));

    return g_strdup_printf(
        "%s (QMP %" JSON_INTEGER_FORMAT ".%" JSON_INTEGER_FORMAT
        ".%" JSON_INTEGER_FORMAT ")",
        package == NULL || package[0] == '\0' ? "unnamed" : package,
        json_integer_value(json_object_get(numbers, "major")),
        json_integer_value(json_object_get(numbers, "minor")),
        json_integer_value(json_object_get(numbers, "micro")));
}

static int negotiate(struct qmp_client *client, GError **err)
{
    int64_t deadline_us =
        g_get_monotonic_time() + (int64_t)client->timeout_ms * 1000;
    json_t *greeting = NULL;
    int ret = next_answer(client, deadline_us, &greeting, err);

    if (ret == -ETIMEDOUT) {
        g_prefix_error(err, "no greeting (another client may hold the "
                            "monitor): ");
    }
    if (ret < 0) {
        return ret;
    }
    if (!json_is_object(json_object_get(greeting, "QMP"))) {
        ret = lost(client, err, "it does not greet as QMP does");
    } else {
        client->peer = describe_peer(greeting);
        ret = qmp_command(client, "qmp_capabilities", NULL, NULL, err);
    }
    json_decref(greeting);
    return ret;
}

int qmp_client_connect(const char *address,
                       unsigned timeout_ms,
                       struct interrupt *interrupt,
                       struct qmp_client **ret_client,
                       GError **err)
{
    int fd = qmp_connect(address, timeout_ms, err);

    if (fd < 0) {
        return fd;
    }
    g_autoptr(qmp_client_auto) client = g_new0(struct qmp_client, 1);
    client->fd = fd;
    client->address = g_strdup(address);
    client->timeout_ms = timeout_ms;
    client->interrupt = interrupt;
    client->events = g_queue_new();
    client->input = g_string_new(NULL);
    int ret = negotiate(client, err);
    if (ret < 0) {
        return ret == -ECANCELED ? ret : -ECONNREFUSED;
    }
    *ret_client = g_steal_pointer(&client);
    return 0;
}
