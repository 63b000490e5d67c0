/* SPDX-License-Identifier: BSD-3-Clause */
/* The file driver on a folder of its own, cached and direct; raw over it. */
#include "block_test.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "drivers/file_priv.h"

struct folder {
    char *path;
    char *image;
};

static void folder_init(struct folder *folder, uint64_t image_bytes)
{
    int fd;

    /* Not on tmpfs: direct I/O and holes are the file system's. */
    folder->path = g_strdup("/var/tmp/cohort-test-XXXXXX");
    assert_non_null(g_mkdtemp(folder->path));
    folder->image = g_strdup_printf("%s/image", folder->path);
    fd = open(folder->image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)image_bytes), 0);
    close(fd);
}

static void folder_release(struct folder *folder)
{
    g_unlink(folder->image);
    g_rmdir(folder->path);
    g_free(folder->image);
    g_free(folder->path);
}

static struct block_node *co_add_image(struct block_graph *graph,
                                       const struct folder *folder,
                                       const char *more)
{
    g_autofree char *options =
        g_strdup_printf("file,node-name=f,filename=%s%s", folder->image, more);

    return co_add(graph, options);
}

#define FILE_TEST(name, bytes)                                   \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  struct folder folder;                                          \
                                                                 \
  (void)state;                                                   \
  folder_init(&folder, (bytes));                                 \
  run_in_graph(block_drivers, 0, co_##name, &folder);            \
  folder_release(&folder);                                       \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

/* Random requests of all kinds against a byte array. */
static void co_compare(struct block_node *node, GRand *random)
{
    uint64_t size = block_size(node);
    uint8_t *expected = g_malloc0(size);
    uint8_t *buffer = g_malloc(size);

    for (int round = 0; round < 400; round++) {
        uint64_t offset = (uint64_t)g_rand_int_range(random, 0, (int)size);
        uint64_t length = (uint64_t)g_rand_int_range(random, 1, 200000);
        uint64_t bytes = min_u64(length, size - offset);
        unsigned int flags = round % 16 == 0 ? BLOCK_FUA : 0;
        struct iovec iov[2] = {
            { buffer, bytes / 3 },
            { buffer + bytes / 3, bytes - bytes / 3 },
        };

        switch (g_rand_int_range(random, 0, 5)) {
        case 0:
            memset(expected + offset, 0, bytes);
            flags |= round % 2 == 0 ? BLOCK_MAY_UNMAP : 0;
            assert_int_equal(co_block_write_zeroes(node, offset, bytes, flags),
                             0);
            break;
        case 1:
        case 2:
            memset(buffer, g_rand_int_range(random, 1, 255), bytes);
            memcpy(expected + offset, buffer, bytes);
            if (block_try_pwritev(node, offset, bytes, iov, 2) != 0) {
                assert_int_equal(
                    co_block_pwritev(node, offset, bytes, iov, 2, flags), 0);
            }
            break;
        default:
            if (block_try_preadv(node, offset, bytes, iov, 2) != 0) {
                assert_int_equal(co_block_preadv(node, offset, bytes, iov, 2),
                                 0);
            }
            assert_memory_equal(buffer, expected + offset, bytes);
        }
    }
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(co_block_pread(node, 0, size, buffer), 0);
    assert_memory_equal(buffer, expected, size);
    g_free(expected);
    g_free(buffer);
}

static void co_compare_seeded(struct block_graph *graph,
                              const struct folder *folder,
                              const char *more)
{
    guint32 seed = g_random_int();
    GRand *random = g_rand_new_with_seed(seed);

    print_message("seed %u\n", seed);
    co_compare(co_add_image(graph, folder, more), random);
    g_rand_free(random);
}

/* A cached file gives back what was written, in any shape. */
FILE_TEST(cached_files_keep_what_is_written, MIB)
{
    co_compare_seeded(graph, opaque, ",discard=unmap");
}

/* So does one opened past the page cache, with unaligned buffers and ranges. */
FILE_TEST(direct_files_keep_what_is_written, MIB)
{
    const struct folder *folder = opaque;

    if (can_do_direct_io(folder->image)) {
        co_compare_seeded(graph, folder, ",cache.direct=on,discard=unmap");
    }
}

/* A window of raw is its part of the file, and stays within it. */
FILE_TEST(raw_windows_are_their_part, 65536)
{
    struct block_node *file = co_add_image(graph, opaque, "");
    struct block_node *window =
        co_add(graph, "raw,node-name=w,file=f,offset=1000,size=2000");
    GRand *random = g_rand_new_with_seed(1);
    uint8_t buffer[3];
    uint64_t offset;
    int fd;

    assert_int_equal(block_size(window), 2000);
    assert_int_equal(co_block_pwrite(window, 1999, 1, "x", 0), 0);
    assert_int_equal(co_block_pwrite(window, 2000, 1, "x", 0), -ENOSPC);
    assert_int_equal(co_block_pread(file, 2998, 3, buffer), 0);
    assert_memory_equal(buffer, "\0x\0", 3);
    assert_int_equal(block_try_map(window, 10, 20, &fd, &offset), 0);
    assert_int_equal(offset, 1010);
    assert_int_equal(co_block_truncate(window, 4000, false, NULL), -ENOTSUP);
    co_add_fails(graph, "raw,node-name=x,file=f,offset=65537",
                 "behind the end");
    co_add_fails(graph, "raw,node-name=x,file=f,size=65537", "behind the end");
    co_add_fails(graph,
                 "raw,node-name=x,file=f,offset=9,size=18446744073709551615",
                 "behind the end");
    assert_int_equal(co_block_write_zeroes(window, 0, 2000, 0), 0);
    co_compare(window, random);
    g_rand_free(random);
}

static void assert_extent(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          unsigned int status)
{
    struct block_extent extent;

    assert_int_equal(
        co_block_status(node, offset, block_size(node) - offset, &extent), 0);
    assert_int_equal(extent.bytes, bytes);
    assert_int_equal(extent.status & (BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE),
                     status);
}

/* Holes are told from data, also after each change; a hole of a terabyte
 * takes one question. */
FILE_TEST(holes_are_known, TIB)
{
    unsigned int hole = BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE;
    struct block_node *node = co_add_image(graph, opaque, ",discard=unmap");
    uint8_t *data = g_malloc(65536);
    struct block_extent extent;

    memset(data, 1, 65536);
    assert_extent(node, 0, TIB, hole);
    assert_int_equal(co_block_pwrite(node, MIB, 65536, data, 0), 0);
    assert_extent(node, 0, MIB, hole);
    assert_extent(node, MIB, 65536, 0);
    assert_extent(node, MIB + 65536, TIB - MIB - 65536, hole);
    assert_int_equal(co_block_status(node, MIB + 5, 100, &extent), 0);
    assert_int_equal(extent.bytes, 100);
    assert_int_equal(co_block_discard(node, MIB, 65536), 0);
    assert_extent(node, 0, TIB, hole);
    g_free(data);
}

/* Without discard=unmap a discard changes nothing. */
FILE_TEST(discards_are_ignored_by_default, 65536)
{
    struct block_node *node = co_add_image(graph, opaque, "");
    uint8_t byte = 1;

    assert_int_equal(co_block_pwrite(node, 0, 1, &byte, 0), 0);
    assert_int_equal(co_block_discard(node, 0, 65536), 0);
    byte = 0;
    assert_int_equal(co_block_pread(node, 0, 1, &byte), 0);
    assert_int_equal(byte, 1);
}

/* A resize reaches the file. */
FILE_TEST(resizing_reaches_the_file, 4096)
{
    struct folder *folder = opaque;
    struct block_node *raw;
    struct stat found;

    co_add_image(graph, folder, "");
    raw = co_add(graph, "raw,node-name=r,file=f");
    assert_int_equal(co_block_truncate(raw, 12345, false, NULL), 0);
    assert_int_equal(stat(folder->image, &found), 0);
    assert_int_equal(found.st_size, 12345);
    assert_int_equal(co_block_pwrite(raw, 12344, 1, "x", 0), 0);
}

/* A file that someone shortened gives errors, not zeroes. */
FILE_TEST(lost_bytes_are_errors, 8192)
{
    struct folder *folder = opaque;
    struct block_node *node = co_add_image(graph, folder, "");
    uint8_t buffer[100];

    assert_int_equal(truncate(folder->image, 4096), 0);
    assert_int_equal(co_block_pread(node, 4050, 100, buffer), -EIO);
}

/* What cannot be opened is refused with its name and the cause. */
FILE_TEST(what_cannot_be_opened_is_named, 1000)
{
    const struct folder *folder = opaque;
    g_autofree char *missing =
        g_strdup_printf("file,node-name=x,filename=%s.nix", folder->image);
    g_autofree char *direct = g_strdup_printf(
        "file,node-name=x,filename=%s,cache.direct=on", folder->image);
    g_autofree char *device =
        g_strdup_printf("host_device,node-name=x,filename=%s", folder->image);

    co_add_fails(graph, missing, "image.nix': No such file or directory");
    co_add_fails(graph, "file,node-name=x,filename=/tmp", "/tmp");
    co_add_fails(graph, "file,node-name=x,filename=/dev/null",
                 "no regular file");
    co_add_fails(graph, device, "no block device");
    if (can_do_direct_io(folder->image)) {
        co_add_fails(graph, direct, "no multiple of");
    }
}

/* auto-read-only falls back where writing is not possible. */
FILE_TEST(auto_read_only_falls_back, 4096)
{
    const struct folder *folder = opaque;
    struct block_node *raw;
    g_autofree char *options = g_strdup_printf(
        "raw,node-name=r,auto-read-only=on,file.driver=file,file.filename=%s",
        "/proc/self/exe");

    (void)folder;
    /* A running program cannot be written to (ETXTBSY), even by root. */
    co_add_fails(graph, options, "Text file busy");
    if (geteuid() == 0) {
        return;
    }
    assert_int_equal(chmod(folder->image, 0400), 0);
    g_free(options);
    options = g_strdup_printf(
        "raw,node-name=r,auto-read-only=on,file.driver=file,file.filename=%s",
        folder->image);
    raw = co_add(graph, options);
    assert_true(block_is_read_only(raw));
}

/* A long sequential read, which makes read-ahead run, gives the right bytes,
 * and the node closes while it may still be under way. */
FILE_TEST(sequential_reads_are_right, 32 * MIB)
{
    struct folder *folder = opaque;
    struct block_node *node = co_add_image(graph, folder, "");
    uint8_t *buffer = g_malloc(MIB);

    for (uint64_t offset = 0; offset < 32 * MIB; offset += MIB) {
        memset(buffer, (int)(offset / MIB) + 1, MIB);
        assert_int_equal(co_block_pwrite(node, offset, MIB, buffer, 0), 0);
    }
    assert_int_equal(co_block_flush(node), 0);
    for (uint64_t offset = 0; offset < 32 * MIB; offset += 65536) {
        struct iovec iov = { buffer, 65536 };

        if (block_try_preadv(node, offset, 65536, &iov, 1) != 0) {
            assert_int_equal(co_block_preadv(node, offset, 65536, &iov, 1), 0);
        }
        assert_int_equal(buffer[0], offset / MIB + 1);
        assert_int_equal(buffer[65535], offset / MIB + 1);
    }
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
    g_free(buffer);
}

/* Sixteen requests at once, as a copy makes them. */
struct copying {
    struct block_node *node;
    uint64_t next;
    uint64_t end;
    unsigned int workers;
    struct co_queue ended;
};

static void co_copying(void *opaque)
{
    struct copying *copying = opaque;
    uint8_t *buffer = g_malloc(MIB);

    while (copying->next < copying->end) {
        uint64_t offset = copying->next;

        copying->next += MIB;
        memset(buffer, (int)(offset / MIB) + 1, MIB);
        assert_int_equal(co_block_pwrite(copying->node, offset, MIB, buffer,
                                         BLOCK_FLUSHED_SOON),
                         0);
    }
    g_free(buffer);
    copying->workers--;
    co_queue_wake_all(&copying->ended);
}

static void co_copy(struct block_node *node, uint64_t start, uint64_t end)
{
    struct copying copying = { .node = node, .next = start, .end = end };

    co_queue_init(&copying.ended);
    for (int i = 0; i < 16; i++) {
        copying.workers++;
        co_spawn(loop_current(), co_copying, &copying);
    }
    while (copying.workers > 0) {
        co_queue_wait(&copying.ended);
    }
}

/* Write-back that begins early loses nothing, does not outlast a move of its
 * node to another thread, and the node closes while it may be under way. */
static void co_move_after_writes(struct block_graph *graph, void *opaque)
{
    struct block_node *node = co_add_image(graph, opaque, "");
    struct block_node *other = co_add(graph, "null-co,node-name=n,size=1M");
    struct loop *homes[2] = { block_home(node), block_home(other) };
    const struct file_state *state = block_state(node);
    uint8_t *buffer = g_malloc(MIB);

    for (uint64_t i = 0; i < 4; i++) {
        co_go_home(node);
        co_copy(node, 16 * i * MIB, 16 * (i + 1) * MIB);
        co_go_main(node);
        assert_int_equal(co_block_move(node, homes[(i + 1) % 2], NULL), 0);
        assert_int_equal(state->background_calls, 0);
    }
    co_go_home(node);
    assert_int_equal(co_block_flush(node), 0);
    for (uint64_t i = 0; i < 64; i++) {
        assert_int_equal(co_block_pread(node, i * MIB, MIB, buffer), 0);
        assert_int_equal(buffer[0], i + 1);
        assert_int_equal(buffer[MIB - 1], i + 1);
    }
    co_copy(node, 0, 16 * MIB);
    co_go_main(node);
    assert_int_equal(co_block_del(graph, "f", NULL), 0);
    g_free(buffer);
}

static void what_is_flushed_soon_begins_early(void **state)
{
    struct folder folder;

    (void)state;
    folder_init(&folder, 64 * MIB);
    run_in_graph(block_drivers, 2, co_move_after_writes, &folder);
    folder_release(&folder);
}

/* The information names the file and what it takes on disk. */
FILE_TEST(info_names_the_file, MIB)
{
    const struct folder *folder = opaque;
    g_autoptr(json_value) info = NULL;
    const struct json_value *image;

    co_add_image(graph, folder, "");
    info = co_block_info(co_add(graph, "raw,node-name=r,file=f"), false);
    image = json_dict_get(info, "image");
    assert_string_equal(json_dict_string(info, "file", ""), folder->image);
    assert_string_equal(json_dict_string(image, "format", ""), "raw");
    assert_int_equal(json_dict_uint(image, "actual-size", 99), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cached_files_keep_what_is_written),
        cmocka_unit_test(direct_files_keep_what_is_written),
        cmocka_unit_test(raw_windows_are_their_part),
        cmocka_unit_test(holes_are_known),
        cmocka_unit_test(discards_are_ignored_by_default),
        cmocka_unit_test(resizing_reaches_the_file),
        cmocka_unit_test(lost_bytes_are_errors),
        cmocka_unit_test(what_cannot_be_opened_is_named),
        cmocka_unit_test(auto_read_only_falls_back),
        cmocka_unit_test(sequential_reads_are_right),
        cmocka_unit_test(what_is_flushed_soon_begins_early),
        cmocka_unit_test(info_names_the_file),
    };

    test_options_type = &blockdev_options_type;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
