/* SPDX-License-Identifier: BSD-3-Clause */
/* The QMP client against a scripted server: whatever way its bytes come. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "cli/qmp_client.h"

#define GREETING                                                    \
 "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7, \"minor\": 2, " \
 "\"micro\": 0}, \"package\": \"test\"}, \"capabilities\": []}}\r\n"
#define NEGOTIATED "{\"return\": {}, \"id\": 0}\r\n"

/* What the server says: each piece is one send, and `await` waits for
 * a request first. Ends with `done`. */
static const char done[] = "done";
static const char await[] = "await";

struct rig {
    char *folder;
    char *path;
    int listener;
    GThread *server;
    const char *const *script;
};

static int setup(void **state)
{
    struct rig *rig = g_new0(struct rig, 1);
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    rig->folder = g_dir_make_tmp("cohort-unit-XXXXXX", NULL);
    rig->path = g_build_filename(rig->folder, "s", NULL);
    (void)g_strlcpy(address.sun_path, rig->path, sizeof(address.sun_path));
    rig->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(rig->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(rig->listener, 1) < 0) {
        return -1;
    }
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;

    if (rig->server != NULL) {
        (void)g_thread_join(rig->server);
    }
    (void)close(rig->listener);
    (void)unlink(rig->path);
    (void)rmdir(rig->folder);
    g_free(rig->path);
    g_free(rig->folder);
    g_free(rig);
    return 0;
}

static void *serve(void *opaque)
{
    struct rig *rig = opaque;
    int fd = accept(rig->listener, NULL, NULL);
    char request[1024];

    for (size_t i = 0; rig->script[i] != done; i++) {
        if (rig->script[i] == await) {
            (void)!recv(fd, request, sizeof(request), 0);
        } else {
            (void)!send(fd, rig->script[i], strlen(rig->script[i]),
                        MSG_NOSIGNAL);
        }
    }
    (void)shutdown(fd, SHUT_WR);
    while (recv(fd, request, sizeof(request), 0) > 0) {
    }
    (void)close(fd);
    return NULL;
}

/* A client of a server with this script; NULL and err if it does not come
 * to that. */
static struct qmp_client *connect_to(struct rig *rig,
                                     const char *const *script,
                                     GError **err)
{
    struct qmp_client *client = NULL;

    rig->script = script;
    rig->server = g_thread_new("server", serve, rig);
    (void)qmp_client_connect(rig->path, 20000, NULL, &client, err);
    return client;
}

static void a_command_gets_its_answer(void **state)
{
    static const char *const script[] = {
        GREETING,
        await,
        NEGOTIATED,
        await,
        "{\"return\": {\"a\": [1, \"}\\\"{\"]}, \"id\": 1}\r\n",
        done
    };
    g_autoptr(qmp_client_auto) client = connect_to(*state, script, NULL);
    json_t *value = NULL;

    assert_non_null(client);
    assert_string_equal(qmp_client_peer(client), "test (QMP 7.2.0)");
    assert_int_equal(qmp_command(client, "x", NULL, &value, NULL), 0);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(value, "a"), 1)),
        "}\"{");
    json_decref(value);
}

static void answers_may_come_in_any_pieces(void **state)
{
    static const char *const script[] = {
        "{\"QMP\"",
        ": {}}",
        await,
        "{\"retu",
        "rn\": {}, \"id\":0}{",
        "\"event\": \"E\"}",
        await,
        "{\"event\":\"F\"}{\"return\":3,\"id\":1}",
        done
    };
    g_autoptr(qmp_client_auto) client = connect_to(*state, script, NULL);
    json_t *value = NULL;

    assert_non_null(client);
    assert_int_equal(qmp_command(client, "x", NULL, &value, NULL), 0);
    assert_int_equal(json_integer_value(value), 3);
    json_decref(value);
    for (const char *name = "EF"; *name != '\0'; name++) {
        json_t *event = qmp_client_take_event(client);
        assert_int_equal(json_string_value(json_object_get(event, "event"))[0],
                         *name);
        json_decref(event);
    }
    assert_null(qmp_client_take_event(client));
}

static void a_refusal_is_told_in_the_daemons_words(void **state)
{
    static const char *const script[] = {
        GREETING,
        await,
        NEGOTIATED,
        await,
        "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such "
        "thing\"}, \"id\": 1}\r\n",
        done
    };
    g_autoptr(qmp_client_auto) client = connect_to(*state, script, NULL);
    g_autoptr(GError) err = NULL;

    assert_int_equal(qmp_command(client, "x", NULL, NULL, &err), -EREMOTEIO);
    assert_non_null(strstr(err->message, "no such thing"));
    assert_int_equal(err->code, ERROR_COMMAND_NOT_FOUND);
}

static void a_late_answer_is_not_taken_for_another(void **state)
{
    static const char *const script[] = {
        GREETING,
        await,
        NEGOTIATED,
        await,
        await,
        "{\"return\": 1, \"id\": 1}\r\n{\"return\": 2, \"id\": 2}\r\n",
        done
    };
    g_autoptr(qmp_client_auto) client = connect_to(*state, script, NULL);
    json_t *value = NULL;

    assert_int_equal(qmp_command_within(client, 1, "x", NULL, NULL, NULL),
                     -ETIMEDOUT);
    assert_int_equal(qmp_command(client, "y", NULL, &value, NULL), 0);
    assert_int_equal(json_integer_value(value), 2);
    json_decref(value);
}

static void a_lost_daemon_stays_lost(void **state)
{
    static const char *const script[] = { GREETING, await, NEGOTIATED, await,
                                          done };
    g_autoptr(qmp_client_auto) client = connect_to(*state, script, NULL);
    g_autoptr(GError) err = NULL;

    assert_int_equal(qmp_command(client, "x", NULL, NULL, &err), -EPIPE);
    assert_non_null(strstr(err->message, "lost the daemon"));
    assert_int_equal(qmp_command(client, "x", NULL, NULL, NULL), -EPIPE);
    assert_int_equal(qmp_client_wait(client, 1, NULL), -EPIPE);
}

static void what_does_not_greet_is_refused(void **state)
{
    static const char *const script[] = { "{\"hello\": \"world\"}", done };
    g_autoptr(GError) err = NULL;

    assert_null(connect_to(*state, script, &err));
    assert_non_null(strstr(err->message, "greet"));
}

static void what_is_no_json_is_refused(void **state)
{
    static const char *const script[] = { "{QMP}", done };
    g_autoptr(GError) err = NULL;

    assert_null(connect_to(*state, script, &err));
    assert_non_null(strstr(err->message, "QMP"));
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(a_command_gets_its_answer),
        WITH_SERVER(answers_may_come_in_any_pieces),
        WITH_SERVER(a_refusal_is_told_in_the_daemons_words),
        WITH_SERVER(a_late_answer_is_not_taken_for_another),
        WITH_SERVER(a_lost_daemon_stays_lost),
        WITH_SERVER(what_does_not_greet_is_refused),
        WITH_SERVER(what_is_no_json_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
