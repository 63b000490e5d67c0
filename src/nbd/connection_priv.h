/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What connection.c, receive.c, request.c and reply.c share.
 *
 *   socket -> receive buffer -> request, inline -------> arena ---> socket
 *                          \-> request, in a coroutine -> replies -/
 *
 * Small cached reads and writes are executed where they are found, out of the
 * receive buffer and into the arena, a block of ready replies. What would have
 * to wait becomes a `struct nbd_request` with a buffer and a coroutine of its
 * own; when done it queues on `replies`. One sender at a time takes arena and
 * replies and hands them to one sendmsg().
 *
 * Everything here belongs to the home thread.
 */
#ifndef NBD_CONNECTION_PRIV_H
#define NBD_CONNECTION_PRIV_H

#include <stddef.h>
#include <sys/uio.h>

#include "base/limits.h"
#include "base/list.h"
#include "loop/co_lock.h"
#include "loop/io.h"
#include "nbd/connection.h"
#include "nbd/protocol.h"

/* One receive takes as much as this. */
#define RECEIVE_BYTES (256 * KIB)
/* Replies that one batch of inline requests can collect. */
#define ARENA_BYTES (512 * KIB)
/* A longer payload is received into a buffer of its own. */
#define INLINE_BYTES_MAX (64 * KIB)
/* Reads up to this size are tried inline: into the arena, which stays in the
 * processor's cache, and out of it again before the next ones come. Buffers of
 * their own would be fetched from memory twice. */
#define INLINE_READ_BYTES_MAX (256 * KIB)
/* Buffers in use and buffers kept for the next request, per connection. */
#define BUFFER_BYTES_MAX      (2 * LIMIT_NBD_PAYLOAD_BYTES)
#define BUFFER_KEEP_BYTES_MAX (8 * MIB)
#define BUFFER_BYTES_MIN      (4 * KIB)

/* The longest reply header: a structured error with its sentence. */
#define ERROR_TEXT_BYTES_MAX   64
#define REPLY_HEADER_BYTES_MAX (NBD_STRUCTURED_BYTES + 6 + ERROR_TEXT_BYTES_MAX)
#define READ_HEADER_BYTES_MAX  (NBD_STRUCTURED_BYTES + 8)

_Static_assert(RECEIVE_BYTES >= 2 * (NBD_REQUEST_BYTES + INLINE_BYTES_MAX),
               "a whole inline request fits into the receive buffer");
_Static_assert(ARENA_BYTES >= READ_HEADER_BYTES_MAX + INLINE_READ_BYTES_MAX,
               "the reply of any inline request fits into the arena");

/* A request as it came over the wire. */
struct nbd_header {
    uint16_t flags; /* enum nbd_command_flags */
    uint16_t type;  /* enum nbd_command, if valid */
    uint64_t cookie;
    uint64_t offset;
    uint32_t length;
};

/* A request that needs a coroutine or a buffer. */
struct nbd_request {
    struct list link; /* idle, replies, or those in the round of sending */
    struct nbd_connection *connection;
    struct nbd_header header;
    uint8_t *buffer; /* owned */
    size_t capacity; /* of buffer */
    size_t reply_bytes;
    size_t payload_bytes;
    uint8_t reply[REPLY_HEADER_BYTES_MAX];
};

struct nbd_connection {
    struct nbd_connection_options options;

    /* What was received and not executed: [received_at, received_end). */
    uint8_t *received; /* RECEIVE_BYTES */
    size_t received_at;
    size_t received_end;
    struct nbd_request *filling; /* the write whose payload is coming in ... */
    size_t filled;               /* ... and how much of it is there */
    uint64_t discard_bytes;      /* payload of a refused write, to be skipped */
    int discard_error;           /* ... and then answered with this; 0: none */
    struct nbd_header discard_header;

    /* What was answered and not sent. */
    uint8_t *arena; /* ARENA_BYTES */
    size_t arena_bytes;
    struct list replies;
    /* The round of sending under way, empty if iov_at == iov_count. While it
     * lasts the arena may not change. */
    struct iovec iov[1 + 2 * LIMIT_NBD_REQUESTS];
    int iov_at;
    int iov_count;
    struct list round; /* requests whose replies are in it */
    bool sending;      /* a coroutine has the sender's role */

    struct list idle;       /* requests ready for use */
    unsigned int in_flight; /* requests that a coroutine executes */
    uint64_t buffer_bytes;  /* of buffers in use */
    uint64_t buffer_keep;   /* of buffers of idle requests */
    struct co_queue room;   /* the connection waits for any of the above */
    struct nbd_request requests[LIMIT_NBD_REQUESTS];

    bool executing; /* inside nbd_execute(): it will be sent after that */
    bool quiescing; /* to be stopped ... */
    bool ending;    /* receive no more, answer what is there, be over */
    bool broken;    /* nothing can be sent any more */
    bool over;

    struct io_canceller receive_canceller;
    struct io_canceller send_canceller;
    struct loop_poller poller;
    bool waiting_for_input; /* the poller may receive */
    bool polling;           /* the poller is registered */
    unsigned int poll_misses;
    unsigned int executed; /* requests of the last batch */
    unsigned int batches;  /* executed since the coroutine last waited */
};

/* Ask anew after each wait: another node may have taken its place. */
static inline struct block_node *nbd_connection_node(
    const struct nbd_connection *connection)
{
    return __atomic_load_n(&connection->options.node, __ATOMIC_ACQUIRE);
}

/* receive.c: executes what is in the receive buffer as far as possible. */
enum nbd_need {
    NBD_NEED_INPUT, /* the rest of the next request */
    NBD_NEED_ROOM,  /* in the arena, or an idle request */
    NBD_NEED_END,   /* the client said goodbye, or talks nonsense */
};
enum nbd_need nbd_execute(struct nbd_connection *connection);
/* Receives what is there, without waiting: a count, 0 at the end of the stream,
 * or a negative errno (-EAGAIN: nothing). */
ssize_t nbd_receive(struct nbd_connection *connection);

/* request.c: is the request acceptable? 0 or a negative errno. */
int nbd_request_check(const struct nbd_connection *connection,
                      const struct nbd_header *header);
/* Executes it in a coroutine and queues its reply. */
void nbd_request_start(struct nbd_request *request);
/* Takes an idle request and gives it a buffer of `bytes`. -EAGAIN: not before
 * others are done; -ENOMEM. */
int nbd_request_take(struct nbd_connection *connection,
                     const struct nbd_header *header,
                     size_t bytes,
                     struct nbd_request **ret_request);
void nbd_request_release(struct nbd_request *request);

/* block_status.c: answers BLOCK_STATUS into the request's buffer, which holds
 * NBD_STATUS_BYTES; sets payload_bytes. */
#define NBD_STATUS_EXTENTS_MAX 1024
#define NBD_STATUS_BYTES       (4 + 8 * NBD_STATUS_EXTENTS_MAX)
int co_nbd_block_status(struct nbd_request *request);

/* reply.c: writes the header of the reply to `header` at `to`: of a success
 * with `payload_bytes` of data to follow, or of a failure (a negative errno, no
 * payload). Returns its size, at most REPLY_HEADER_BYTES_MAX. */
size_t nbd_reply_write(const struct nbd_connection *connection,
                       const struct nbd_header *header,
                       int result,
                       size_t payload_bytes,
                       uint8_t *to);
/* Puts a reply without payload into the arena; false: no room now. */
bool nbd_reply_append(struct nbd_connection *connection,
                      const struct nbd_header *header,
                      int result);
/* Where `bytes` more of the arena are free; NULL: no room now. */
uint8_t *nbd_arena_reserve(struct nbd_connection *connection, size_t bytes);
bool nbd_has_output(const struct nbd_connection *connection);
/* Sends what is there without waiting. True: nothing is left to do for the
 * caller, because all is sent or a coroutine is about to. */
bool nbd_send_now(struct nbd_connection *connection);
/* Sends until nothing is left or the connection is quiesced. The caller has
 * taken the sender's role (sending = true), which ends with this. */
void co_nbd_send(struct nbd_connection *connection);
/* The stream cannot go on: drops all output, shuts the socket. */
void nbd_break(struct nbd_connection *connection);

#endif
