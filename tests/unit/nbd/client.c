/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <glib.h>

#include "base/bytes.h"
#include "nbd/protocol.h"

#define PATIENCE_S 10

int client_connect(struct rig *rig)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval patience_time = { .tv_sec = PATIENCE_S };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, rig_socket(rig), sizeof(address.sun_path));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)),
                     0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience_time,
               sizeof(patience_time));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience_time,
               sizeof(patience_time));
    return fd;
}

void client_send(int fd, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;

    while (count > 0) {
        ssize_t n = send(fd, at, count, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fail_msg("cannot send: %s", g_strerror(errno));
        }
        at += n;
        count -= (size_t)n;
    }
}

void client_receive(int fd, void *bytes, size_t count)
{
    uint8_t *at = bytes;

    while (count > 0) {
        ssize_t n = recv(fd, at, count, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            fail_msg("%zu bytes are missing: %s", count,
                     n == 0 ? "the stream has ended" : g_strerror(errno));
        }
        at += n;
        count -= (size_t)n;
    }
}

void client_expect_end(int fd)
{
    uint8_t byte;
    ssize_t n;

    do {
        n = recv(fd, &byte, 1, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        fail_msg("there is a byte: %#x", byte);
    }
    if (n < 0) {
        assert_int_equal(errno, ECONNRESET);
    }
}

void client_greet(int fd, uint32_t flags)
{
    uint8_t greeting[NBD_GREETING_BYTES];
    uint8_t answer[4];

    client_receive(fd, greeting, sizeof(greeting));
    assert_true(load_be64(greeting) == NBD_INIT_MAGIC);
    assert_true(load_be64(greeting + 8) == NBD_OPTION_MAGIC);
    store_be32(answer, flags);
    client_send(fd, answer, sizeof(answer));
}

void client_option(int fd, uint32_t option, const void *data, uint32_t bytes)
{
    uint8_t header[NBD_OPTION_BYTES];

    store_be64(header, NBD_OPTION_MAGIC);
    store_be32(header + 8, option);
    store_be32(header + 12, bytes);
    client_send(fd, header, sizeof(header));
    client_send(fd, data, bytes);
}

uint32_t client_reply(int fd, uint32_t option, void *data, size_t *ret_bytes)
{
    uint8_t header[NBD_OPTION_REPLY_BYTES];
    uint8_t scratch[1024];
    size_t bytes;

    client_receive(fd, header, sizeof(header));
    assert_true(load_be64(header) == NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(load_be32(header + 8), option);
    bytes = load_be32(header + 16);
    assert_true(bytes <= sizeof(scratch));
    client_receive(fd, data ? data : scratch, bytes);
    if (ret_bytes) {
        *ret_bytes = bytes;
    }
    return load_be32(header + 12);
}

static void select_allocation(int fd, const char *name)
{
    static const char context[] = NBD_CONTEXT_ALLOCATION;
    uint8_t data[256];
    size_t name_bytes = strlen(name);

    store_be32(data, (uint32_t)name_bytes);
    memcpy(data + 4, name, name_bytes);
    store_be32(data + 4 + name_bytes, 1);
    store_be32(data + 8 + name_bytes, sizeof(context) - 1);
    memcpy(data + 12 + name_bytes, context, sizeof(context) - 1);
    client_option(fd, NBD_OPTION_SET_META_CONTEXT, data,
                  (uint32_t)(12 + name_bytes + sizeof(context) - 1));
    assert_int_equal(client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL),
                     NBD_REPLY_META_CONTEXT);
    assert_int_equal(client_reply(fd, NBD_OPTION_SET_META_CONTEXT, NULL, NULL),
                     NBD_REPLY_ACK);
}

int client_open(struct rig *rig, const char *name, bool structured)
{
    int fd = client_connect(rig);
    uint8_t data[256];
    size_t name_bytes = strlen(name);

    client_greet(fd, NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
    if (structured) {
        client_option(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
        assert_int_equal(
            client_reply(fd, NBD_OPTION_STRUCTURED_REPLY, NULL, NULL),
            NBD_REPLY_ACK);
        select_allocation(fd, name);
    }
    store_be32(data, (uint32_t)name_bytes);
    memcpy(data + 4, name, name_bytes);
    store_be16(data + 4 + name_bytes, 0);
    client_option(fd, NBD_OPTION_GO, data, (uint32_t)(6 + name_bytes));
    assert_int_equal(client_reply(fd, NBD_OPTION_GO, NULL, NULL),
                     NBD_REPLY_INFO);
    assert_int_equal(client_reply(fd, NBD_OPTION_GO, NULL, NULL),
                     NBD_REPLY_ACK);
    return fd;
}

void client_request(int fd, const struct client_request *request)
{
    uint8_t raw[NBD_REQUEST_BYTES];

    store_be32(raw, NBD_REQUEST_MAGIC);
    store_be16(raw + 4, request->flags);
    store_be16(raw + 6, request->type);
    store_be64(raw + 8, request->cookie);
    store_be64(raw + 16, request->offset);
    store_be32(raw + 24, request->length);
    client_send(fd, raw, sizeof(raw));
}

uint32_t client_simple(int fd, uint64_t cookie)
{
    uint8_t raw[NBD_SIMPLE_BYTES];

    client_receive(fd, raw, sizeof(raw));
    assert_int_equal(load_be32(raw), NBD_SIMPLE_MAGIC);
    assert_true(load_be64(raw + 8) == cookie);
    return load_be32(raw + 4);
}

uint16_t client_chunk(int fd, uint64_t cookie, uint32_t *ret_bytes)
{
    uint8_t raw[NBD_STRUCTURED_BYTES];

    client_receive(fd, raw, sizeof(raw));
    assert_int_equal(load_be32(raw), NBD_STRUCTURED_MAGIC);
    assert_int_equal(load_be16(raw + 4), NBD_CHUNK_DONE);
    assert_true(load_be64(raw + 8) == cookie);
    *ret_bytes = load_be32(raw + 16);
    return load_be16(raw + 6);
}
