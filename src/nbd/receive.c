/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: one receive brings many requests; each is executed at once,
 * reads from the page cache into the arena, writes from the receive buffer. A
 * request that would have to wait gets a coroutine; a long payload is received
 * straight into its request's buffer.
 *
 * Nothing here waits. What cannot be done now (the rest has not arrived, or
 * there is no room) is left as it is, and the caller comes again. The payload
 * of a refused write is skipped, so that the stream stays in step. Only a wrong
 * magic number ends it: no one knows where the next request would begin.
 *
 * Source: "The NBD protocol", section "Request message".
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "block/request.h"
#include "nbd/connection_priv.h"

/* execute_one() has done something: come again. */
#define NEED_NOTHING ((enum nbd_need)(NBD_NEED_END + 1))

/* Makes room for the rest of a request whose beginning is there. */
static void compact(struct nbd_connection *connection)
{
    size_t left = connection->received_end - connection->received_at;

    if (left == 0) {
        connection->received_at = 0;
        connection->received_end = 0;
    } else if (connection->received_at > RECEIVE_BYTES / 2) {
        memcpy(connection->received,
               connection->received + connection->received_at, left);
        connection->received_at = 0;
        connection->received_end = left;
    }
}

ssize_t nbd_receive(struct nbd_connection *connection)
{
    struct nbd_request *filling = connection->filling;
    struct iovec iov[2];
    struct msghdr message = { .msg_iov = iov };
    size_t into_filling = 0;
    ssize_t n;

    compact(connection);
    if (filling) {
        into_filling = filling->header.length - connection->filled;
        iov[message.msg_iovlen++] =
            (struct iovec){ .iov_base = filling->buffer + connection->filled,
                            .iov_len = into_filling };
    }
    iov[message.msg_iovlen++] =
        (struct iovec){ .iov_base =
                            connection->received + connection->received_end,
                        .iov_len = RECEIVE_BYTES - connection->received_end };
    do {
        n = recvmsg(connection->options.fd, &message, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return n < 0 ? -errno : 0;
    }
    into_filling = MIN(into_filling, (size_t)n);
    connection->filled += into_filling;
    connection->received_end += (size_t)n - into_filling;
    return n;
}

static size_t received_bytes(const struct nbd_connection *connection)
{
    return connection->received_end - connection->received_at;
}

static const uint8_t *received(const struct nbd_connection *connection)
{
    return connection->received + connection->received_at;
}

/* Goes on with a payload that is received into a buffer of its own. */
static enum nbd_need fill(struct nbd_connection *connection)
{
    struct nbd_request *request = connection->filling;
    size_t missing = request->header.length - connection->filled;
    size_t now = MIN(missing, received_bytes(connection));

    memcpy(request->buffer + connection->filled, received(connection), now);
    connection->filled += now;
    connection->received_at += now;
    if (now < missing) {
        return NBD_NEED_INPUT;
    }
    connection->filling = NULL;
    nbd_request_start(request);
    return NEED_NOTHING;
}

/* Goes on with the payload of a refused write; then answers it. */
static enum nbd_need discard(struct nbd_connection *connection)
{
    size_t now =
        (size_t)min_u64(connection->discard_bytes, received_bytes(connection));

    connection->received_at += now;
    connection->discard_bytes -= now;
    if (connection->discard_bytes > 0) {
        return NBD_NEED_INPUT;
    }
    if (!nbd_reply_append(connection, &connection->discard_header,
                          connection->discard_error)) {
        return NBD_NEED_ROOM;
    }
    connection->discard_error = 0;
    return NEED_NOTHING;
}

/* The request's header is done with; so is its payload, as far as `payload`
 * bytes were used where they are. */
static void consume(struct nbd_connection *connection, size_t payload)
{
    connection->received_at += NBD_REQUEST_BYTES + payload;
}

static enum nbd_need refuse(struct nbd_connection *connection,
                            const struct nbd_header *header,
                            int error)
{
    if (header->type == NBD_COMMAND_WRITE) {
        connection->discard_header = *header;
        connection->discard_bytes = header->length;
        connection->discard_error = error;
        consume(connection, 0);
        return NEED_NOTHING;
    }
    if (!nbd_reply_append(connection, header, error)) {
        return NBD_NEED_ROOM;
    }
    consume(connection, 0);
    return NEED_NOTHING;
}

/* Gives the request a buffer of `bytes` and a coroutine, or for a long write
 * first its payload. */
static enum nbd_need defer(struct nbd_connection *connection,
                           const struct nbd_header *header,
                           size_t bytes)
{
    struct nbd_request *request;
    int ret = nbd_request_take(connection, header, bytes, &request);

    if (ret == -EAGAIN) {
        return NBD_NEED_ROOM;
    }
    if (ret < 0) {
        return refuse(connection, header, ret);
    }
    consume(connection, 0);
    if (header->type == NBD_COMMAND_WRITE) {
        connection->filling = request;
        connection->filled = 0;
        return fill(connection);
    }
    nbd_request_start(request);
    return NEED_NOTHING;
}

static enum nbd_need execute_read(struct nbd_connection *connection,
                                  const struct nbd_header *header)
{
    struct iovec iov = { .iov_len = header->length };
    size_t reply_bytes;
    uint8_t *to;
    int ret;

    if (header->length > INLINE_READ_BYTES_MAX) {
        return defer(connection, header, header->length);
    }
    to = nbd_arena_reserve(connection, REPLY_HEADER_BYTES_MAX + header->length);
    if (!to) {
        return NBD_NEED_ROOM;
    }
    reply_bytes = nbd_reply_write(connection, header, 0, header->length, to);
    iov.iov_base = to + reply_bytes;
    ret = header->length == 0
              ? 0
              : block_try_preadv(nbd_connection_node(connection),
                                 header->offset, header->length, &iov, 1);
    if (ret == -EAGAIN) {
        return defer(connection, header, header->length);
    }
    if (ret < 0) {
        return refuse(connection, header, ret);
    }
    connection->arena_bytes += reply_bytes + header->length;
    consume(connection, 0);
    return NEED_NOTHING;
}

static enum nbd_need execute_write(struct nbd_connection *connection,
                                   const struct nbd_header *header)
{
    const uint8_t *payload = received(connection) + NBD_REQUEST_BYTES;
    struct iovec iov = { .iov_len = header->length };
    int ret = -EAGAIN;

    if (header->length > INLINE_BYTES_MAX) {
        return defer(connection, header, header->length);
    }
    if (received_bytes(connection) < NBD_REQUEST_BYTES + header->length) {
        return NBD_NEED_INPUT;
    }
    if (!nbd_arena_reserve(connection, REPLY_HEADER_BYTES_MAX)) {
        return NBD_NEED_ROOM;
    }
    /* Written from, never to. */
    memcpy(&iov.iov_base, &payload, sizeof(payload));
    if (header->length == 0) {
        ret = 0;
    } else if (!(header->flags & NBD_COMMAND_FUA) &&
               !connection->options.writethrough) {
        ret = block_try_pwritev(nbd_connection_node(connection), header->offset,
                                header->length, &iov, 1);
    }
    if (ret == -EAGAIN) {
        return defer(connection, header, header->length);
    }
    (void)nbd_reply_append(connection, header, ret); /* room was made sure of */
    consume(connection, header->length);
    return NEED_NOTHING;
}

static enum nbd_need execute_request(struct nbd_connection *connection)
{
    const uint8_t *raw = received(connection);
    struct nbd_header header;
    int ret;

    if (received_bytes(connection) < NBD_REQUEST_BYTES) {
        return NBD_NEED_INPUT;
    }
    if (load_be32(raw) != NBD_REQUEST_MAGIC) {
        return NBD_NEED_END;
    }
    header = (struct nbd_header){
        .flags = load_be16(raw + 4),
        .type = load_be16(raw + 6),
        .cookie = load_be64(raw + 8),
        .offset = load_be64(raw + 16),
        .length = load_be32(raw + 24),
    };
    if (header.type == NBD_COMMAND_DISCONNECT) {
        return NBD_NEED_END;
    }
    ret = nbd_request_check(connection, &header);
    if (ret < 0) {
        return refuse(connection, &header, ret);
    }
    switch (header.type) {
    case NBD_COMMAND_READ: return execute_read(connection, &header);
    case NBD_COMMAND_WRITE: return execute_write(connection, &header);
    case NBD_COMMAND_BLOCK_STATUS:
        return defer(connection, &header, NBD_STATUS_BYTES);
    default: return defer(connection, &header, 0);
    }
}

enum nbd_need nbd_execute(struct nbd_connection *connection)
{
    enum nbd_need need;

    connection->executing = true;
    connection->executed = 0;
    do {
        if (connection->discard_error) {
            need = discard(connection);
        } else if (connection->filling) {
            need = fill(connection);
        } else {
            need = execute_request(connection);
            connection->executed += need == NEED_NOTHING;
        }
    } while (need == NEED_NOTHING);
    connection->executing = false;
    return need;
}
