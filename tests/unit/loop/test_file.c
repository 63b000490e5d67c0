/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/inline_writer.h"

static int open_scratch(void)
{
    char path[] = "/var/tmp/cohort-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

static void write_then_read(void *opaque)
{
    int fd = *(int *)opaque;
    char first[3] = "abc";
    char second[5] = "defgh";
    char back[16] = "";
    const struct iovec out[] = { { first, 3 }, { NULL, 0 }, { second, 5 } };
    const struct iovec in[] = { { back, 2 }, { back + 2, 6 } };

    assert_int_equal(co_file_pwritev(fd, out, 3, 4096, 0), 8);
    assert_int_equal(co_file_datasync(fd), 0);
    assert_int_equal(co_file_preadv(fd, in, 2, 4096), 8);
    assert_string_equal(back, "abcdefgh");
    assert_int_equal(co_file_preadv(fd, in, 2, 0), 8);
    assert_memory_equal(back, "\0\0\0\0\0\0\0\0", 8);
}

static void what_was_written_is_read(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(write_then_read, &fd);
    close(fd);
}

static void read_past_end(void *opaque)
{
    int fd = *(int *)opaque;
    char buffer[100];
    const struct iovec iov[] = { { buffer, 4 }, { buffer + 4, 96 } };

    assert_int_equal(pwrite(fd, "0123456789", 10, 0), 10);
    assert_int_equal(co_file_preadv(fd, iov, 2, 0), 10);
    assert_int_equal(co_file_preadv(fd, iov, 2, 9), 1);
    assert_int_equal(co_file_preadv(fd, iov, 2, 10), 0);
    assert_int_equal(co_file_preadv(fd, iov, 2, 1000), 0);
    assert_int_equal(co_file_preadv(fd, iov, 0, 0), 0);
}

static void reads_are_short_only_at_the_end(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(read_past_end, &fd);
    close(fd);
}

static void fail_in_all_ways(void *opaque)
{
    char buffer[8] = "";
    const struct iovec iov = { buffer, sizeof(buffer) };
    int read_only = open("/proc/self/exe", O_RDONLY);

    (void)opaque;
    assert_int_equal(co_file_preadv(-1, &iov, 1, 0), -EBADF);
    assert_int_equal(co_file_pwritev(-1, &iov, 1, 0, 0), -EBADF);
    assert_int_equal(co_file_datasync(-1), -EBADF);
    assert_int_equal(co_file_allocate(-1, 0, 0, 1), -EBADF);
    assert_int_equal(co_file_pwritev(read_only, &iov, 1, 0, 0), -EBADF);
    assert_int_equal(co_file_preadv(read_only, &iov, 1, UINT64_MAX - 8),
                     -EINVAL);
    assert_int_equal(co_file_allocate(read_only, 0, INT64_MAX, 1), -EFBIG);
    assert_int_equal(file_try_preadv(-1, &iov, 1, 0), -EBADF);
    assert_int_equal(file_try_pwritev(-1, &iov, 1, 0), -EBADF);
    assert_int_equal(file_pwritev_inline(-1, &iov, 1, 0), -EBADF);
    close(read_only);
}

static void errors_are_negative_errno(void **state)
{
    (void)state;
    run_in_loop(fail_in_all_ways, NULL);
}

static void allocate_and_punch(void *opaque)
{
    int fd = *(int *)opaque;
    struct stat stat;

    assert_int_equal(co_file_allocate(fd, 0, 0, 1 << 20), 0);
    fstat(fd, &stat);
    assert_int_equal(stat.st_size, 1 << 20);
    assert_int_equal(pwrite(fd, "x", 1, 4096), 1);
    assert_int_equal(
        co_file_allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                         1 << 20),
        0);
    char back = 'y';
    assert_int_equal(pread(fd, &back, 1, 4096), 1);
    assert_int_equal(back, 0);
}

static void allocate_takes_a_mode(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(allocate_and_punch, &fd);
    close(fd);
}

static void read_an_odd_file_directly(void *opaque)
{
    int fd = *(int *)opaque;
    g_autofree char *buffer = NULL;

    assert_int_equal(posix_memalign((void **)&buffer, 4096, 8192), 0);
    const struct iovec iov = { buffer, 8192 };
    assert_int_equal(co_file_preadv(fd, &iov, 1, 0), 5000);
    free(g_steal_pointer(&buffer));
}

/* The end of a file lies where it likes, also under O_DIRECT. */
static void direct_reads_end_within_a_sector(void **state)
{
    char path[] = "/var/tmp/cohort-test-XXXXXX";
    int fd = mkstemp(path);
    int direct = open(path, O_RDONLY | O_DIRECT);

    (void)state;
    unlink(path);
    assert_int_equal(ftruncate(fd, 5000), 0);
    if (direct < 0) {
        close(fd);
        skip(); /* tmpfs before Linux 6.6 */
    }
    run_in_loop(read_an_odd_file_directly, &direct);
    close(direct);
    close(fd);
}

static void try_both_ways(void *opaque)
{
    static char buffer[8192];
    const struct iovec iov = { buffer, sizeof(buffer) };
    int fd = *(int *)opaque;
    ssize_t count;

    memset(buffer, 'x', sizeof(buffer));
    assert_int_equal(pwrite(fd, buffer, 8192, 0), 8192);
    memset(buffer, 0, sizeof(buffer));
    count = file_try_preadv(fd, &iov, 1, 0);
    assert_true(count == -EAGAIN || (count > 0 && count <= 8192));
    for (ssize_t i = 0; i < count; i++) {
        assert_int_equal(buffer[i], 'x');
    }
    count = file_try_pwritev(fd, &iov, 1, 0);
    assert_true(count == -EAGAIN || (count > 0 && count <= 8192));
}

/* Whatever the file system: the data, all of it or its front, or -EAGAIN. */
static void trying_never_lies(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(try_both_ways, &fd);
    close(fd);
}

static void write_inline(void *opaque)
{
    int fd = *(int *)opaque;
    char text[6] = "inline";
    char back[7] = "";
    const struct iovec iov[] = { { text, 2 }, { text + 2, 4 } };

    assert_int_equal(file_pwritev_inline(fd, iov, 2, 512), 6);
    assert_int_equal(pread(fd, back, 6, 512), 6);
    assert_string_equal(back, "inline");
}

/* Also where the file system does not take RWF_NOWAIT. */
static void inline_writes_are_done_at_once(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(write_inline, &fd);
    close(fd);
}

static void write_in_other_ways(void *opaque)
{
    int fd = *(int *)opaque;
    g_autofree char *large = g_malloc0(INLINE_WRITE_BYTES_MAX + 1);
    const struct iovec short_one = { large, 7 };
    const struct iovec long_one = { large, INLINE_WRITE_BYTES_MAX + 1 };
    struct inline_writer writer;
    ssize_t count;

    inline_writer_probe(&writer, fd);
    count = inline_writer_try(&writer, fd, &short_one, 1, 7, 0);
    assert_int_equal(count, writer.writes == INLINE_WRITES_PLAIN ? 7 : count);
    count = inline_writer_try(&writer, fd, &long_one, 1, long_one.iov_len, 0);
    assert_int_equal(count, -EAGAIN);
    writer.writes = INLINE_WRITES_NEVER;
    count = inline_writer_try(&writer, fd, &short_one, 1, 7, 0);
    assert_int_equal(count, -EAGAIN);
}

static void long_writes_and_slow_files_are_not_written_to_inline(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(write_in_other_ways, &fd);
    close(fd);
}

static void pause_and_go_on(void *opaque)
{
    int fd = *(int *)opaque;
    char byte = 0;
    const struct iovec iov = { &byte, 1 };
    struct inline_writer writer = { .writes = INLINE_WRITES_PLAIN };

    atomic_store(&writer.again_ns, UINT64_MAX);
    assert_int_equal(inline_writer_try(&writer, fd, &iov, 1, 1, 0), -EAGAIN);
    atomic_store(&writer.again_ns, loop_now_ns());
    assert_int_equal(inline_writer_try(&writer, fd, &iov, 1, 1, 0), 1);
}

static void plain_writes_pause_after_a_slow_one(void **state)
{
    int fd = open_scratch();

    (void)state;
    run_in_loop(pause_and_go_on, &fd);
    close(fd);
}

/* More than both rings hold; ThreadSanitizer is slow with coroutines. */
#ifdef __SANITIZE_THREAD__
# define READS 500
#else
# define READS 6000
#endif

struct many_reads {
    struct co_queue queue;
    int fd;
    unsigned running;
};

static void read_one(void *opaque)
{
    struct many_reads *reads = opaque;
    char byte = 0;
    const struct iovec iov = { &byte, 1 };

    assert_int_equal(co_file_preadv(reads->fd, &iov, 1, 0), 1);
    assert_int_equal(byte, 'x');
    reads->running--;
    co_queue_wake_one(&reads->queue);
}

static void read_many(void *opaque)
{
    struct many_reads *reads = opaque;

    co_queue_init(&reads->queue);
    for (unsigned i = 0; i < READS; i++) {
        reads->running++;
        co_spawn(loop_current(), read_one, reads);
    }
    while (reads->running > 0) {
        co_queue_wait(&reads->queue);
    }
}

/* More operations at once than either ring has entries. */
static void a_full_ring_loses_nothing(void **state)
{
    struct many_reads reads = { .fd = open_scratch() };

    (void)state;
    assert_int_equal(pwrite(reads.fd, "x", 1, 0), 1);
    run_in_loop(read_many, &reads);
    close(reads.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(reads_are_short_only_at_the_end),
        cmocka_unit_test(errors_are_negative_errno),
        cmocka_unit_test(allocate_takes_a_mode),
        cmocka_unit_test(direct_reads_end_within_a_sector),
        cmocka_unit_test(trying_never_lies),
        cmocka_unit_test(inline_writes_are_done_at_once),
        cmocka_unit_test(long_writes_and_slow_files_are_not_written_to_inline),
        cmocka_unit_test(plain_writes_pause_after_a_slow_one),
        cmocka_unit_test(a_full_ring_loses_nothing),
    };

    return cmocka_run_group_tests_name("loop/file", tests, NULL, NULL);
}
