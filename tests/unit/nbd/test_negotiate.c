/* SPDX-License-Identifier: BSD-3-Clause */
/* The handshake, by the byte: what clients may ask, and what they may break. */
#include "client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "loop/loop.h"
#include "nbd/protocol.h"

#define BOTH_FLAGS (NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES)

static int set_up(void **state)
{
    struct rig *rig = rig_new();

    rig_start_server(rig, 100);
    assert_int_equal(rig_export(rig, "first", true, NULL), 0);
    assert_int_equal(rig_export(rig, "second", false, NULL), 0);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

/* A client past the greeting. */
static int greeted(void **state)
{
    int fd = client_connect(*state);

    client_greet(fd, BOTH_FLAGS);
    return fd;
}

/* The data of INFO and GO: a name, and a request of three informations. */
static uint32_t info_data(uint8_t *data, const char *name)
{
    uint32_t name_bytes = (uint32_t)strlen(name);

    store_be32(data, name_bytes);
    memcpy(data + 4, name, name_bytes);
    store_be16(data + 4 + name_bytes, 3);
    store_be16(data + 6 + name_bytes, NBD_INFO_NAME);
    store_be16(data + 8 + name_bytes, NBD_INFO_BLOCK_SIZE);
    store_be16(data + 10 + name_bytes, 999); /* of the future */
    return 12 + name_bytes;
}

static void still_answers(int fd)
{
    client_option(fd, NBD_OPTION_ABORT, NULL, 0);
    assert_int_equal(client_reply(fd, NBD_OPTION_ABORT, NULL, NULL),
                     NBD_REPLY_ACK);
    client_expect_end(fd);
    close(fd);
}

static void info_tells_size_flags_and_block_sizes(void **state)
{
    uint8_t data[64];
    uint8_t reply[1024];
    size_t bytes;
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_INFO, data, info_data(data, "second"));
    assert_int_equal(client_reply(fd, NBD_OPTION_INFO, reply, &bytes),
                     NBD_REPLY_INFO);
    assert_int_equal(bytes, 12);
    assert_int_equal(load_be16(reply), NBD_INFO_EXPORT);
    assert_int_equal(load_be64(reply + 2), RIG_DISK_BYTES);
    assert_int_equal(load_be16(reply + 10),
                     NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY |
                         NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                         NBD_FLAG_SEND_CACHE | NBD_FLAG_CAN_MULTI_CONN);
    assert_int_equal(client_reply(fd, NBD_OPTION_INFO, reply, &bytes),
                     NBD_REPLY_INFO);
    assert_int_equal(load_be16(reply), NBD_INFO_NAME);
    assert_memory_equal(reply + 2, "second", 6);
    assert_int_equal(client_reply(fd, NBD_OPTION_INFO, reply, &bytes),
                     NBD_REPLY_INFO);
    assert_int_equal(load_be16(reply), NBD_INFO_BLOCK_SIZE);
    assert_int_equal(load_be32(reply + 2), 1);
    assert_int_equal(load_be32(reply + 10), LIMIT_NBD_PAYLOAD_BYTES);
    assert_int_equal(client_reply(fd, NBD_OPTION_INFO, NULL, NULL),
                     NBD_REPLY_ACK);
    still_answers(fd);
}

static void list_names_every_export(void **state)
{
    uint8_t reply[1024];
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_LIST, NULL, 0);
    assert_int_equal(client_reply(fd, NBD_OPTION_LIST, reply, NULL),
                     NBD_REPLY_SERVER);
    assert_memory_equal(reply + 4, "first", 5);
    assert_int_equal(client_reply(fd, NBD_OPTION_LIST, reply, NULL),
                     NBD_REPLY_SERVER);
    assert_memory_equal(reply + 4, "second", 6);
    assert_int_equal(client_reply(fd, NBD_OPTION_LIST, NULL, NULL),
                     NBD_REPLY_ACK);
    still_answers(fd);
}

static void export_name_enters_transmission(void **state)
{
    uint8_t reply[10 + NBD_EXPORT_REPLY_ZEROES];
    struct client_request read = { .type = NBD_COMMAND_READ,
                                   .cookie = 7,
                                   .length = 1 };
    uint8_t byte;
    int fd = client_connect(*state);

    client_greet(fd, NBD_HANDSHAKE_FIXED_NEWSTYLE);
    client_option(fd, NBD_OPTION_EXPORT_NAME, "first", 5);
    client_receive(fd, reply, sizeof(reply));
    assert_int_equal(load_be64(reply), RIG_DISK_BYTES);
    assert_true(load_be16(reply + 8) & NBD_FLAG_SEND_WRITE_ZEROES);
    assert_false(load_be16(reply + 8) & NBD_FLAG_SEND_DF);
    client_request(fd, &read);
    assert_int_equal(client_simple(fd, 7), 0);
    client_receive(fd, &byte, 1);
    close(fd);
}

static void export_name_of_nothing_ends_the_connection(void **state)
{
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_EXPORT_NAME, "third", 5);
    client_expect_end(fd);
    close(fd);
}

static void unknown_export_is_refused_and_named(void **state)
{
    uint8_t data[64];
    char reply[1024] = "";
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_GO, data, info_data(data, "third"));
    assert_int_equal(client_reply(fd, NBD_OPTION_GO, reply, NULL),
                     NBD_REPLY_ERROR_UNKNOWN);
    assert_non_null(strstr(reply, "third"));
    still_answers(fd);
}

/* Every option that has data, with data that is not what it should be. */
static void malformed_options_are_refused_and_forgiven(void **state)
{
    static const struct {
        uint32_t option;
        const char *data;
        uint32_t bytes;
    } cases[] = {
        { NBD_OPTION_LIST, "x", 1 },
        { NBD_OPTION_STRUCTURED_REPLY, "x", 1 },
        { NBD_OPTION_GO, "", 0 },
        { NBD_OPTION_GO, "\0\0\0", 3 },
        { NBD_OPTION_GO, "\0\0\0\5first", 9 },          /* no count */
        { NBD_OPTION_GO, "\0\0\0\5first\0\1", 11 },     /* count, no item */
        { NBD_OPTION_GO, "\0\0\0\5first\0\0x", 12 },    /* too much */
        { NBD_OPTION_GO, "\377\377\377\377first", 9 },  /* name beyond all */
        { NBD_OPTION_INFO, "\0\0\0\5fi\0st\0\0", 11 },  /* NUL in a name */
        { NBD_OPTION_INFO, "\0\0\0\2\377\376\0\0", 8 }, /* not UTF-8 */
        { NBD_OPTION_SET_META_CONTEXT, "", 0 },         /* before structured */
        { NBD_OPTION_LIST_META_CONTEXT, "", 0 },
    };

    int fd = greeted(state);

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        client_option(fd, cases[i].option, cases[i].data, cases[i].bytes);
        assert_int_equal(client_reply(fd, cases[i].option, NULL, NULL),
                         NBD_REPLY_ERROR_INVALID);
    }
    still_answers(fd);
}

static void malformed_context_queries_are_refused(void **state)
{
    static const struct {
        const char *data;
        uint32_t bytes;
    } cases[] = {
        { "", 0 },
        { "\0\0\0\5first", 9 },
        { "\0\0\0\5first\0\0\0\1", 13 },
        { "\0\0\0\5first\0\0\0\1\0\0\0\7base:", 22 },
        { "\0\0\0\5first\0\0\0\0x", 14 },
        { "\0\0\0\5first\377\377\377\377", 13 },
    };

    int fd = greeted(state);

    client_option(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    assert_int_equal(client_reply(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, NULL),
                     NBD_REPLY_ACK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        client_option(fd, NBD_OPTION_SET_META_CONTEXT, cases[i].data,
                      cases[i].bytes);
        assert_int_equal(
            client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL),
            NBD_REPLY_ERROR_INVALID);
    }
    still_answers(fd);
}

static void contexts_are_listed_by_name_space(void **state)
{
    static const char all[] = "\0\0\0\5first\0\0\0\0";
    static const char base[] = "\0\0\0\5first\0\0\0\1\0\0\0\5base:";
    static const char other[] = "\0\0\0\5first\0\0\0\1\0\0\0\5qemu:";
    uint32_t option = NBD_OPTION_LIST_META_CONTEXT;
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    (void)client_reply(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, NULL);
    client_option(fd, option, all, sizeof(all) - 1);
    assert_int_equal(client_reply(fd, option, NULL, NULL),
                     NBD_REPLY_META_CONTEXT);
    assert_int_equal(client_reply(fd, option, NULL, NULL), NBD_REPLY_ACK);
    client_option(fd, option, base, sizeof(base) - 1);
    assert_int_equal(client_reply(fd, option, NULL, NULL),
                     NBD_REPLY_META_CONTEXT);
    assert_int_equal(client_reply(fd, option, NULL, NULL), NBD_REPLY_ACK);
    client_option(fd, option, other, sizeof(other) - 1);
    assert_int_equal(client_reply(fd, option, NULL, NULL), NBD_REPLY_ACK);
    still_answers(fd);
}

/* What was selected for one export does not serve another. */
static void contexts_hold_for_their_export_only(void **state)
{
    static const char query[] =
        "\0\0\0\6second\0\0\0\1\0\0\0\17base:allocation";
    struct client_request status = { .type = NBD_COMMAND_BLOCK_STATUS,
                                     .cookie = 5,
                                     .length = 512 };
    uint8_t data[64];
    uint8_t error[64];
    uint32_t bytes;
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    (void)client_reply(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, NULL);
    client_option(fd, NBD_OPTION_SET_META_CONTEXT, query, sizeof(query) - 1);
    assert_int_equal(client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL),
                     NBD_REPLY_META_CONTEXT);
    (void)client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL);
    store_be32(data, 5);
    memcpy(data + 4, "first\0\0", 7);
    client_option(fd, NBD_OPTION_GO, data, 11);
    (void)client_reply(fd, NBD_OPTION_GO, NULL, NULL);
    (void)client_reply(fd, NBD_OPTION_GO, NULL, NULL);
    client_request(fd, &status);
    assert_int_equal(client_chunk(fd, 5, &bytes), NBD_CHUNK_ERROR);
    client_receive(fd, error, bytes);
    assert_int_equal(load_be32(error), NBD_EINVAL);
    close(fd);
}

static void unknown_options_are_refused_and_skipped(void **state)
{
    static uint8_t data[1024 * 1024];
    int fd = greeted(state);

    client_option(fd, 4711, NULL, 0);
    assert_int_equal(client_reply(fd, 4711, NULL, NULL),
                     NBD_REPLY_ERROR_UNSUPPORTED);
    client_option(fd, 4711, data, sizeof(data));
    assert_int_equal(client_reply(fd, 4711, NULL, NULL),
                     NBD_REPLY_ERROR_UNSUPPORTED);
    client_option(fd, NBD_OPTION_GO, data, sizeof(data));
    assert_int_equal(client_reply(fd, NBD_OPTION_GO, NULL, NULL),
                     NBD_REPLY_ERROR_TOO_BIG);
    still_answers(fd);
}

static void tls_is_refused_by_policy(void **state)
{
    int fd = greeted(state);

    client_option(fd, NBD_OPTION_STARTTLS, NULL, 0);
    assert_int_equal(client_reply(fd, NBD_OPTION_STARTTLS, NULL, NULL),
                     NBD_REPLY_ERROR_POLICY);
    still_answers(fd);
}

static void an_option_beyond_all_bounds_ends_the_connection(void **state)
{
    uint8_t header[NBD_OPTION_BYTES];
    int fd = greeted(state);

    store_be64(header, NBD_OPTION_MAGIC);
    store_be32(header + 8, NBD_OPTION_GO);
    store_be32(header + 12, UINT32_MAX);
    client_send(fd, header, sizeof(header));
    client_expect_end(fd);
    close(fd);
}

static void wrong_magic_ends_the_connection(void **state)
{
    uint8_t header[NBD_OPTION_BYTES] = "GET / HTTP/1.1\r\n";
    int fd = greeted(state);

    client_send(fd, header, sizeof(header));
    client_expect_end(fd);
    close(fd);
}

static void unknown_client_flags_end_the_connection(void **state)
{
    int fd = client_connect(*state);

    client_greet(fd, BOTH_FLAGS | 4);
    client_expect_end(fd);
    close(fd);
}

static void a_client_that_only_asks_is_sent_away(void **state)
{
    int fd = greeted(state);

    for (int i = 0; i < LIMIT_NBD_OPTIONS; i++) {
        client_option(fd, 4711, NULL, 0);
        (void)client_reply(fd, 4711, NULL, NULL);
    }
    client_expect_end(fd);
    close(fd);
}

static void a_client_may_leave_in_the_middle(void **state)
{
    uint8_t header[NBD_OPTION_BYTES] = { 0 };

    for (size_t bytes = 0; bytes < sizeof(header); bytes += 5) {
        int fd = greeted(state);

        client_send(fd, header, bytes);
        close(fd);
    }
    still_answers(greeted(state));
}

static const struct nbd_offer *none(void *opaque, const char *name)
{
    (void)opaque;
    (void)name;
    return NULL;
}

static const struct nbd_offer *none_next(void *opaque,
                                         const struct nbd_offer *after)
{
    (void)opaque;
    (void)after;
    return NULL;
}

static int co_negotiate_late(void *opaque)
{
    struct nbd_catalog catalog = { .find = none, .next = none_next };
    struct nbd_agreement agreement;
    int *fd = opaque;

    return co_nbd_negotiate(*fd, loop_now_ns(), &catalog, &agreement);
}

static void a_silent_client_is_dropped_at_the_deadline(void **state)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds),
                     0);
    assert_int_equal(rig_run(*state, co_negotiate_late, &fds[0]), -ETIMEDOUT);
    close(fds[0]);
    close(fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(info_tells_size_flags_and_block_sizes),
        TEST(list_names_every_export),
        TEST(export_name_enters_transmission),
        TEST(export_name_of_nothing_ends_the_connection),
        TEST(unknown_export_is_refused_and_named),
        TEST(malformed_options_are_refused_and_forgiven),
        TEST(malformed_context_queries_are_refused),
        TEST(contexts_are_listed_by_name_space),
        TEST(contexts_hold_for_their_export_only),
        TEST(unknown_options_are_refused_and_skipped),
        TEST(tls_is_refused_by_policy),
        TEST(an_option_beyond_all_bounds_ends_the_connection),
        TEST(wrong_magic_ends_the_connection),
        TEST(unknown_client_flags_end_the_connection),
        TEST(a_client_that_only_asks_is_sent_away),
        TEST(a_client_may_leave_in_the_middle),
        TEST(a_silent_client_is_dropped_at_the_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
