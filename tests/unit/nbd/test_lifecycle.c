/* SPDX-License-Identifier: BSD-3-Clause */
/* Servers, exports and clients coming and going, and moving between threads. */
#include "client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "nbd/protocol.h"

static int set_up(void **state)
{
    *state = rig_new();
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

static void send_read(int fd, uint64_t cookie, uint32_t length)
{
    struct client_request read = { .type = NBD_COMMAND_READ,
                                   .cookie = cookie,
                                   .length = length };

    client_request(fd, &read);
}

static void still_answers(int fd)
{
    uint8_t data[8];

    send_read(fd, 99, sizeof(data));
    assert_int_equal(client_simple(fd, 99), 0);
    client_receive(fd, data, sizeof(data));
}

static int co_stop(void *opaque)
{
    return co_nbd_server_stop(opaque, NULL);
}

static int count_exports(void *opaque)
{
    g_autoptr(json_value) all = export_query(opaque);

    return (int)json_list_length(all);
}

static void expect_sentence(GError **err, const char *part)
{
    assert_non_null(*err);
    if (!strstr((*err)->message, part)) {
        fail_msg("'%s' does not tell: %s", (*err)->message, part);
    }
    g_clear_error(err);
}

static void adding_refuses_what_is_wrong(void **state)
{
    GError *err = NULL;

    assert_int_equal(rig_export(*state, "a", true, &err), -ENOTCONN);
    expect_sentence(&err, "not running");
    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "1a", true, &err), -EINVAL);
    expect_sentence(&err, "'1a'");
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    assert_int_equal(rig_export(*state, "a", true, &err), -EEXIST);
    expect_sentence(&err, "already");
    assert_int_equal(rig_run(*state, count_exports, rig_exports(*state)), 1);
}

static void deleting_refuses_what_is_wrong(void **state)
{
    GError *err = NULL;
    int fd;

    rig_start_server(*state, 10);
    assert_int_equal(rig_delete(*state, "a", true, &err), -ENOENT);
    expect_sentence(&err, "'a'");
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    fd = client_open(*state, "a", false);
    assert_int_equal(rig_delete(*state, "a", false, &err), -EBUSY);
    expect_sentence(&err, "in use");
    still_answers(fd);
    close(fd);
}

static void a_deleted_export_may_be_added_again(void **state)
{
    int fd;

    rig_start_server(*state, 10);
    for (unsigned int i = 1; i <= 3; i++) {
        assert_int_equal(rig_export(*state, "a", true, NULL), 0);
        fd = client_open(*state, "a", false);
        still_answers(fd);
        assert_int_equal(rig_delete(*state, "a", true, NULL), 0);
        client_expect_end(fd);
        close(fd);
        rig_wait_for_deleted(*state, i);
    }
}

/* The client is sent away at once; the export is gone when the disk has let go
 * of its last request. */
static void a_hung_disk_does_not_hold_clients(void **state)
{
    GError *err = NULL;
    int fd;

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    fd = client_open(*state, "a", false);
    rig_set_mood(*state, RIG_HUNG);
    send_read(fd, 1, 8);
    rig_wait_for_hung(*state, 1);
    assert_int_equal(rig_delete(*state, "a", true, NULL), 0);
    client_expect_end(fd);
    close(fd);
    assert_int_equal(rig_delete(*state, "a", true, &err), -EALREADY);
    expect_sentence(&err, "shutting down");
    assert_int_equal(rig_run(*state, count_exports, rig_exports(*state)), 1);
    rig_set_mood(*state, RIG_QUICK);
    rig_wait_for_deleted(*state, 1);
    assert_int_equal(rig_run(*state, count_exports, rig_exports(*state)), 0);
}

static void stopping_the_server_ends_everything(void **state)
{
    int connected;
    int negotiating;

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    assert_int_equal(rig_export(*state, "b", false, NULL), 0);
    connected = client_open(*state, "a", false);
    negotiating = client_connect(*state);
    client_greet(negotiating, NBD_HANDSHAKE_FIXED_NEWSTYLE);
    assert_int_equal(rig_run(*state, co_stop, rig_exports(*state)), 0);
    rig_wait_for_deleted(*state, 2);
    client_expect_end(connected);
    client_expect_end(negotiating);
    close(connected);
    close(negotiating);
    assert_int_equal(rig_run(*state, co_stop, rig_exports(*state)), -ENOTCONN);
    assert_int_not_equal(access(rig_socket(*state), F_OK), 0);
    rig_start_server(*state, 10);
}

struct stop_call {
    struct export_list *list;
    GError **err;
};

static int co_stop_telling(void *opaque)
{
    struct stop_call *call = opaque;

    return co_nbd_server_stop(call->list, call->err);
}

static int co_await_shutdown(void *opaque)
{
    co_export_shutdown(opaque);
    return 0;
}

/* A disk that hangs cannot hold the command: it is told which export is left.
 * That one goes, and the server, when the disk goes on. */
static void stopping_does_not_wait_for_a_hung_disk(void **state)
{
    GError *err = NULL;
    struct stop_call call = { rig_exports(*state), &err };
    int fd;

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "hung", true, NULL), 0);
    assert_int_equal(rig_export(*state, "idle", true, NULL), 0);
    fd = client_open(*state, "hung", false);
    rig_set_mood(*state, RIG_HUNG);
    send_read(fd, 1, 8);
    rig_wait_for_hung(*state, 1);
    assert_int_equal(rig_run(*state, co_stop_telling, &call), -ETIMEDOUT);
    expect_sentence(&err, "requests of export 'hung' of node 'disk'");
    client_expect_end(fd);
    close(fd);
    rig_wait_for_deleted(*state, 1);
    assert_int_equal(rig_run(*state, count_exports, rig_exports(*state)), 1);
    assert_int_equal(rig_run(*state, co_stop_telling, &call), -EALREADY);
    expect_sentence(&err, "'hung'");
    rig_set_mood(*state, RIG_QUICK);
    rig_wait_for_deleted(*state, 2);
    assert_int_equal(rig_run(*state, co_await_shutdown, rig_exports(*state)),
                     0);
    rig_start_server(*state, 10);
}

static void no_more_clients_than_allowed(void **state)
{
    uint8_t greeting[NBD_GREETING_BYTES];
    int first;
    int second;

    rig_start_server(*state, 1);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    first = client_open(*state, "a", false);
    second = client_connect(*state);
    still_answers(first);
    assert_int_equal(recv(second, greeting, 1, MSG_DONTWAIT), -1);
    close(first);
    client_greet(second, NBD_HANDSHAKE_FIXED_NEWSTYLE);
    close(second);
}

static void one_client_alone_is_not_told_to_multiply(void **state)
{
    uint8_t reply[10];
    int fd;

    rig_start_server(*state, 1);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    fd = client_connect(*state);
    client_greet(fd, NBD_HANDSHAKE_NO_ZEROES | NBD_HANDSHAKE_FIXED_NEWSTYLE);
    client_option(fd, NBD_OPTION_EXPORT_NAME, "a", 1);
    client_receive(fd, reply, sizeof(reply));
    assert_false(load_be16(reply + 8) & NBD_FLAG_CAN_MULTI_CONN);
    close(fd);
}

/* Wherever the stream is when the node changes threads, nothing of it is lost:
 * between requests, in the middle of a header, of a payload small or large. */
static void a_move_loses_no_byte_of_input(void **state)
{
    static const uint32_t lengths[] = { 100, 5000, 300000 };
    static uint8_t payload[300000];
    int fd;

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    fd = client_open(*state, "a", false);
    memset(payload, 0x77, sizeof(payload));
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        uint8_t raw[NBD_REQUEST_BYTES] = { 0 };
        uint32_t half = lengths[i] / 2;

        rig_move(*state);
        still_answers(fd);
        store_be32(raw, NBD_REQUEST_MAGIC);
        store_be16(raw + 6, NBD_COMMAND_WRITE);
        store_be32(raw + 24, lengths[i]);
        client_send(fd, raw, 11);
        rig_move(*state);
        client_send(fd, raw + 11, sizeof(raw) - 11);
        rig_move(*state);
        client_send(fd, payload, half);
        rig_move(*state);
        client_send(fd, payload + half, lengths[i] - half);
        assert_int_equal(client_simple(fd, 0), 0);
        assert_memory_equal(rig_content(*state), payload, lengths[i]);
        memset(rig_content(*state), 0, lengths[i]);
    }
    close(fd);
}

/* The client does not read while its node moves: the replies wait. */
static void a_move_loses_no_byte_of_output(void **state)
{
    enum {
        COUNT = 40,
        LENGTH = 200000
    };

    static uint8_t data[LENGTH];
    int fd;

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    fd = client_open(*state, "a", false);
    memset(rig_content(*state), 0x33, LENGTH);
    for (int i = 0; i < COUNT; i++) {
        send_read(fd, (uint64_t)i, i % 2 ? LENGTH : 1000);
    }
    rig_move(*state);
    rig_move(*state);
    for (int i = 0; i < COUNT; i++) {
        uint8_t raw[NBD_SIMPLE_BYTES];
        size_t length;

        client_receive(fd, raw, sizeof(raw));
        assert_int_equal(load_be32(raw), NBD_SIMPLE_MAGIC);
        assert_int_equal(load_be32(raw + 4), 0);
        length = load_be64(raw + 8) % 2 ? LENGTH : 1000;
        client_receive(fd, data, length);
        assert_memory_equal(data, rig_content(*state), length);
    }
    still_answers(fd);
    close(fd);
}

/* A move that a hung disk stops leaves every client where it was: those whose
 * requests hang, and idle ones. */
static void a_move_given_up_loses_nothing(void **state)
{
    uint8_t data[8];
    int fds[2];

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    fds[0] = client_open(*state, "a", false);
    fds[1] = client_open(*state, "a", false);
    rig_set_mood(*state, RIG_HUNG);
    send_read(fds[0], 1, sizeof(data));
    rig_wait_for_hung(*state, 1);
    assert_int_equal(rig_try_move(*state), -ETIMEDOUT);
    send_read(fds[0], 2, sizeof(data));
    send_read(fds[1], 3, sizeof(data));
    rig_wait_for_hung(*state, 3);
    rig_set_mood(*state, RIG_QUICK);
    assert_int_equal(client_simple(fds[1], 3), 0);
    client_receive(fds[1], data, sizeof(data));
    for (int i = 0; i < 2; i++) {
        uint8_t raw[NBD_SIMPLE_BYTES + sizeof(data)];

        client_receive(fds[0], raw, sizeof(raw));
        assert_int_equal(load_be32(raw), NBD_SIMPLE_MAGIC);
        assert_int_equal(load_be32(raw + 4), 0);
    }
    rig_move(*state);
    for (int i = 0; i < 2; i++) {
        still_answers(fds[i]);
        close(fds[i]);
    }
}

static gpointer write_all_the_time(gpointer opaque)
{
    int fd = GPOINTER_TO_INT(opaque);

    for (uint64_t i = 0; i < 2000; i++) {
        struct client_request write = {
            .type = NBD_COMMAND_WRITE, .cookie = i, .offset = i, .length = 512
        };
        uint8_t data[512] = { 0 };

        client_request(fd, &write);
        client_send(fd, data, sizeof(data));
        assert_int_equal(client_simple(fd, i), 0);
    }
    return NULL;
}

static void moving_goes_on_under_load(void **state)
{
    GThread *threads[3];
    int fds[3];

    rig_start_server(*state, 10);
    assert_int_equal(rig_export(*state, "a", true, NULL), 0);
    for (int i = 0; i < 3; i++) {
        fds[i] = client_open(*state, "a", false);
        threads[i] =
            g_thread_new("writer", write_all_the_time, GINT_TO_POINTER(fds[i]));
    }
    for (int i = 0; i < 50; i++) {
        rig_set_mood(*state, i % 2 ? RIG_SLOW : RIG_QUICK);
        rig_move(*state);
    }
    for (int i = 0; i < 3; i++) {
        g_thread_join(threads[i]);
        close(fds[i]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(adding_refuses_what_is_wrong),
        TEST(deleting_refuses_what_is_wrong),
        TEST(a_deleted_export_may_be_added_again),
        TEST(a_hung_disk_does_not_hold_clients),
        TEST(stopping_the_server_ends_everything),
        TEST(stopping_does_not_wait_for_a_hung_disk),
        TEST(no_more_clients_than_allowed),
        TEST(one_client_alone_is_not_told_to_multiply),
        TEST(a_move_loses_no_byte_of_input),
        TEST(a_move_loses_no_byte_of_output),
        TEST(a_move_given_up_loses_nothing),
        TEST(moving_goes_on_under_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
