/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path: greet, read options one by one, answer each as
 * handshake_options.c has it, until one of them, GO or EXPORT_NAME, takes an
 * export. Replies of one option go out together.
 *
 * A client that asks for what we do not have gets an error reply with a
 * sentence and may go on. One that breaks the framing, sends too much or takes
 * too long is dropped: there is nothing to be in step with any more.
 *
 * Source: "The NBD protocol", section "Fixed newstyle negotiation".
 */
#include "nbd/negotiate.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "loop/io.h"
#include "nbd/negotiate_priv.h"
#include "nbd/protocol.h"

/* What we read past in order to refuse it politely. */
#define OPTION_SKIP_BYTES_MAX (4 * MIB)

/* Kept apart from what yields, with errno, which is the thread's. */
static G_NO_INLINE ssize_t send_now(int fd, const void *from, size_t bytes)
{
    ssize_t n = send(fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

    return n < 0 ? -errno : n;
}

static G_NO_INLINE ssize_t receive_now(int fd, void *to, size_t bytes)
{
    ssize_t n = recv(fd, to, bytes, MSG_DONTWAIT);

    if (n == 0) {
        return -ECONNRESET;
    }
    return n < 0 ? -errno : n;
}

int co_handshake_send(struct handshake *handshake)
{
    GByteArray *reply = handshake->reply;
    size_t sent = 0;

    while (sent < reply->len) {
        ssize_t n =
            send_now(handshake->fd, reply->data + sent, reply->len - sent);

        if (n == -EAGAIN) {
            n = co_poll_until(handshake->fd, POLLOUT, NULL,
                              handshake->deadline_ns);
        } else if (n > 0) {
            sent += (size_t)n;
        }
        if (n < 0 && n != -EINTR) {
            return (int)n;
        }
    }
    g_byte_array_set_size(reply, 0);
    return 0;
}

static int co_receive(struct handshake *handshake, void *buffer, size_t bytes)
{
    uint8_t *to = buffer;

    while (bytes > 0) {
        ssize_t n = receive_now(handshake->fd, to, bytes);

        if (n == -EAGAIN) {
            n = co_poll_until(handshake->fd, POLLIN, NULL,
                              handshake->deadline_ns);
        } else if (n > 0) {
            to += n;
            bytes -= (size_t)n;
        }
        if (n < 0 && n != -EINTR) {
            return (int)n;
        }
    }
    return 0;
}

/* Reads past an option's data and refuses the option. */
static int co_skip_option(struct handshake *handshake, bool known)
{
    uint32_t left = handshake->bytes;

    if (left > OPTION_SKIP_BYTES_MAX ||
        handshake->option == NBD_OPTION_EXPORT_NAME) {
        return -EPROTO;
    }
    while (left > 0) {
        uint32_t now = (uint32_t)min_u64(left, sizeof(handshake->data));
        int ret = co_receive(handshake, handshake->data, now);

        if (ret < 0) {
            return ret;
        }
        left -= now;
    }
    return known ? option_refuse(handshake, NBD_REPLY_ERROR_TOO_BIG,
                                 "the data of this option is too long")
                 : option_refuse(handshake, NBD_REPLY_ERROR_UNSUPPORTED,
                                 "this server does not know this option");
}

static int co_handle_option(struct handshake *handshake)
{
    uint8_t header[NBD_OPTION_BYTES];
    const struct option_answer *answer;
    int ret = co_receive(handshake, header, sizeof(header));

    if (ret < 0) {
        return ret;
    }
    if (load_be64(header) != NBD_OPTION_MAGIC) {
        return -EPROTO;
    }
    handshake->option = load_be32(header + 8);
    handshake->bytes = load_be32(header + 12);
    answer = option_answer_find(handshake->option);
    if (!answer || handshake->bytes > sizeof(handshake->data)) {
        ret = co_skip_option(handshake, answer != NULL);
    } else {
        ret = co_receive(handshake, handshake->data, handshake->bytes);
        ret = ret < 0 ? ret : answer->co_answer(handshake);
    }
    if (ret == OPTION_ANSWERED) {
        ret = co_handshake_send(handshake);
    }
    return ret;
}

static int co_greet(struct handshake *handshake)
{
    uint8_t greeting[NBD_GREETING_BYTES];
    uint8_t raw_flags[4];
    uint32_t flags;
    int ret;

    store_be64(greeting, NBD_INIT_MAGIC);
    store_be64(greeting + 8, NBD_OPTION_MAGIC);
    store_be16(greeting + 16,
               NBD_HANDSHAKE_FIXED_NEWSTYLE | NBD_HANDSHAKE_NO_ZEROES);
    g_byte_array_append(handshake->reply, greeting, sizeof(greeting));
    ret = co_handshake_send(handshake);
    if (ret < 0) {
        return ret;
    }
    ret = co_receive(handshake, raw_flags, sizeof(raw_flags));
    if (ret < 0) {
        return ret;
    }
    flags = load_be32(raw_flags);
    handshake->no_zeroes = flags & NBD_HANDSHAKE_NO_ZEROES;
    return flags & ~(uint32_t)(NBD_HANDSHAKE_FIXED_NEWSTYLE |
                               NBD_HANDSHAKE_NO_ZEROES)
               ? -EPROTO
               : 0;
}

int co_nbd_negotiate(int fd,
                     uint64_t deadline_ns,
                     const struct nbd_catalog *catalog,
                     struct nbd_agreement *ret_agreement)
{
    struct handshake *handshake = g_new(struct handshake, 1);
    int ret;

    /* Not zeroed as a whole: `data` is touched as far as it is used. */
    memset(handshake, 0, offsetof(struct handshake, data));
    handshake->fd = fd;
    handshake->deadline_ns = deadline_ns;
    handshake->catalog = catalog;
    handshake->reply = g_byte_array_new();
    ret = co_greet(handshake);
    for (int i = 0; ret == OPTION_ANSWERED; i++) {
        ret = i < LIMIT_NBD_OPTIONS ? co_handle_option(handshake) : -EPROTO;
    }
    if (ret == OPTION_FINISHED) {
        *ret_agreement = handshake->agreement;
        ret = 0;
    }
    g_byte_array_unref(handshake->reply);
    g_free(handshake->context_export);
    g_free(handshake);
    return ret;
}
