/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: a batch of inline requests fills the arena, nbd_send_now()
 * sends it with one system call. Replies of requests that had a coroutine wait
 * on a list; the first such coroutine to finish lets those that are ready
 * finish, too, and then sends for all.
 *
 * A socket that takes no more leaves a round of sending half done. It is
 * finished, here or on another home thread, before anything else is sent.
 * A socket that fails breaks the connection: what is queued is dropped.
 *
 * Source: "The NBD protocol", sections "Simple reply message", "Structured
 * reply chunk message", "Structured reply types" and "Error values".
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/bytes.h"
#include "nbd/connection_priv.h"

static const struct reply_error {
    int code; /* errno */
    enum nbd_error error;
    const char *text;
} reply_errors[] = {
    { EPERM, NBD_EPERM, "the export is read-only" },
    { EROFS, NBD_EPERM, "the export is read-only" },
    { EACCES, NBD_EPERM, "the image may not be written" },
    { ENOMEM, NBD_ENOMEM, "the server is short of memory" },
    { EINVAL, NBD_EINVAL, "the request is not valid for this export" },
    { ENOSPC, NBD_ENOSPC, "no space: disk full, or beyond the export's end" },
    { EDQUOT, NBD_ENOSPC, "the disk quota is used up" },
    { EFBIG, NBD_ENOSPC, "the image cannot get this large" },
    { EOVERFLOW, NBD_EOVERFLOW, "the request is too large" },
    { EOPNOTSUPP, NBD_ENOTSUP, "the image cannot do this" },
    { ESHUTDOWN, NBD_ESHUTDOWN, "the export is being shut down" },
};

_Static_assert(EOPNOTSUPP == ENOTSUP, "one entry serves both");

static const struct reply_error *find_error(int code)
{
    static const struct reply_error other = { EIO, NBD_EIO,
                                              "input/output error" };

    for (size_t i = 0; i < sizeof(reply_errors) / sizeof(*reply_errors); i++) {
        if (reply_errors[i].code == code) {
            return &reply_errors[i];
        }
    }
    return &other;
}

static size_t write_simple(const struct nbd_header *header,
                           uint32_t error,
                           uint8_t *to)
{
    store_be32(to, NBD_SIMPLE_MAGIC);
    store_be32(to + 4, error);
    store_be64(to + 8, header->cookie);
    return NBD_SIMPLE_BYTES;
}

static size_t write_chunk(const struct nbd_header *header,
                          uint16_t type,
                          size_t bytes,
                          uint8_t *to)
{
    store_be32(to, NBD_STRUCTURED_MAGIC);
    store_be16(to + 4, NBD_CHUNK_DONE);
    store_be16(to + 6, type);
    store_be64(to + 8, header->cookie);
    store_be32(to + 16, (uint32_t)bytes);
    return NBD_STRUCTURED_BYTES;
}

static size_t write_error(const struct nbd_connection *connection,
                          const struct nbd_header *header,
                          int result,
                          uint8_t *to)
{
    const struct reply_error *error = find_error(-result);
    size_t text_bytes = strlen(error->text);

    g_assert(text_bytes <= ERROR_TEXT_BYTES_MAX);
    if (!connection->options.agreement.structured) {
        return write_simple(header, error->error, to);
    }
    to += write_chunk(header, NBD_CHUNK_ERROR, 6 + text_bytes, to);
    store_be32(to, error->error);
    store_be16(to + 4, (uint16_t)text_bytes);
    memcpy(to + 6, error->text, text_bytes);
    return NBD_STRUCTURED_BYTES + 6 + text_bytes;
}

size_t nbd_reply_write(const struct nbd_connection *connection,
                       const struct nbd_header *header,
                       int result,
                       size_t payload_bytes,
                       uint8_t *to)
{
    if (result < 0) {
        return write_error(connection, header, result, to);
    }
    if (!connection->options.agreement.structured) {
        return write_simple(header, 0, to);
    }
    if (header->type == NBD_COMMAND_BLOCK_STATUS) {
        return write_chunk(header, NBD_CHUNK_BLOCK_STATUS, payload_bytes, to);
    }
    if (header->type != NBD_COMMAND_READ) {
        return write_simple(header, 0, to);
    }
    if (payload_bytes == 0) {
        return write_chunk(header, NBD_CHUNK_NONE, 0, to);
    }
    (void)write_chunk(header, NBD_CHUNK_OFFSET_DATA, 8 + payload_bytes, to);
    store_be64(to + NBD_STRUCTURED_BYTES, header->offset);
    return READ_HEADER_BYTES_MAX;
}

size_t nbd_reply_write_hole(const struct nbd_header *header, uint8_t *to)
{
    size_t bytes = write_chunk(header, NBD_CHUNK_OFFSET_HOLE, 12, to);

    store_be64(to + bytes, header->offset);
    store_be32(to + bytes + 8, header->length);
    return bytes + 12;
}

static bool round_under_way(const struct nbd_connection *connection)
{
    return connection->iov_at < connection->iov_count;
}

uint8_t *nbd_arena_reserve(struct nbd_connection *connection, size_t bytes)
{
    if (round_under_way(connection) ||
        bytes > ARENA_BYTES - connection->arena_bytes) {
        return NULL;
    }
    return connection->arena + connection->arena_bytes;
}

bool nbd_reply_append(struct nbd_connection *connection,
                      const struct nbd_header *header,
                      int result)
{
    uint8_t *to = nbd_arena_reserve(connection, REPLY_HEADER_BYTES_MAX);

    if (!to) {
        return false;
    }
    connection->arena_bytes +=
        nbd_reply_write(connection, header, result, 0, to);
    return true;
}

bool nbd_has_output(const struct nbd_connection *connection)
{
    return round_under_way(connection) || connection->arena_bytes > 0 ||
           !list_is_empty(&connection->replies);
}

static void add_to_round(struct nbd_connection *connection,
                         void *from,
                         size_t bytes)
{
    g_assert(connection->iov_count < (int)G_N_ELEMENTS(connection->iov));
    if (bytes > 0) {
        connection->iov[connection->iov_count++] =
            (struct iovec){ .iov_base = from, .iov_len = bytes };
    }
}

/* Collects all there is to send. */
static void begin_round(struct nbd_connection *connection)
{
    struct list *link;

    connection->iov_at = 0;
    connection->iov_count = 0;
    add_to_round(connection, connection->arena, connection->arena_bytes);
    while ((link = list_take_first(&connection->replies))) {
        struct nbd_request *request =
            LIST_ENTRY(link, struct nbd_request, link);

        list_append(&connection->round, link);
        add_to_round(connection, request->reply, request->reply_bytes);
        add_to_round(connection, request->buffer, request->payload_bytes);
    }
}

static void end_round(struct nbd_connection *connection)
{
    struct list *link;

    connection->iov_at = 0;
    connection->iov_count = 0;
    connection->arena_bytes = 0;
    while ((link = list_take_first(&connection->round))) {
        nbd_request_release(LIST_ENTRY(link, struct nbd_request, link));
    }
}

static void advance_round(struct nbd_connection *connection, size_t bytes)
{
    while (bytes > 0) {
        struct iovec *first = &connection->iov[connection->iov_at];
        size_t now = MIN(bytes, first->iov_len);

        first->iov_base = (uint8_t *)first->iov_base + now;
        first->iov_len -= now;
        bytes -= now;
        if (first->iov_len == 0) {
            connection->iov_at++;
        }
    }
}

/* Sends one round, as far as the socket takes it: 0 when it is done. Not part
 * of anything that yields, for errno's sake. */
static G_NO_INLINE int send_round(struct nbd_connection *connection)
{
    if (!round_under_way(connection)) {
        begin_round(connection);
    }
    while (round_under_way(connection)) {
        struct msghdr message = {
            .msg_iov = connection->iov + connection->iov_at,
            .msg_iovlen = (size_t)(connection->iov_count - connection->iov_at),
        };
        ssize_t n = sendmsg(connection->options.fd, &message,
                            MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0) {
            advance_round(connection, (size_t)n);
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    end_round(connection);
    return 0;
}

void nbd_break(struct nbd_connection *connection)
{
    connection->broken = true;
    connection->ending = true;
    end_round(connection);
    begin_round(connection);
    end_round(connection);
    nbd_connection_drop(connection);
}

bool nbd_send_now(struct nbd_connection *connection)
{
    while (!connection->sending && nbd_has_output(connection)) {
        int ret = send_round(connection);

        if (ret == -EAGAIN) {
            return false;
        }
        if (ret < 0) {
            nbd_break(connection);
        }
    }
    return true;
}

void co_nbd_send(struct nbd_connection *connection)
{
    g_assert(connection->sending);
    while (nbd_has_output(connection) && !connection->quiescing) {
        int ret = send_round(connection);

        if (ret == -EAGAIN) {
            ret = co_poll(connection->options.fd, POLLOUT,
                          &connection->send_canceller);
        }
        if (ret < 0 && ret != -ECANCELED) {
            nbd_break(connection);
        }
        co_queue_wake_all(&connection->room);
    }
    connection->sending = false;
    co_queue_wake_all(&connection->room);
}
