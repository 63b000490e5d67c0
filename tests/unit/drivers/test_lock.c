/* SPDX-License-Identifier: BSD-3-Clause */
/* Image locks, against another process that holds the bytes QEMU holds. */
#include "block_test.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drivers/drivers.h"

/* A process that holds shared OFD locks on these bytes until it is ended. */
struct holder {
    pid_t pid;
    int ready[2];
};

static void lock_and_wait(const char *path, const int *bytes, int ready)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    for (; *bytes >= 0; bytes++) {
        struct flock lock = { .l_type = F_RDLCK,
                              .l_start = *bytes,
                              .l_len = 1 };

        if (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
            _exit(1);
        }
    }
    if (write(ready, "x", 1) != 1) {
        _exit(1);
    }
    for (;;) {
        pause();
    }
}

static void holder_start(struct holder *holder,
                         const char *path,
                         const int *bytes)
{
    char byte;

    assert_int_equal(pipe2(holder->ready, O_CLOEXEC), 0);
    holder->pid = fork();
    if (holder->pid == 0) {
        lock_and_wait(path, bytes, holder->ready[1]);
    }
    close(holder->ready[1]);
    assert_int_equal(read(holder->ready[0], &byte, 1), 1);
}

static void holder_stop(struct holder *holder)
{
    kill(holder->pid, SIGKILL);
    waitpid(holder->pid, NULL, 0);
    close(holder->ready[0]);
}

/* What QEMU 7.2 was seen to hold. */
static const int qemu_raw_writer[] = { 100, 101, 203, -1 };
static const int qemu_qcow2_writer[] = { 100, 101, 103, 201, 203, -1 };
static const int qemu_reader[] = { 100, 203, -1 };

static char *image;

static char *image_options(const char *more)
{
    return g_strdup_printf("file,node-name=f,filename=%s%s", image, more);
}

static void co_expect(struct block_graph *graph,
                      const char *more,
                      const char *refusal)
{
    g_autofree char *options = image_options(more);

    if (refusal != NULL) {
        co_add_fails(graph, options, refusal);
        return;
    }
    co_add(graph, options);
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
}

#define LOCK_TEST(name)                                          \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(block_drivers, 0, co_##name, NULL);               \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

/* A writer elsewhere keeps us from writing, and is named; reading is fine. */
LOCK_TEST(a_raw_writer_excludes_ours)
{
    struct holder holder;
    g_autofree char *name = NULL;

    (void)opaque;
    holder_start(&holder, image, qemu_raw_writer);
    name = g_strdup_printf("process %d (", (int)holder.pid);
    co_expect(graph, "", name);
    co_expect(graph, "", "may write to it");
    co_expect(graph, "", "force-share");
    co_expect(graph, ",read-only=on", NULL);
    co_expect(graph, ",locking=off", NULL);
    holder_stop(&holder);
    co_expect(graph, "", NULL);
}

/* A writer that may resize keeps us from reading, too, unless forced. */
LOCK_TEST(a_qcow2_writer_excludes_readers)
{
    struct holder holder;

    (void)opaque;
    holder_start(&holder, image, qemu_qcow2_writer);
    co_expect(graph, "", "in use by process");
    co_expect(graph, ",read-only=on", "may resize it");
    co_expect(graph, ",read-only=on,force-share=on", NULL);
    holder_stop(&holder);
}

/* A holder that was killed is waited for, though it may not be gone yet. */
LOCK_TEST(a_killed_holder_is_waited_for)
{
    (void)opaque;
    for (int round = 0; round < 20; round++) {
        struct holder holder;

        holder_start(&holder, image, qemu_raw_writer);
        kill(holder.pid, SIGKILL);
        co_expect(graph, "", NULL);
        holder_stop(&holder);
    }
}

static bool is_locked(int byte)
{
    struct flock lock = { .l_type = F_WRLCK, .l_start = byte, .l_len = 1 };
    int fd = open(image, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    close(fd);
    return lock.l_type != F_UNLCK;
}

/* An open file that no process has: it is on its way through a socket. */
struct in_flight {
    int sockets[2];
};

static void in_flight_start(struct in_flight *flight, const int *bytes)
{
    int fd = open(image, O_RDWR | O_CLOEXEC);
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

    for (; *bytes >= 0; bytes++) {
        struct flock lock = { .l_type = F_RDLCK,
                              .l_start = *bytes,
                              .l_len = 1 };

        assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    }
    assert_int_equal(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, flight->sockets), 0);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    assert_int_equal(sendmsg(flight->sockets[0], &message, 0), 1);
    close(fd);
}

static void *end_flight_once_seen(void *opaque)
{
    struct in_flight *flight = opaque;

    /* What only our writer holds, before it looks at the others' locks. */
    while (!is_locked(201)) {
        sched_yield();
    }
    close(flight->sockets[0]);
    close(flight->sockets[1]);
    return NULL;
}

/* So is a lock that no process has: the kernel is about to drop it. */
LOCK_TEST(a_lock_of_nobody_is_waited_for)
{
    struct in_flight flight;
    pthread_t thread;

    (void)opaque;
    in_flight_start(&flight, qemu_raw_writer);
    assert_int_equal(
        pthread_create(&thread, NULL, end_flight_once_seen, &flight), 0);
    co_expect(graph, "", NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* A reader elsewhere does not mind us. */
LOCK_TEST(a_reader_minds_nothing)
{
    struct holder holder;

    (void)opaque;
    holder_start(&holder, image, qemu_reader);
    co_expect(graph, "", NULL);
    co_expect(graph, ",read-only=on,locking=on", NULL);
    holder_stop(&holder);
}

/* Two writable nodes of one process exclude each other as well. */
LOCK_TEST(two_nodes_exclude_each_other)
{
    g_autofree char *options = image_options("");
    g_autofree char *second =
        g_strdup_printf("file,node-name=g,filename=%s", image);

    (void)opaque;
    co_add(graph, options);
    co_add_fails(graph, second, "another node of this process");
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
    co_add(graph, second);
}

/* Others see what we do by the bytes we hold. */
LOCK_TEST(our_locks_tell_what_we_do)
{
    g_autofree char *writer = image_options("");
    g_autofree char *reader = image_options(",read-only=on");

    (void)opaque;
    co_add(graph, writer);
    assert_true(is_locked(100) && is_locked(101));
    assert_true(is_locked(201) && is_locked(203));
    assert_false(is_locked(103) || is_locked(200));
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
    assert_false(is_locked(100) || is_locked(101) || is_locked(201));
    co_add(graph, reader);
    assert_true(is_locked(100) && is_locked(203));
    assert_false(is_locked(101) || is_locked(201));
}

/* ... and of a format on it, those of QEMU's qcow2, until the last is done; who
 * reads elsewhere is in the way before, and kept out after. */
LOCK_TEST(who_claims_the_size_of_a_file_says_so)
{
    g_autofree char *options = image_options("");
    g_autoptr(GError) err = NULL;
    struct block_node *node;
    struct holder holder;

    (void)opaque;
    node = co_add(graph, options);
    holder_start(&holder, image, qemu_reader);
    co_go_home(node);
    assert_int_equal(co_block_child_claim(node, BLOCK_CLAIM_SIZE, true, &err),
                     -EBUSY);
    assert_false(is_locked(103));
    holder_stop(&holder);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            co_block_child_claim(node, BLOCK_CLAIM_SIZE, true, NULL), 0);
    }
    for (const int *byte = qemu_qcow2_writer; *byte >= 0; byte++) {
        assert_true(is_locked(*byte));
    }
    assert_int_equal(co_block_child_truncate(node, 128 * 1024, false, NULL), 0);
    assert_int_equal(co_block_child_claim(node, BLOCK_CLAIM_SIZE, false, NULL),
                     0);
    assert_true(is_locked(103));
    assert_int_equal(co_block_child_claim(node, BLOCK_CLAIM_SIZE, false, NULL),
                     0);
    assert_false(is_locked(103));
    co_go_main(node);
    assert_error(&err, "lets nobody resize it");
}

/* A format that only reads keeps writers out, and is kept out by them. */
LOCK_TEST(who_claims_the_content_of_a_file_says_so)
{
    g_autofree char *options = image_options(",read-only=on");
    g_autoptr(GError) err = NULL;
    struct block_node *node;
    struct holder holder;

    (void)opaque;
    node = co_add(graph, options);
    holder_start(&holder, image, qemu_raw_writer);
    co_go_home(node);
    assert_int_equal(
        co_block_child_claim(node, BLOCK_CLAIM_CONTENT, true, &err), -EBUSY);
    assert_false(is_locked(201));
    holder_stop(&holder);
    assert_int_equal(
        co_block_child_claim(node, BLOCK_CLAIM_CONTENT, true, NULL), 0);
    assert_true(is_locked(201));
    assert_int_equal(
        co_block_child_claim(node, BLOCK_CLAIM_CONTENT, false, NULL), 0);
    assert_false(is_locked(201));
    co_go_main(node);
    assert_error(&err, "may write to it");
}

/* Another descriptor of the same open file, as io_uring may have one. */
static int duplicate_of_image(void)
{
    struct stat wanted;

    assert_int_equal(stat(image, &wanted), 0);
    for (int fd = 0; fd < 1024; fd++) {
        struct stat found;

        if (fstat(fd, &found) == 0 && found.st_dev == wanted.st_dev &&
            found.st_ino == wanted.st_ino) {
            return fcntl(fd, F_DUPFD_CLOEXEC, 0);
        }
    }
    return -1;
}

/* The next program finds no locks, whoever still has the file. */
LOCK_TEST(a_closed_image_is_not_locked)
{
    static const char *const kinds[] = { "", ",read-only=on" };

    (void)opaque;
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *options = image_options(kinds[i]);
        int fd;

        co_add(graph, options);
        fd = duplicate_of_image();
        assert_true(fd >= 0);
        assert_int_equal(co_block_del(graph, "f", NULL), 0);
        for (int byte = 100; byte < 204; byte++) {
            assert_false(is_locked(byte));
        }
        close(fd);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_raw_writer_excludes_ours),
        cmocka_unit_test(a_qcow2_writer_excludes_readers),
        cmocka_unit_test(a_killed_holder_is_waited_for),
        cmocka_unit_test(a_lock_of_nobody_is_waited_for),
        cmocka_unit_test(a_reader_minds_nothing),
        cmocka_unit_test(two_nodes_exclude_each_other),
        cmocka_unit_test(our_locks_tell_what_we_do),
        cmocka_unit_test(who_claims_the_size_of_a_file_says_so),
        cmocka_unit_test(who_claims_the_content_of_a_file_says_so),
        cmocka_unit_test(a_closed_image_is_not_locked),
    };
    int fd = g_file_open_tmp("cohort-lock-XXXXXX", &image, NULL);
    int failed;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 65536), 0);
    close(fd);
    test_options_type = &blockdev_options_type;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    g_unlink(image);
    g_free(image);
    return failed;
}
