/* SPDX-License-Identifier: BSD-3-Clause */
/* A session over a socket pair: order, endings, bounds. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../loop/loop_test.h"
#include "base/limits.h"
#include "fake_commands.h"
#include "qmp/session.h"

struct world {
    struct qmp_session_owner owner; /* first */
    int client;                     /* the client's end */
    struct qmp_session *session;    /* NULL: it has ended */
    unsigned int started;           /* commands */
    bool hold;                      /* commands wait */
    struct co_queue changed;
};

static struct json_value *co_world_answer(struct qmp_session_owner *owner,
                                          struct qmp_session *session,
                                          const struct json_value *request)
{
    struct world *world = (struct world *)owner;

    if (qmp_session_is_gone(session)) {
        return NULL;
    }
    world->started++;
    co_queue_wake_all(&world->changed);
    while (world->hold) {
        co_queue_wait(&world->changed);
    }
    return co_qmp_dispatch(fake_tables, NULL, qmp_session_mode(session),
                           request);
}

static void world_ended(struct qmp_session_owner *owner,
                        struct qmp_session *session)
{
    struct world *world = (struct world *)owner;

    assert_ptr_equal(session, world->session);
    world->session = NULL;
    co_queue_wake_all(&world->changed);
}

static void world_open(struct world *world)
{
    int fds[2];

    *world = (struct world){
        .owner = { .co_answer = co_world_answer, .ended = world_ended },
    };
    co_queue_init(&world->changed);
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
        0);
    world->client = fds[0];
    world->session = qmp_session_start(&world->owner, NULL, fds[1], false);
}

static void co_wait_ended(struct world *world)
{
    while (world->session != NULL) {
        co_queue_wait(&world->changed);
    }
}

static void world_say(struct world *world, const char *text)
{
    assert_int_equal(send(world->client, text, strlen(text), MSG_NOSIGNAL),
                     strlen(text));
}

/* The next line from the session; NULL at the end of the stream. */
static char *co_world_line(struct world *world)
{
    GString *line = g_string_new(NULL);
    char byte;

    while (co_recv(world->client, &byte, 1, NULL) == 1) {
        g_string_append_c(line, byte);
        if (byte == '\n') {
            return g_string_free(line, FALSE);
        }
    }
    g_string_free(line, TRUE);
    return NULL;
}

static void co_expect_line(struct world *world, const char *expected)
{
    g_autofree char *line = co_world_line(world);

    if (expected == NULL) {
        assert_null(line);
        return;
    }
    assert_non_null(line);
    assert_string_equal(line, expected);
}

static void co_greet(struct world *world)
{
    g_autofree char *line = co_world_line(world);

    assert_non_null(line);
    assert_true(g_str_has_prefix(line, "{\"QMP\": {\"version\": "));
    assert_true(g_str_has_suffix(line, "\"capabilities\": []}}\r\n"));
}

static void world_close(struct world *world)
{
    close(world->client);
}

static void co_pipelined(void *opaque)
{
    struct world world;

    (void)opaque;
    world_open(&world);
    co_greet(&world);
    world_say(&world, "{'execute':'qmp_capabilities','id':1}"
                      "{'execute':'nothing','id':2} {'execute':'no','id':3}"
                      "\n{'execute':'nothing','id':4}");
    co_expect_line(&world, "{\"return\": {}, \"id\": 1}\r\n");
    co_expect_line(&world, "{\"return\": {}, \"id\": 2}\r\n");
    g_free(co_world_line(&world));
    co_expect_line(&world, "{\"return\": {}, \"id\": 4}\r\n");
    world_close(&world);
    co_wait_ended(&world);
}

static void requests_are_answered_in_order(void **state)
{
    (void)state;
    run_in_loop(co_pipelined, NULL);
}

static void co_garbage(void *opaque)
{
    struct world world;
    g_autofree char *line = NULL;

    (void)opaque;
    world_open(&world);
    co_greet(&world);
    world_say(&world, "{'execute': }\n{'execute':'qmp_capabilities'}");
    line = co_world_line(&world);
    assert_non_null(line);
    assert_true(
        g_str_has_prefix(line, "{\"error\": {\"class\": \"GenericError\""));
    assert_null(strstr(line, "\"id\""));
    co_expect_line(&world, "{\"return\": {}}\r\n");
    world_close(&world);
    co_wait_ended(&world);
}

static void after_garbage_the_session_goes_on(void **state)
{
    (void)state;
    run_in_loop(co_garbage, NULL);
}

static void co_half_close(void *opaque)
{
    struct world world;

    (void)opaque;
    world_open(&world);
    co_greet(&world);
    world_say(&world, "{'execute':'qmp_capabilities'}"
                      "{'execute':'nothing','id':1}{'execute':");
    shutdown(world.client, SHUT_WR);
    co_expect_line(&world, "{\"return\": {}}\r\n");
    co_expect_line(&world, "{\"return\": {}, \"id\": 1}\r\n");
    co_expect_line(&world, NULL);
    co_wait_ended(&world);
    world_close(&world);
}

static void a_client_that_has_said_all_still_gets_its_answers(void **state)
{
    (void)state;
    run_in_loop(co_half_close, NULL);
}

static void co_vanish(void *opaque)
{
    struct world world;

    (void)opaque;
    world_open(&world);
    co_greet(&world);
    world.hold = true;
    world_say(&world, "{'execute':'qmp_capabilities'}{'execute':'nothing'}"
                      "{'execute':'nothing'}");
    while (world.started == 0) {
        co_queue_wait(&world.changed);
    }
    world_close(&world);
    /* The hang-up is known when the session says so. */
    while (!qmp_session_is_gone(world.session)) {
        co_sleep_until(loop_now_ns() + 100000);
    }
    world.hold = false;
    co_queue_wake_all(&world.changed);
    co_wait_ended(&world);
    assert_int_equal(world.started, 1);
}

static void what_was_not_started_is_forgotten_with_the_client(void **state)
{
    (void)state;
    run_in_loop(co_vanish, NULL);
}

static void co_deaf(void *opaque)
{
    g_autoptr(json_value) big = NULL;
    g_autofree char *text = g_malloc(MIB + 1);
    struct world world;
    unsigned int sent = 0;

    (void)opaque;
    memset(text, 'x', MIB);
    text[MIB] = '\0';
    big = json_string_new(text);
    world_open(&world);
    while (!qmp_session_is_gone(world.session)) {
        qmp_session_send(world.session, big);
        sent++;
    }
    assert_true(sent >= LIMIT_QMP_OUTPUT_BYTES / MIB);
    assert_true(sent <= LIMIT_QMP_OUTPUT_BYTES / MIB + 1);
    co_wait_ended(&world);
    world_close(&world);
}

static void a_client_that_does_not_read_is_dropped_at_the_bound(void **state)
{
    (void)state;
    run_in_loop(co_deaf, NULL);
}

static void co_finish(void *opaque)
{
    g_autoptr(json_value) last = json_string_new("last words");
    struct world world;

    (void)opaque;
    world_open(&world);
    qmp_session_send(world.session, last);
    qmp_session_finish(world.session);
    co_greet(&world);
    co_expect_line(&world, "\"last words\"\r\n");
    co_expect_line(&world, NULL);
    co_wait_ended(&world);
    world_close(&world);
}

static void finishing_sends_what_is_queued(void **state)
{
    (void)state;
    run_in_loop(co_finish, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered_in_order),
        cmocka_unit_test(after_garbage_the_session_goes_on),
        cmocka_unit_test(a_client_that_has_said_all_still_gets_its_answers),
        cmocka_unit_test(what_was_not_started_is_forgotten_with_the_client),
        cmocka_unit_test(a_client_that_does_not_read_is_dropped_at_the_bound),
        cmocka_unit_test(finishing_sends_what_is_queued),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
