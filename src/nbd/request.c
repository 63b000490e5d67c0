/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: a request that must wait is taken from the connection's pool,
 * runs its command from the table below in a coroutine, and queues its reply.
 *
 * A failed command is answered with its error; the connection goes on. A reply
 * that can no longer be sent is dropped, its request is as free as any.
 *
 * Source: "The NBD protocol", sections "Request types" and "Command flags".
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "block/request.h"
#include "nbd/connection_priv.h"

static int co_run_read(struct nbd_request *request)
{
    const struct nbd_header *header = &request->header;
    int ret = co_block_pread(nbd_connection_node(request->connection),
                             header->offset, header->length, request->buffer);

    request->payload_bytes = header->length;
    return ret;
}

static unsigned int write_flags(const struct nbd_request *request)
{
    return (request->header.flags & NBD_COMMAND_FUA) ||
                   request->connection->options.writethrough
               ? BLOCK_FUA
               : 0;
}

static int co_run_write(struct nbd_request *request)
{
    return co_block_pwrite(nbd_connection_node(request->connection),
                           request->header.offset, request->header.length,
                           request->buffer, write_flags(request));
}

static int co_run_flush(struct nbd_request *request)
{
    return co_block_flush(nbd_connection_node(request->connection));
}

static int co_run_trim(struct nbd_request *request)
{
    int ret = co_block_discard(nbd_connection_node(request->connection),
                               request->header.offset, request->header.length);

    if (ret == 0 && (write_flags(request) & BLOCK_FUA)) {
        ret = co_block_flush(nbd_connection_node(request->connection));
    }
    return ret;
}

static int co_run_write_zeroes(struct nbd_request *request)
{
    unsigned int flags = write_flags(request);

    if (!(request->header.flags & NBD_COMMAND_NO_HOLE)) {
        flags |= BLOCK_MAY_UNMAP;
    }
    if (request->header.flags & NBD_COMMAND_FAST_ZERO) {
        flags |= BLOCK_FAST_ZERO;
    }
    return co_block_write_zeroes(nbd_connection_node(request->connection),
                                 request->header.offset, request->header.length,
                                 flags);
}

/* What CACHE asks for is read-ahead, a hint. The driver sees to that itself
 * when reads come in sequence, so there is nothing left to do here. */
static int co_run_cache(struct nbd_request *request)
{
    (void)request;
    return 0;
}

static const struct request_command {
    int (*co_run)(struct nbd_request *request); /* NULL: unknown command */
    uint16_t flags; /* that it may carry, apart from FUA, which all may */
    bool modifies;  /* refused on a read-only export */
    int beyond_end; /* errno for a range outside */
} request_commands[] = {
    [NBD_COMMAND_READ] = { co_run_read, NBD_COMMAND_DF, false, EINVAL },
    [NBD_COMMAND_WRITE] = { co_run_write, 0, true, ENOSPC },
    [NBD_COMMAND_FLUSH] = { co_run_flush, 0, false, EINVAL },
    [NBD_COMMAND_TRIM] = { co_run_trim, 0, true, EINVAL },
    [NBD_COMMAND_CACHE] = { co_run_cache, 0, false, EINVAL },
    [NBD_COMMAND_WRITE_ZEROES] = { co_run_write_zeroes,
                                   NBD_COMMAND_NO_HOLE | NBD_COMMAND_FAST_ZERO,
                                   true, ENOSPC },
    [NBD_COMMAND_BLOCK_STATUS] = { co_nbd_block_status, NBD_COMMAND_REQ_ONE,
                                   false, EINVAL },
};

static int check_length(const struct nbd_connection *connection,
                        const struct nbd_header *header)
{
    switch (header->type) {
    case NBD_COMMAND_READ:
    case NBD_COMMAND_WRITE:
        return header->length > LIMIT_NBD_PAYLOAD_BYTES ? -EINVAL : 0;
    case NBD_COMMAND_FLUSH:
        return header->offset != 0 || header->length != 0 ? -EINVAL : 0;
    case NBD_COMMAND_BLOCK_STATUS:
        return header->length == 0 || !connection->options.agreement.allocation
                   ? -EINVAL
                   : 0;
    default: return 0;
    }
}

int nbd_request_check(const struct nbd_connection *connection,
                      const struct nbd_header *header)
{
    const struct request_command *command;
    unsigned int flags = header->flags & ~(unsigned int)NBD_COMMAND_FUA;

    if (header->type >= G_N_ELEMENTS(request_commands)) {
        return -EINVAL;
    }
    command = &request_commands[header->type];
    if (!command->co_run || (flags & ~(unsigned int)command->flags)) {
        return -EINVAL;
    }
    if ((flags & NBD_COMMAND_DF) && !connection->options.agreement.structured) {
        return -EINVAL;
    }
    if (command->modifies && !connection->options.writable) {
        return -EPERM;
    }
    if (check_length(connection, header) < 0) {
        return -EINVAL;
    }
    return bytes_range_within(header->offset, header->length,
                              connection->options.size_bytes)
               ? 0
               : -command->beyond_end;
}

/* A buffer for requests of its size class, aligned for direct I/O. */
static int give_buffer(struct nbd_request *request, size_t bytes)
{
    size_t capacity = BUFFER_BYTES_MIN;

    while (capacity < bytes) {
        capacity *= 2;
    }
    free(request->buffer);
    request->capacity = 0;
    request->buffer = aligned_alloc(BUFFER_BYTES_MIN, capacity);
    if (!request->buffer) {
        return -ENOMEM;
    }
    request->capacity = capacity;
    return 0;
}

int nbd_request_take(struct nbd_connection *connection,
                     const struct nbd_header *header,
                     size_t bytes,
                     struct nbd_request **ret_request)
{
    struct nbd_request *request;

    if (list_is_empty(&connection->idle) ||
        (connection->buffer_bytes > 0 &&
         connection->buffer_bytes + bytes > BUFFER_BYTES_MAX)) {
        return -EAGAIN;
    }
    request = LIST_ENTRY(connection->idle.next, struct nbd_request, link);
    connection->buffer_keep -= request->capacity;
    if (request->capacity < bytes && give_buffer(request, bytes) < 0) {
        return -ENOMEM;
    }
    connection->buffer_bytes += request->capacity;
    list_remove(&request->link);
    request->header = *header;
    request->reply_bytes = 0;
    request->payload_bytes = 0;
    *ret_request = request;
    return 0;
}

void nbd_request_release(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;

    connection->buffer_bytes -= request->capacity;
    if (connection->buffer_keep + request->capacity > BUFFER_KEEP_BYTES_MAX) {
        free(request->buffer);
        request->buffer = NULL;
        request->capacity = 0;
    }
    connection->buffer_keep += request->capacity;
    /* The last one used is the first one taken: its memory is warm. */
    list_prepend(&connection->idle, &request->link);
}

/* Queues the reply and, unless somebody is there who will, sends it. */
static void co_finish(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;

    connection->in_flight--;
    if (connection->broken) {
        nbd_request_release(request);
    } else {
        list_append(&connection->replies, &request->link);
    }
    if (connection->executing || connection->sending || connection->quiescing ||
        connection->broken) {
        co_queue_wake_all(&connection->room);
        return;
    }
    connection->sending = true;
    co_reschedule(); /* others may be ready, too: one send for all */
    co_nbd_send(connection);
}

static void co_request_run(void *opaque)
{
    struct nbd_request *request = opaque;
    int ret = request_commands[request->header.type].co_run(request);

    if (ret < 0) {
        request->payload_bytes = 0;
    }
    request->reply_bytes =
        nbd_reply_write(request->connection, &request->header, ret,
                        request->payload_bytes, request->reply);
    co_finish(request);
}

void nbd_request_start(struct nbd_request *request)
{
    request->connection->in_flight++;
    co_enter(co_request_run, request);
}
