/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Two ends of a stream, and who reads or waits at one. */
struct talk {
    int fds[2];
    struct io_canceller canceller;
    struct coroutine *main;
    int64_t result;
    char buffer[64];
};

static void run_talk(coroutine_fn run)
{
    struct talk talk = { .result = 1000 };

    assert_int_equal(socketpair(AF_UNIX,
                                SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
                                talk.fds),
                     0);
    io_canceller_init(&talk.canceller);
    run_in_loop(run, &talk);
    close(talk.fds[0]);
    if (talk.fds[1] >= 0) {
        close(talk.fds[1]);
    }
}

static void finish(struct talk *talk, int64_t result)
{
    talk->result = result;
    co_wake(talk->main);
}

static void receive(void *opaque)
{
    struct talk *talk = opaque;

    finish(talk, co_recv(talk->fds[0], talk->buffer, sizeof(talk->buffer),
                         &talk->canceller));
}

static void recv_waits_and_gets(void *opaque)
{
    struct talk *talk = opaque;

    talk->main = co_self();
    co_enter(receive, talk);
    assert_int_equal(talk->result, 1000);
    assert_int_equal(write(talk->fds[1], "hello", 5), 5);
    co_yield ();
    assert_int_equal(talk->result, 5);
    assert_memory_equal(talk->buffer, "hello", 5);
}

static void recv_returns_what_is_there(void **state)
{
    (void)state;
    run_talk(recv_waits_and_gets);
}

static void end_of_stream(void *opaque)
{
    struct talk *talk = opaque;
    char buffer[4];

    assert_int_equal(write(talk->fds[1], "ab", 2), 2);
    close(talk->fds[1]);
    talk->fds[1] = -1;
    assert_int_equal(co_recv_all(talk->fds[0], buffer, 0, NULL), 0);
    assert_int_equal(co_recv_all(talk->fds[0], buffer, 4, NULL), -ECONNRESET);
    assert_int_equal(co_recv(talk->fds[0], buffer, 4, NULL), 0);
}

/* 0 from co_recv(), an error where more was expected. */
static void end_of_stream_is_told_apart(void **state)
{
    (void)state;
    run_talk(end_of_stream);
}

static void receive_all(void *opaque)
{
    struct talk *talk = opaque;

    finish(talk, co_recv_all(talk->fds[0], talk->buffer, 6, NULL));
}

static void recv_all_in_parts(void *opaque)
{
    struct talk *talk = opaque;

    talk->main = co_self();
    co_enter(receive_all, talk);
    for (unsigned i = 0; i < 3; i++) {
        co_sleep_until(loop_now_ns() + 100000);
        assert_int_equal(talk->result, 1000);
        assert_int_equal(write(talk->fds[1], &"abcdef"[2 * i], 2), 2);
    }
    co_yield ();
    assert_int_equal(talk->result, 0);
    assert_memory_equal(talk->buffer, "abcdef", 6);
}

static void recv_all_waits_for_all_parts(void **state)
{
    (void)state;
    run_talk(recv_all_in_parts);
}

static void be_cancelled(void *opaque)
{
    struct talk *talk = opaque;

    talk->main = co_self();
    co_enter(receive, talk);
    io_cancel(&talk->canceller);
    io_cancel(&talk->canceller);
    co_yield ();
    assert_int_equal(talk->result, -ECANCELED);

    /* From now on nothing waits, or takes, though there is something. */
    assert_int_equal(write(talk->fds[1], "x", 1), 1);
    struct iovec iov = { talk->buffer, 1 };
    struct io_canceller *canceller = &talk->canceller;
    int fd = talk->fds[0];
    assert_int_equal(co_recv(fd, talk->buffer, 1, canceller), -ECANCELED);
    assert_int_equal(co_recv_all(fd, talk->buffer, 1, canceller), -ECANCELED);
    assert_int_equal(co_send_all(fd, &iov, 1, canceller), -ECANCELED);
    assert_int_equal(co_poll(fd, POLLIN, canceller), -ECANCELED);
    assert_int_equal(co_accept(fd, canceller), -ECANCELED);
    assert_int_equal(co_recv(fd, talk->buffer, 1, NULL), 1);
}

static void cancelling_ends_this_wait_and_later_ones(void **state)
{
    (void)state;
    run_talk(be_cancelled);
}

static void await_input(void *opaque)
{
    struct talk *talk = opaque;

    finish(talk, co_poll(talk->fds[0], POLLIN, &talk->canceller));
}

/* Input has come, and the kernel has been told to look who waits for it; but
 * before it does, somebody else takes the input. */
static void take_input_of(struct talk *talk)
{
    co_reschedule(); /* the wait is the kernel's from here on */
    assert_int_equal(write(talk->fds[1], "x", 1), 1);
    assert_int_equal(read(talk->fds[0], talk->buffer, 1), 1);
}

static void be_cancelled_without_input(void *opaque)
{
    struct talk *talk = opaque;

    talk->main = co_self();
    co_enter(await_input, talk);
    take_input_of(talk);
    io_cancel(&talk->canceller);
    co_yield ();
    assert_int_equal(talk->result, -ECANCELED);
}

static void a_wait_whose_input_is_gone_can_be_cancelled(void **state)
{
    (void)state;
    run_talk(be_cancelled_without_input);
}

static void poll_all_ways(void *opaque)
{
    struct talk *talk = opaque;
    int fd = talk->fds[0];

    assert_int_equal(co_poll(fd, POLLOUT, NULL), POLLOUT);
    assert_int_equal(co_poll_until(fd, POLLIN, NULL, 0), -ETIMEDOUT);
    assert_int_equal(
        co_poll_until(fd, POLLIN, &talk->canceller, loop_now_ns() + 1000000),
        -ETIMEDOUT);
    assert_int_equal(write(talk->fds[1], "x", 1), 1);
    assert_int_equal(co_poll_until(fd, POLLIN | POLLOUT, &talk->canceller,
                                   loop_now_ns() + UINT64_C(60000000000)),
                     POLLIN | POLLOUT);
    assert_int_equal(co_poll(-1, POLLIN, NULL), -EBADF);
    close(talk->fds[1]);
    talk->fds[1] = -1;
    assert_true((co_poll(fd, POLLIN, NULL) & POLLHUP) != 0);
}

static void poll_tells_events_deadline_and_errors(void **state)
{
    (void)state;
    run_talk(poll_all_ways);
}

#define VECTORS 1500 /* more than IOV_MAX */

static void send_a_lot(void *opaque)
{
    struct talk *talk = opaque;
    g_autofree struct iovec *iov = g_new0(struct iovec, VECTORS);
    g_autofree char *data = g_malloc(VECTORS * 1000);

    memset(data, 's', VECTORS * 1000);
    for (size_t i = 0; i < VECTORS; i++) {
        if (i % 10 != 0) { /* some are empty, the first too */
            iov[i] = (struct iovec){ data + i * 1000, 1000 };
        }
    }
    finish(talk, co_send_all(talk->fds[0], iov, VECTORS, NULL));
}

static void send_and_drain(void *opaque)
{
    struct talk *talk = opaque;
    const size_t expected = VECTORS / 10 * 9 * 1000;
    g_autofree char *data = g_malloc(expected);

    talk->main = co_self();
    co_enter(send_a_lot, talk);
    assert_int_equal(talk->result, 1000); /* does not fit at once */
    assert_int_equal(co_recv_all(talk->fds[1], data, expected, NULL), 0);
    co_yield ();
    assert_int_equal(talk->result, 0);
    for (size_t i = 0; i < expected; i++) {
        assert_int_equal(data[i], 's');
    }
}

static void send_waits_until_all_is_sent(void **state)
{
    (void)state;
    run_talk(send_and_drain);
}

static void send_to_nobody(void *opaque)
{
    struct talk *talk = opaque;
    struct iovec iov = { talk->buffer, 8 };

    close(talk->fds[1]);
    talk->fds[1] = -1;
    assert_int_equal(co_send_all(talk->fds[0], &iov, 0, NULL), 0);
    assert_int_equal(co_send_all(talk->fds[0], &iov, 1, NULL), -EPIPE);
}

/* Without a signal. */
static void send_to_a_closed_peer_fails(void **state)
{
    (void)state;
    run_talk(send_to_nobody);
}

static int listen_on_loopback(struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    socklen_t bytes = sizeof(*address);

    *address = (struct sockaddr_in){ .sin_family = AF_INET };
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)address, bytes), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &bytes), 0);
    return fd;
}

static void accept_one(void *opaque)
{
    struct talk *talk = opaque;

    finish(talk, co_accept(talk->fds[0], &talk->canceller));
}

static void accept_then_reset(void *opaque)
{
    struct talk *talk = opaque;
    struct sockaddr_in address;
    const struct linger reset = { .l_onoff = 1, .l_linger = 0 };
    int listener = listen_on_loopback(&address);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int server;
    char byte;

    close(talk->fds[0]);
    talk->fds[0] = listener;
    talk->main = co_self();
    co_enter(accept_one, talk);
    assert_int_equal(talk->result, 1000);
    assert_int_equal(
        connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    co_yield ();
    server = (int)talk->result;
    assert_true(server >= 0);

    setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(client);
    assert_int_equal(co_recv(server, &byte, 1, NULL), -ECONNRESET);
    close(server);
    assert_int_equal(co_accept(-1, NULL), -EBADF);
}

static void accepted_connections_can_be_reset(void **state)
{
    (void)state;
    run_talk(accept_then_reset);
}

static void count_turns(void *opaque)
{
    struct talk *talk = opaque;

    while (talk->main != NULL) {
        talk->result++;
        co_reschedule();
    }
}

static void chatter(void *opaque)
{
    struct talk *talk = opaque;
    struct iovec iov;
    char byte = 'x';

    talk->main = co_self();
    co_spawn(loop_current(), count_turns, talk);
    for (unsigned i = 0; i < 1000; i++) {
        iov = (struct iovec){ &byte, 1 };
        assert_int_equal(co_send_all(talk->fds[1], &iov, 1, NULL), 0);
        assert_int_equal(co_recv(talk->fds[0], &byte, 1, NULL), 1);
    }
    assert_true(talk->result > 1000);
    talk->main = NULL;
    co_reschedule();
}

/* Who never has to wait still lets the others run. */
static void a_busy_stream_starves_nobody(void **state)
{
    (void)state;
    run_talk(chatter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recv_returns_what_is_there),
        cmocka_unit_test(end_of_stream_is_told_apart),
        cmocka_unit_test(recv_all_waits_for_all_parts),
        cmocka_unit_test(cancelling_ends_this_wait_and_later_ones),
        cmocka_unit_test(a_wait_whose_input_is_gone_can_be_cancelled),
        cmocka_unit_test(poll_tells_events_deadline_and_errors),
        cmocka_unit_test(send_waits_until_all_is_sent),
        cmocka_unit_test(send_to_a_closed_peer_fails),
        cmocka_unit_test(accepted_connections_can_be_reset),
        cmocka_unit_test(a_busy_stream_starves_nobody),
    };

    return cmocka_run_group_tests_name("loop/socket", tests, NULL, NULL);
}
