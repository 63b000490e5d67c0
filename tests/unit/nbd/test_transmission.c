/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests and replies, by the byte. */
#include "client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "nbd/protocol.h"

static int set_up(void **state)
{
    struct rig *rig = rig_new();

    rig_start_server(rig, 100);
    assert_int_equal(rig_export(rig, "w", true, NULL), 0);
    assert_int_equal(rig_export(rig, "r", false, NULL), 0);
    *state = rig;
    return 0;
}

static int tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

static void fill(uint8_t *to, size_t bytes, unsigned int seed)
{
    for (size_t i = 0; i < bytes; i++) {
        to[i] = (uint8_t)(seed + i * 7 + i / 256);
    }
}

static void send_write(int fd,
                       uint64_t cookie,
                       uint64_t offset,
                       const void *data,
                       uint32_t length)
{
    struct client_request write = { .type = NBD_COMMAND_WRITE,
                                    .cookie = cookie,
                                    .offset = offset,
                                    .length = length };

    client_request(fd, &write);
    client_send(fd, data, length);
}

static void send_read(int fd, uint64_t cookie, uint64_t offset, uint32_t length)
{
    struct client_request read = { .type = NBD_COMMAND_READ,
                                   .cookie = cookie,
                                   .offset = offset,
                                   .length = length };

    client_request(fd, &read);
}

/* The data of a read, in whichever form the client negotiated. */
static void receive_read(int fd,
                         bool structured,
                         uint64_t cookie,
                         uint64_t offset,
                         void *data,
                         uint32_t length)
{
    uint8_t raw[8];
    uint32_t bytes;

    if (structured) {
        assert_int_equal(client_chunk(fd, cookie, &bytes),
                         NBD_CHUNK_OFFSET_DATA);
        assert_int_equal(bytes, 8 + length);
        client_receive(fd, raw, sizeof(raw));
        assert_true(load_be64(raw) == offset);
    } else {
        assert_int_equal(client_simple(fd, cookie), 0);
    }
    client_receive(fd, data, length);
}

/* The error of a failed request, in structured form, with its sentence. */
static uint32_t receive_error(int fd, uint64_t cookie)
{
    uint8_t data[256];
    uint32_t bytes;

    assert_int_equal(client_chunk(fd, cookie, &bytes), NBD_CHUNK_ERROR);
    assert_in_range(bytes, 7, sizeof(data));
    client_receive(fd, data, bytes);
    assert_int_equal(load_be16(data + 4), bytes - 6);
    return load_be32(data);
}

static void still_answers(int fd, bool structured)
{
    uint8_t data[8];

    send_read(fd, UINT64_MAX, 0, sizeof(data));
    receive_read(fd, structured, UINT64_MAX, 0, data, sizeof(data));
    close(fd);
}

static void what_is_written_is_read_back(void **state)
{
    static const uint32_t lengths[] = { 1, 511, 4096, 65536, 65537, 900000 };
    static uint8_t out[1024 * 1024];
    static uint8_t in[1024 * 1024];

    for (unsigned int i = 0; i < 4; i++) {
        bool structured = i & 1;
        int fd;

        rig_set_mood(*state, i & 2 ? RIG_SLOW : RIG_QUICK);
        fd = client_open(*state, "w", structured);
        for (size_t k = 0; k < sizeof(lengths) / sizeof(*lengths); k++) {
            fill(out, lengths[k], i + (unsigned int)k);
            send_write(fd, k, 4321, out, lengths[k]);
            assert_int_equal(client_simple(fd, k), 0);
            send_read(fd, k, 4321, lengths[k]);
            receive_read(fd, structured, k, 4321, in, lengths[k]);
            assert_memory_equal(in, out, lengths[k]);
            assert_memory_equal(rig_content(*state) + 4321, out, lengths[k]);
        }
        close(fd);
    }
}

static void the_last_bytes_of_an_odd_disk_are_there(void **state)
{
    uint8_t byte;
    int fd = client_open(*state, "w", true);

    rig_content(*state)[RIG_DISK_BYTES - 1] = 0x5a;
    send_read(fd, 1, RIG_DISK_BYTES - 1, 1);
    receive_read(fd, true, 1, RIG_DISK_BYTES - 1, &byte, 1);
    assert_int_equal(byte, 0x5a);
    close(fd);
}

/* Requests that come byte by byte mean the same. */
static void requests_may_come_in_pieces(void **state)
{
    static uint8_t stream[70000];
    uint8_t data[300];
    int fd = client_open(*state, "w", false);
    int plug[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, plug), 0);
    fill(data, sizeof(data), 3);
    send_write(plug[0], 1, 10, data, sizeof(data));
    client_receive(plug[1], stream, NBD_REQUEST_BYTES + sizeof(data));
    for (size_t i = 0; i < NBD_REQUEST_BYTES + sizeof(data); i++) {
        client_send(fd, stream + i, 1);
    }
    assert_int_equal(client_simple(fd, 1), 0);
    assert_memory_equal(rig_content(*state) + 10, data, sizeof(data));
    close(plug[0]);
    close(plug[1]);
    still_answers(fd, false);
}

/* More requests at once than may be in flight, none lost, in any order. */
static void a_flood_of_requests_is_answered(void **state)
{
    enum {
        COUNT = 5 * LIMIT_NBD_REQUESTS
    };

    static uint8_t requests[COUNT * NBD_REQUEST_BYTES];

    for (int slow = 0; slow < 2; slow++) {
        bool answered[COUNT] = { false };
        int fd;

        rig_set_mood(*state, slow ? RIG_SLOW : RIG_QUICK);
        fd = client_open(*state, "w", false);
        for (uint64_t i = 0; i < COUNT; i++) {
            uint8_t *raw = requests + i * NBD_REQUEST_BYTES;

            memset(raw, 0, NBD_REQUEST_BYTES);
            store_be32(raw, NBD_REQUEST_MAGIC);
            store_be64(raw + 8, i);
            store_be64(raw + 16, i);
            store_be32(raw + 24, 1024);
        }
        client_send(fd, requests, sizeof(requests));
        for (int i = 0; i < COUNT; i++) {
            uint8_t raw[NBD_SIMPLE_BYTES + 1024];

            client_receive(fd, raw, sizeof(raw));
            assert_int_equal(load_be32(raw + 4), 0);
            assert_in_range(load_be64(raw + 8), 0, COUNT - 1);
            assert_false(answered[load_be64(raw + 8)]);
            answered[load_be64(raw + 8)] = true;
        }
        still_answers(fd, false);
    }
}

static void requests_beyond_the_end_are_refused(void **state)
{
    static const struct {
        uint64_t offset;
        uint32_t length;
        uint16_t type;
        uint32_t error;
    } cases[] = {
        { RIG_DISK_BYTES, 1, NBD_COMMAND_READ, NBD_EINVAL },
        { RIG_DISK_BYTES - 1, 2, NBD_COMMAND_READ, NBD_EINVAL },
        { UINT64_MAX, 1, NBD_COMMAND_READ, NBD_EINVAL },
        { UINT64_MAX - 4095, 4096, NBD_COMMAND_READ, NBD_EINVAL },
        { 0, RIG_DISK_BYTES + 1, NBD_COMMAND_READ, NBD_EINVAL },
        { RIG_DISK_BYTES - 1, 2, NBD_COMMAND_WRITE, NBD_ENOSPC },
        { UINT64_MAX, 4096, NBD_COMMAND_WRITE, NBD_ENOSPC },
        { RIG_DISK_BYTES, 1, NBD_COMMAND_WRITE_ZEROES, NBD_ENOSPC },
        { 0, UINT32_MAX, NBD_COMMAND_WRITE_ZEROES, NBD_ENOSPC },
        { RIG_DISK_BYTES, 1, NBD_COMMAND_TRIM, NBD_EINVAL },
        { RIG_DISK_BYTES, 1, NBD_COMMAND_BLOCK_STATUS, NBD_EINVAL },
        { 0, 0, NBD_COMMAND_BLOCK_STATUS, NBD_EINVAL },
        { 1, 0, NBD_COMMAND_FLUSH, NBD_EINVAL },
    };

    static uint8_t payload[4096];
    int fd = client_open(*state, "w", true);

    for (uint64_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct client_request request = { .type = cases[i].type,
                                          .cookie = i,
                                          .offset = cases[i].offset,
                                          .length = cases[i].length };

        client_request(fd, &request);
        if (request.type == NBD_COMMAND_WRITE) {
            client_send(fd, payload, request.length);
        }
        assert_int_equal(receive_error(fd, i), cases[i].error);
    }
    still_answers(fd, true);
}

static void unknown_commands_and_flags_are_refused(void **state)
{
    static const struct client_request cases[] = {
        { .type = 8, .length = 1 },
        { .type = 0xffff, .length = 1 },
        { .type = NBD_COMMAND_READ, .flags = 1 << 5, .length = 1 },
        { .type = NBD_COMMAND_READ, .flags = NBD_COMMAND_NO_HOLE, .length = 1 },
        { .type = NBD_COMMAND_TRIM, .flags = NBD_COMMAND_DF, .length = 1 },
        { .type = NBD_COMMAND_FLUSH, .flags = NBD_COMMAND_REQ_ONE },
    };
    int fd = client_open(*state, "w", true);

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        client_request(fd, &cases[i]);
        assert_int_equal(receive_error(fd, 0), NBD_EINVAL);
    }
    still_answers(fd, true);
}

/* The payload of a refused write is not taken for requests. */
static void a_refused_write_leaves_the_stream_in_step(void **state)
{
    static uint8_t payload[LIMIT_NBD_PAYLOAD_BYTES + 1];
    int reader = client_open(*state, "r", true);
    int writer = client_open(*state, "w", true);

    send_write(reader, 1, 0, payload, 100000);
    assert_int_equal(receive_error(reader, 1), NBD_EPERM);
    still_answers(reader, true);
    send_write(writer, 1, 0, payload, sizeof(payload));
    assert_int_equal(receive_error(writer, 1), NBD_EINVAL);
    still_answers(writer, true);
}

static void a_read_only_export_cannot_be_changed(void **state)
{
    static const uint16_t types[] = { NBD_COMMAND_TRIM,
                                      NBD_COMMAND_WRITE_ZEROES };
    int fd = client_open(*state, "r", true);

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        struct client_request request = { .type = types[i],
                                          .cookie = i,
                                          .length = 10 };

        client_request(fd, &request);
        assert_int_equal(receive_error(fd, i), NBD_EPERM);
    }
    still_answers(fd, true);
}

static void wrong_magic_ends_the_connection(void **state)
{
    uint8_t garbage[NBD_REQUEST_BYTES] = { 0 };
    uint8_t data[8];
    int fd = client_open(*state, "w", false);

    /* What came before is answered. */
    send_read(fd, 1, 0, sizeof(data));
    client_send(fd, garbage, sizeof(garbage));
    receive_read(fd, false, 1, 0, data, sizeof(data));
    client_expect_end(fd);
    close(fd);
    still_answers(client_open(*state, "w", false), false);
}

static void goodbye_comes_after_all_answers(void **state)
{
    struct client_request disconnect = { .type = NBD_COMMAND_DISCONNECT };
    uint8_t data[8];
    int fd = client_open(*state, "w", false);

    rig_set_mood(*state, RIG_HUNG);
    send_read(fd, 1, 0, sizeof(data));
    client_request(fd, &disconnect);
    rig_wait_for_hung(*state, 1);
    rig_set_mood(*state, RIG_QUICK);
    receive_read(fd, false, 1, 0, data, sizeof(data));
    client_expect_end(fd);
    close(fd);
}

static void a_failing_disk_fails_requests_only(void **state)
{
    uint8_t data[100] = { 0 };
    int fd = client_open(*state, "w", true);

    rig_set_mood(*state, RIG_BROKEN);
    send_read(fd, 1, 0, sizeof(data));
    assert_int_equal(receive_error(fd, 1), NBD_EIO);
    send_write(fd, 2, 0, data, sizeof(data));
    assert_int_equal(receive_error(fd, 2), NBD_EIO);
    send_read(fd, 3, 0, 100000);
    assert_int_equal(receive_error(fd, 3), NBD_EIO);
    rig_set_mood(*state, RIG_QUICK);
    still_answers(fd, true);
}

static void flush_and_fua_reach_the_disk(void **state)
{
    struct client_request flush = { .type = NBD_COMMAND_FLUSH, .cookie = 1 };
    struct client_request zeroes = { .type = NBD_COMMAND_WRITE_ZEROES,
                                     .flags = NBD_COMMAND_FUA,
                                     .cookie = 2,
                                     .length = 1000 };
    struct client_request trim = { .type = NBD_COMMAND_TRIM,
                                   .flags = NBD_COMMAND_FUA,
                                   .cookie = 3,
                                   .length = 1000 };
    struct client_request write = { .type = NBD_COMMAND_WRITE,
                                    .flags = NBD_COMMAND_FUA,
                                    .cookie = 4,
                                    .length = 8 };
    int fd = client_open(*state, "w", false);

    rig_content(*state)[500] = 1;
    client_request(fd, &flush);
    assert_int_equal(client_simple(fd, 1), 0);
    assert_int_equal(rig_flushes(*state), 1);
    client_request(fd, &zeroes);
    assert_int_equal(client_simple(fd, 2), 0);
    assert_int_equal(rig_flushes(*state), 2);
    assert_int_equal(rig_content(*state)[500], 0);
    client_request(fd, &trim);
    assert_int_equal(client_simple(fd, 3), 0);
    assert_int_equal(rig_flushes(*state), 3);
    client_request(fd, &write);
    client_send(fd, "12345678", 8);
    assert_int_equal(client_simple(fd, 4), 0);
    assert_int_equal(rig_flushes(*state), 4);
    close(fd);
}

static void block_status_tells_data_from_holes(void **state)
{
    struct client_request status = { .type = NBD_COMMAND_BLOCK_STATUS,
                                     .length = RIG_DISK_BYTES };
    uint32_t quarter = RIG_DISK_BYTES / 4;
    uint8_t data[256];
    uint32_t bytes;
    int fd = client_open(*state, "w", true);

    client_request(fd, &status);
    assert_int_equal(client_chunk(fd, 0, &bytes), NBD_CHUNK_BLOCK_STATUS);
    assert_int_equal(bytes, 4 + 3 * 8); /* data, hole, joined data */
    client_receive(fd, data, bytes);
    assert_int_equal(load_be32(data), NBD_CONTEXT_ALLOCATION_ID);
    assert_int_equal(load_be32(data + 4), quarter);
    assert_int_equal(load_be32(data + 8), 0);
    assert_int_equal(load_be32(data + 12), quarter);
    assert_int_equal(load_be32(data + 16), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(load_be32(data + 20), RIG_DISK_BYTES - 2 * quarter);
    assert_int_equal(load_be32(data + 24), 0);
    status.flags = NBD_COMMAND_REQ_ONE;
    status.offset = quarter + 5;
    status.length = quarter;
    client_request(fd, &status);
    assert_int_equal(client_chunk(fd, 0, &bytes), NBD_CHUNK_BLOCK_STATUS);
    assert_int_equal(bytes, 4 + 8);
    client_receive(fd, data, bytes);
    assert_int_equal(load_be32(data + 4), quarter - 5);
    close(fd);
}

static void block_status_needs_its_context(void **state)
{
    struct client_request status = { .type = NBD_COMMAND_BLOCK_STATUS,
                                     .length = 512 };
    int fd = client_open(*state, "w", false);

    client_request(fd, &status);
    assert_int_equal(client_simple(fd, 0), NBD_EINVAL);
    still_answers(fd, false);
}

static void empty_requests_are_answered(void **state)
{
    struct client_request request = { .type = NBD_COMMAND_READ };
    uint32_t bytes;
    int fd = client_open(*state, "w", true);

    client_request(fd, &request);
    assert_int_equal(client_chunk(fd, 0, &bytes), NBD_CHUNK_NONE);
    assert_int_equal(bytes, 0);
    request.type = NBD_COMMAND_WRITE;
    client_request(fd, &request);
    assert_int_equal(client_simple(fd, 0), 0);
    request.type = NBD_COMMAND_TRIM;
    client_request(fd, &request);
    assert_int_equal(client_simple(fd, 0), 0);
    close(fd);
}

static void zeroes_are_told_and_not_sent(void **state)
{
    uint8_t data[12];
    uint32_t bytes;
    int fd = client_open(*state, "w", true);

    send_read(fd, 7, 4096, 8192);
    assert_int_equal(client_chunk(fd, 7, &bytes), NBD_CHUNK_OFFSET_HOLE);
    assert_int_equal(bytes, sizeof(data));
    client_receive(fd, data, sizeof(data));
    assert_true(load_be64(data) == 4096);
    assert_int_equal(load_be32(data + 8), 8192);
    still_answers(fd, true);
}

static void zeroes_are_sent_to_a_client_of_simple_replies(void **state)
{
    static uint8_t data[8192];
    int fd = client_open(*state, "w", false);

    send_read(fd, 7, 4096, sizeof(data));
    receive_read(fd, false, 7, 4096, data, sizeof(data));
    still_answers(fd, false);
}

/* A client that never reads fills its own buffers and waits; others go on. */
static void a_client_that_does_not_read_stops_only_itself(void **state)
{
    static uint8_t request[NBD_REQUEST_BYTES];
    int fd = client_open(*state, "w", false);
    ssize_t n;

    store_be32(request, NBD_REQUEST_MAGIC);
    store_be32(request + 24, 1000000);
    do {
        n = send(fd, request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n == (ssize_t)sizeof(request));
    still_answers(client_open(*state, "w", false), false);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_written_is_read_back),
        TEST(the_last_bytes_of_an_odd_disk_are_there),
        TEST(requests_may_come_in_pieces),
        TEST(a_flood_of_requests_is_answered),
        TEST(requests_beyond_the_end_are_refused),
        TEST(unknown_commands_and_flags_are_refused),
        TEST(a_refused_write_leaves_the_stream_in_step),
        TEST(a_read_only_export_cannot_be_changed),
        TEST(wrong_magic_ends_the_connection),
        TEST(goodbye_comes_after_all_answers),
        TEST(a_failing_disk_fails_requests_only),
        TEST(flush_and_fua_reach_the_disk),
        TEST(block_status_tells_data_from_holes),
        TEST(block_status_needs_its_context),
        TEST(empty_requests_are_answered),
        TEST(zeroes_are_told_and_not_sent),
        TEST(zeroes_are_sent_to_a_client_of_simple_replies),
        TEST(a_client_that_does_not_read_stops_only_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
