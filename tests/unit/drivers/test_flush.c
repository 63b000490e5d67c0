/* SPDX-License-Identifier: BSD-3-Clause */
/* Flushes of a file: when they happen, and what a failed one means. The linker
 * puts our fdatasync() in the place of the loop's. */
#include "block_test.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include "drivers/drivers.h"

int __wrap_co_file_datasync(int fd);

/* What the next syncs return, and how many there were. */
static int sync_error;
static unsigned int syncs;

int __wrap_co_file_datasync(int fd)
{
    (void)fd;
    syncs++;
    co_reschedule();
    return sync_error;
}

static char *image;

static struct block_node *co_add_image(struct block_graph *graph,
                                       const char *more)
{
    g_autofree char *options = g_strdup_printf(
        "raw,node-name=r,file.driver=file,file.filename=%s%s", image, more);

    sync_error = 0;
    syncs = 0;
    return co_add(graph, options);
}

#define FLUSH_TEST(name)                                         \
 static void co_##name(struct block_graph *graph, void *opaque); \
 static void name(void **state)                                  \
 {                                                               \
  (void)state;                                                   \
  run_in_graph(block_drivers, 0, co_##name, NULL);               \
 }                                                               \
 static void co_##name(struct block_graph *graph, void *opaque)

/* After a failed flush of a cached file each later one fails, FUA writes as
 * well, though the kernel reports the loss but once; reopening ends it. */
FLUSH_TEST(a_failed_flush_stays_failed)
{
    struct block_node *node = co_add_image(graph, "");

    (void)opaque;
    assert_int_equal(co_block_pwrite(node, 0, 1, "x", 0), 0);
    sync_error = -ENOSPC;
    assert_int_equal(co_block_flush(node), -ENOSPC);
    sync_error = 0;
    assert_int_equal(co_block_flush(node), -EIO);
    assert_int_equal(co_block_pwrite(node, 0, 1, "x", 0), 0);
    assert_int_equal(co_block_flush(node), -EIO);
    assert_int_equal(co_block_pwrite(node, 0, 1, "x", BLOCK_FUA), -EIO);
    assert_int_equal(co_block_write_zeroes(node, 0, 1, BLOCK_FUA), -EIO);
    assert_int_equal(co_block_del(graph, "r", NULL), 0);
    node = co_add_image(graph, "");
    assert_int_equal(co_block_flush(node), 0);
}

/* With O_DIRECT no page is lost: a flush that failed can be tried again. */
FLUSH_TEST(direct_files_may_flush_again)
{
    struct block_node *node;

    (void)opaque;
    if (!can_do_direct_io(image)) {
        return;
    }
    node = co_add_image(graph, ",cache.direct=on");
    sync_error = -EIO;
    assert_int_equal(co_block_flush(node), -EIO);
    sync_error = 0;
    assert_int_equal(co_block_flush(node), 0);
}

struct flusher {
    struct block_node *node;
    int result;
    bool ended;
};

static void co_flusher(void *opaque)
{
    struct flusher *flusher = opaque;

    flusher->result = co_block_flush(flusher->node);
    flusher->ended = true;
}

/* A flush with nothing written since the last one does not reach the disk; one
 * that begins while another is under way does not rely on it. */
FLUSH_TEST(only_needed_flushes_reach_the_disk)
{
    struct block_node *node = co_add_image(graph, "");
    struct flusher other = { .node = node };

    (void)opaque;
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(syncs, 1);
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(syncs, 1);
    assert_int_equal(co_block_pwrite(node, 0, 1, "x", 0), 0);
    co_enter(co_flusher, &other);
    assert_int_equal(syncs, 2);
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(syncs, 3);
    assert_true(other.ended);
    assert_int_equal(co_block_write_zeroes(node, 0, 4096, 0), 0);
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(syncs, 4);
}

/* cache.no-flush: no flush reaches the disk. */
FLUSH_TEST(no_flush_means_none)
{
    struct block_node *node = co_add_image(graph, ",cache.no-flush=on");

    (void)opaque;
    assert_int_equal(co_block_pwrite(node, 0, 1, "x", BLOCK_FUA), 0);
    assert_int_equal(co_block_flush(node), 0);
    assert_int_equal(syncs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_flush_stays_failed),
        cmocka_unit_test(direct_files_may_flush_again),
        cmocka_unit_test(only_needed_flushes_reach_the_disk),
        cmocka_unit_test(no_flush_means_none),
    };
    int fd;
    int failed;

    image = g_strdup("/var/tmp/cohort-flush-XXXXXX");
    fd = g_mkstemp(image);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 65536), 0);
    close(fd);
    test_options_type = &blockdev_options_type;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    g_unlink(image);
    g_free(image);
    return failed;
}
