/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/socket_address.h"

/* A directory of its own for each test, the working directory meanwhile. */
static int enter_directory(void **state)
{
    *state = g_dir_make_tmp("cohort-test-XXXXXX", NULL);
    return *state != NULL ? chdir(*state) : -1;
}

static int leave_directory(void **state)
{
    g_autofree char *command = g_strdup_printf("rm -rf '%s'", (char *)*state);

    g_free(*state);
    return chdir("/") != 0 || system(command) != 0;
}

/* What the schema makes of a command line's address. */
static struct json_value *address_of(const struct schema_type *type,
                                     const char *text,
                                     GError **err)
{
    g_autoptr(json_value) raw = keyval_parse(text, NULL, err);

    return raw != NULL ? schema_coerce(type, raw, "addr", err) : NULL;
}

static int listen_at(const char *text, GError **err)
{
    g_autoptr(json_value) address = address_of(&socket_address_type, text, err);

    return address != NULL ? socket_listen(address, err) : -EINVAL;
}

static void assert_refused(const char *text, int code, const char *sentence)
{
    g_autoptr(GError) err = NULL;

    assert_int_equal(listen_at(text, &err), code);
    assert_non_null(err);
    if (strstr(err->message, sentence) == NULL) {
        print_message("%s\n", err->message);
    }
    assert_non_null(strstr(err->message, sentence));
    assert_int_equal(listen_at(text, NULL), code);
}

static void assert_described(int fd, const char *expected)
{
    g_autofree char *text = socket_describe_listener(fd);

    assert_string_equal(text, expected);
}

static void assert_ready_for_loop(int fd)
{
    assert_true(fd >= 0);
    assert_true((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
}

static int connect_unix(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int ret = -errno;

        close(fd);
        return ret;
    }
    return fd;
}

static void a_unix_path_comes_and_goes(void **state)
{
    int fd = listen_at("type=unix,path=sock", NULL);
    int client;

    (void)state;
    assert_ready_for_loop(fd);
    assert_described(fd, "unix:sock");
    client = connect_unix("sock");
    assert_true(client >= 0);
    close(client);
    socket_close_listener(fd);
    assert_int_equal(access("sock", F_OK), -1);
}

static void a_stale_path_is_taken_over(void **state)
{
    int fd = listen_at("type=unix,path=sock", NULL);

    (void)state;
    close(fd); /* as a process does that dies */
    assert_int_equal(access("sock", F_OK), 0);
    fd = listen_at("type=unix,path=sock", NULL);
    assert_ready_for_loop(fd);
    socket_close_listener(fd);
}

static void a_path_in_use_is_refused(void **state)
{
    int fd = listen_at("type=unix,path=sock", NULL);

    (void)state;
    assert_refused("type=unix,path=sock", -EADDRINUSE,
                   "'sock': it is in use by a running process");
    assert_int_equal(close(connect_unix("sock")), 0);
    socket_close_listener(fd);
}

static void send_descriptor(int socket, int fd)
{
    char byte = 0;
    struct iovec iov = { .iov_base = &byte, .iov_len = 1 };

    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { .header = { .cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(sizeof(int)) } };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = &control,
                              .msg_controllen = sizeof(control) };

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    if (sendmsg(socket, &message, 0) != 1) {
        _exit(1);
    }
}

static int receive_descriptor(int socket)
{
    char byte;
    struct iovec iov = { .iov_base = &byte, .iov_len = 1 };

    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = &control,
                              .msg_controllen = sizeof(control) };
    int fd;

    assert_int_equal(recvmsg(socket, &message, MSG_CMSG_CLOEXEC), 1);
    memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
    return fd;
}

/* A listening socket that lives on when the process that made it is gone. */
static int orphaned_listener(void)
{
    int pair[2];
    int fd;
    pid_t child;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                     0);
    child = fork();
    if (child == 0) {
        send_descriptor(pair[1], listen_at("type=unix,path=sock", NULL));
        _exit(0);
    }
    fd = receive_descriptor(pair[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(pair[0]);
    close(pair[1]);
    return fd;
}

/* Closes the listener once somebody has seen that it answers. */
static void *answer_once(void *opaque)
{
    int *listener = opaque;
    struct pollfd waiting = { .fd = *listener, .events = POLLIN };

    assert_int_equal(poll(&waiting, 1, -1), 1);
    close(*listener);
    return NULL;
}

/* What answers still though its process is gone will not for long. */
static void a_dead_process_path_is_waited_for(void **state)
{
    int orphan = orphaned_listener();
    pthread_t thread;
    int fd;

    (void)state;
    pthread_create(&thread, NULL, answer_once, &orphan);
    fd = listen_at("type=unix,path=sock", NULL);
    pthread_join(thread, NULL);
    assert_ready_for_loop(fd);
    socket_close_listener(fd);
}

/* ... and is not taken from who has inherited it. */
static void an_inherited_path_is_refused(void **state)
{
    int orphan = orphaned_listener();

    (void)state;
    assert_refused("type=unix,path=sock", -EADDRINUSE, "in use");
    assert_int_equal(close(connect_unix("sock")), 0);
    socket_close_listener(orphan);
}

/* Closing leaves a path alone that is another's by now. */
static void a_path_of_another_is_left(void **state)
{
    int first = listen_at("type=unix,path=sock", NULL);
    int second;

    (void)state;
    unlink("sock");
    second = listen_at("type=unix,path=sock", NULL);
    socket_close_listener(first);
    assert_int_equal(access("sock", F_OK), 0);
    socket_close_listener(second);
}

static void other_files_are_left(void **state)
{
    (void)state;
    close(open("file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_refused("type=unix,path=file", -EADDRINUSE, "not a socket");
    assert_int_equal(access("file", F_OK), 0);
    assert_refused("type=unix,path=nowhere/sock", -ENOENT, "nowhere/sock");
    assert_refused("type=unix,path=", -EINVAL, "empty");
    assert_refused("type=unix,path=sock,tight=on", -EINVAL, "abstract");
    g_autofree char *name = g_strnfill(108, 'p');
    g_autofree char *text = g_strdup_printf("type=unix,path=%s", name);
    assert_refused(text, -ENAMETOOLONG, "at most 107");
}

#define RIVALS 6

struct rival {
    pthread_t thread;
    pthread_barrier_t *start;
    int fd;
};

static void *take_path(void *opaque)
{
    struct rival *rival = opaque;

    pthread_barrier_wait(rival->start);
    rival->fd = listen_at("type=unix,path=sock", NULL);
    return NULL;
}

/* Of those that start at once, one gets the stale path, the rest is refused. */
static void one_takes_a_stale_path(void **state)
{
    struct rival rivals[RIVALS];
    pthread_barrier_t start;

    (void)state;
    pthread_barrier_init(&start, NULL, RIVALS);
    for (unsigned round = 0; round < 200; round++) {
        unsigned winners = 0;

        close(listen_at("type=unix,path=sock", NULL));
        for (size_t i = 0; i < RIVALS; i++) {
            rivals[i].start = &start;
            pthread_create(&rivals[i].thread, NULL, take_path, &rivals[i]);
        }
        for (size_t i = 0; i < RIVALS; i++) {
            pthread_join(rivals[i].thread, NULL);
            winners += rivals[i].fd >= 0;
        }
        assert_int_equal(winners, 1);
        for (size_t i = 0; i < RIVALS; i++) {
            if (rivals[i].fd >= 0) {
                socket_close_listener(rivals[i].fd);
            }
        }
    }
    pthread_barrier_destroy(&start);
}

static void abstract_names_need_no_file(void **state)
{
    g_autofree char *text =
        g_strdup_printf("type=unix,path=cohort-%d,abstract=on", getpid());
    g_autofree char *loose = g_strdup_printf("%s,tight=off", text);
    g_autofree char *expected = g_strdup_printf("unix:@cohort-%d", getpid());
    int fd = listen_at(text, NULL);
    int loose_fd = listen_at(loose, NULL); /* another name */

    (void)state;
    assert_ready_for_loop(fd);
    assert_ready_for_loop(loose_fd);
    assert_described(fd, expected);
    assert_described(loose_fd, expected);
    assert_refused(text, -EADDRINUSE, "abstract");
    assert_refused("type=unix,path=,abstract=on", -EINVAL, "1 to 107");
    socket_close_listener(fd);
    socket_close_listener(loose_fd);
}

static unsigned port_of(int fd)
{
    g_autofree char *text = socket_describe_listener(fd);

    return (unsigned)strtoul(strrchr(text, ':') + 1, NULL, 10);
}

static void port_zero_is_any_free_one(void **state)
{
    int fd = listen_at("type=inet,host=127.0.0.1,port=0,numeric=on", NULL);
    g_autofree char *expected = g_strdup_printf("127.0.0.1:%u", port_of(fd));
    g_autofree char *again =
        g_strdup_printf("type=inet,host=127.0.0.1,port=%u", port_of(fd));

    (void)state;
    assert_ready_for_loop(fd);
    assert_true(port_of(fd) > 0);
    assert_described(fd, expected);
    assert_refused(again, -EADDRINUSE, expected);
    socket_close_listener(fd);
}

static void a_range_finds_the_next_free_port(void **state)
{
    int fd = listen_at("type=inet,host=127.0.0.1,port=0", NULL);
    unsigned port = port_of(fd);
    unsigned last = MIN(port + 20, 65535);
    g_autofree char *range =
        g_strdup_printf("type=inet,host=127.0.0.1,port=%u,to=%u", port, last);
    g_autofree char *full =
        g_strdup_printf("type=inet,host=127.0.0.1,port=%u,to=%u", port, port);
    int next;

    (void)state;
    if (port == last) {
        skip();
    }
    next = listen_at(range, NULL);
    assert_ready_for_loop(next);
    assert_true(port_of(next) > port && port_of(next) <= last);
    assert_refused(full, -EADDRINUSE, "any port up to");
    socket_close_listener(next);
    socket_close_listener(fd);
}

static int family_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    return address.ss_family;
}

static int connect_loopback_4(unsigned port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int ret;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ret = connect(fd, (struct sockaddr *)&address, sizeof(address));
    close(fd);
    return ret;
}

static void families_are_chosen(void **state)
{
    int fd = listen_at("type=inet,host=,port=0", NULL);
    int keep_alive = 0;
    socklen_t bytes = sizeof(keep_alive);

    (void)state;
    assert_ready_for_loop(fd);
    assert_int_equal(connect_loopback_4(port_of(fd)), 0);
    socket_close_listener(fd);

    fd = listen_at("type=inet,host=,port=0,ipv4=on", NULL);
    assert_int_equal(family_of(fd), AF_INET);
    socket_close_listener(fd);
    fd = listen_at("type=inet,host=127.0.0.1,port=0,keep-alive=on", NULL);
    assert_int_equal(family_of(fd), AF_INET);
    assert_int_equal(
        getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &keep_alive, &bytes), 0);
    assert_int_equal(keep_alive, 1);
    socket_close_listener(fd);
    fd = listen_at("type=inet,host=,port=0,ipv6=off", NULL);
    assert_int_equal(family_of(fd), AF_INET);
    socket_close_listener(fd);
    assert_refused("type=inet,host=,port=0,ipv4=off,ipv6=off", -EINVAL,
                   "both 'ipv4' and 'ipv6' are off");

    fd = listen_at("type=inet,host=::,port=0,ipv6=on", NULL);
    if (fd >= 0) { /* a machine may be without */
        assert_int_equal(family_of(fd), AF_INET6);
        assert_int_equal(connect_loopback_4(port_of(fd)), -1);
        socket_close_listener(fd);
    }
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    assert_refused("type=inet,host=127.0.0.1,port=", -EINVAL, "empty");
    assert_refused("type=inet,host=127.0.0.1,port=65536", -EINVAL, "65536");
    assert_refused("type=inet,host=127.0.0.1,port=99999999999999999999",
                   -EINVAL, "99999999999999999999");
    assert_refused("type=inet,host=127.0.0.1,port=10,to=9", -EINVAL, "range");
    assert_refused("type=inet,host=127.0.0.1,port=10,to=65536", -EINVAL,
                   "range");
    assert_refused("type=inet,host=127.0.0.1,port=0,to=9", -EINVAL, "range");
    assert_refused("type=inet,host=no number,port=1,numeric=on", -EADDRNOTAVAIL,
                   "no number");
    assert_refused("type=inet,host=192.0.2.1,port=0", -EADDRNOTAVAIL,
                   "192.0.2.1:0");
    assert_refused("type=vsock,cid=1,port=2", -EINVAL, "vsock");
    assert_refused("type=fd,str=stdin", -EINVAL, "stdin");
    assert_refused("type=fd,str=99999", -EBADF, "99999");
    assert_refused("type=fd,str=0", -ENOTSOCK, "descriptor 0");
}

/* A passed socket serves as often as it is asked for. */
static void a_passed_socket_stays_the_callers(void **state)
{
    int passed = listen_at("type=unix,path=sock", NULL);
    g_autofree char *text = g_strdup_printf("type=fd,str=%d", passed);
    int pair[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        int fd = listen_at(text, NULL);

        assert_ready_for_loop(fd);
        assert_int_not_equal(fd, passed);
        assert_described(fd, "unix:sock");
        socket_close_listener(fd);
        assert_int_equal(access("sock", F_OK), 0);
    }
    socket_close_listener(passed);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    g_autofree char *connected = g_strdup_printf("type=fd,str=%d", pair[0]);
    assert_refused(connected, -EINVAL, "not a listening stream socket");
    assert_described(pair[0], "unix:(unnamed)");
    close(pair[0]);
    close(pair[1]);
    assert_described(-1, "(no socket)");
}

/* nbd-server-start's spelling: the members in `data`. */
static void the_legacy_form_is_served(void **state)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) address = address_of(
        &socket_address_legacy_type, "type=unix,data.path=sock", NULL);
    g_autoptr(json_value) flat =
        address_of(&socket_address_legacy_type, "type=unix,path=sock", &err);
    int fd;

    (void)state;
    assert_non_null(address);
    assert_null(flat);
    assert_non_null(err);
    fd = socket_listen(address, NULL);
    assert_described(fd, "unix:sock");
    socket_close_listener(fd);
}

struct elsewhere {
    struct json_value *address;
    bool other_ran;
    int ret;
    GError *err;
};

static void note_that_it_ran(void *opaque)
{
    ((struct elsewhere *)opaque)->other_ran = true;
}

static void listen_elsewhere(void *opaque)
{
    struct elsewhere *elsewhere = opaque;

    co_spawn(loop_current(), note_that_it_ran, elsewhere);
    elsewhere->ret = co_socket_listen(elsewhere->address, &elsewhere->err);
    assert_true(elsewhere->other_ran);
    if (elsewhere->ret >= 0) {
        assert_ready_for_loop(elsewhere->ret);
        elsewhere->other_ran = false;
        co_spawn(loop_current(), note_that_it_ran, elsewhere);
        co_socket_close_listener(elsewhere->ret);
        assert_true(elsewhere->other_ran);
    }
}

static void coroutines_do_not_hold_up_the_loop(void **state)
{
    struct elsewhere elsewhere = {
        .address = address_of(&socket_address_type, "type=unix,path=sock", NULL)
    };

    (void)state;
    run_in_loop(listen_elsewhere, &elsewhere);
    assert_true(elsewhere.ret >= 0);
    assert_int_equal(access("sock", F_OK), -1);
    json_free(elsewhere.address);

    elsewhere.address =
        address_of(&socket_address_type, "type=unix,path=no/sock", NULL);
    elsewhere.other_ran = false;
    run_in_loop(listen_elsewhere, &elsewhere);
    assert_int_equal(elsewhere.ret, -ENOENT);
    assert_non_null(elsewhere.err);
    g_clear_error(&elsewhere.err);
    json_free(elsewhere.address);
}

int main(void)
{
#define IN_DIRECTORY(test) \
 cmocka_unit_test_setup_teardown(test, enter_directory, leave_directory)
    const struct CMUnitTest tests[] = {
        IN_DIRECTORY(a_unix_path_comes_and_goes),
        IN_DIRECTORY(a_stale_path_is_taken_over),
        IN_DIRECTORY(a_path_in_use_is_refused),
        IN_DIRECTORY(a_dead_process_path_is_waited_for),
        IN_DIRECTORY(an_inherited_path_is_refused),
        IN_DIRECTORY(a_path_of_another_is_left),
        IN_DIRECTORY(other_files_are_left),
        IN_DIRECTORY(one_takes_a_stale_path),
        IN_DIRECTORY(abstract_names_need_no_file),
        IN_DIRECTORY(port_zero_is_any_free_one),
        IN_DIRECTORY(a_range_finds_the_next_free_port),
        IN_DIRECTORY(families_are_chosen),
        IN_DIRECTORY(nonsense_is_refused),
        IN_DIRECTORY(a_passed_socket_stays_the_callers),
        IN_DIRECTORY(the_legacy_form_is_served),
        IN_DIRECTORY(coroutines_do_not_hold_up_the_loop),
    };

    return cmocka_run_group_tests_name("loop/address", tests, NULL, NULL);
}
