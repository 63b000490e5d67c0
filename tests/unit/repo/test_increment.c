/* SPDX-License-Identifier: BSD-3-Clause */
/* Increments: what is sealed reads back through our own reader; the reader
 * survives any damage to the tables. (tests/integration lets qemu-img read
 * them.) */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "repo/durable.h"
#include "repo/image.h"
#include "repo/increment.h"
#include "scratch.h"

#define CLUSTER    INCREMENT_CLUSTER_BYTES
#define DISK_BYTES (20 * CLUSTER + 512)

/* A sparse file of the disk's size. */
static int make_file(const struct scratch *scratch, uint64_t disk_bytes)
{
    int fd =
        openat(scratch->fd, "disk.qcow2", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)disk_bytes), 0);
    return fd;
}

static void fill(int fd, uint64_t offset, uint64_t bytes, int value)
{
    g_autofree uint8_t *data = g_malloc(bytes);

    memset(data, value, bytes);
    assert_int_equal(pwrite_fully(fd, data, bytes, offset), 0);
}

static void assert_run(struct image *image,
                       uint64_t offset,
                       enum image_kind kind,
                       uint64_t bytes,
                       int value)
{
    struct image_run run;
    uint8_t data;

    assert_int_equal(image_map(image, offset, DISK_BYTES - offset, &run, NULL),
                     0);
    assert_int_equal(run.kind, kind);
    assert_int_equal(run.bytes, bytes);
    if (kind == IMAGE_DATA) {
        assert_int_equal(image_read(image, &run, &data, 1, NULL), 0);
        assert_int_equal(data, value);
    }
}

/* Clusters 0-1, 5 (a hole: zeroes), 6, and the last, short one. */
static const struct increment_extent extents[] = {
    { .offset = 0, .bytes = 2 * CLUSTER },
    { .offset = 5 * CLUSTER, .bytes = 2 * CLUSTER },
    { .offset = 20 * CLUSTER, .bytes = 512 },
};

static void make_increment(const struct scratch *scratch)
{
    int fd = make_file(scratch, DISK_BYTES);

    fill(fd, 0, CLUSTER, 1);
    fill(fd, CLUSTER, CLUSTER, 2);
    fill(fd, 6 * CLUSTER, CLUSTER, 6);
    fill(fd, 20 * CLUSTER, 512, 20);
    assert_int_equal(increment_seal(fd, DISK_BYTES, extents,
                                    G_N_ELEMENTS(extents), "../p/disk.raw",
                                    "raw", NULL),
                     0);
    (void)close(fd);
}

static void a_sealed_increment_reads_back(void **state)
{
    struct scratch *scratch = *state;

    make_increment(scratch);
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, NULL);
    assert_non_null(image);
    assert_string_equal(image_backing_name(image), "../p/disk.raw");
    assert_run(image, 0, IMAGE_DATA, CLUSTER, 1); /* moved: a run of its own */
    assert_run(image, CLUSTER + 7, IMAGE_DATA, CLUSTER - 7, 2);
    assert_run(image, 2 * CLUSTER, IMAGE_UNALLOCATED, 3 * CLUSTER, 0);
    assert_run(image, 5 * CLUSTER, IMAGE_ZERO, CLUSTER, 0);
    assert_run(image, 6 * CLUSTER, IMAGE_DATA, CLUSTER, 6);
    assert_run(image, 7 * CLUSTER, IMAGE_UNALLOCATED, 13 * CLUSTER, 0);
    assert_run(image, 20 * CLUSTER, IMAGE_DATA, 512, 20);
}

static void an_increment_of_nothing_is_an_image(void **state)
{
    struct scratch *scratch = *state;
    int fd = make_file(scratch, DISK_BYTES);

    assert_int_equal(
        increment_seal(fd, DISK_BYTES, NULL, 0, "../p/disk.raw", "raw", NULL),
        0);
    (void)close(fd);
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, NULL);
    assert_non_null(image);
    assert_run(image, 0, IMAGE_UNALLOCATED, DISK_BYTES, 0);
}

static void a_large_sparse_disk_costs_what_changed(void **state)
{
    struct scratch *scratch = *state;
    const uint64_t disk = UINT64_C(4) << 40;
    struct increment_extent scattered[64];
    struct stat status;
    int fd = make_file(scratch, disk);

    for (uint64_t i = 0; i < G_N_ELEMENTS(scattered); i++) {
        scattered[i].offset = round_down(i * (disk / 64), CLUSTER);
        scattered[i].bytes = CLUSTER;
        fill(fd, scattered[i].offset, CLUSTER, (int)i + 1);
    }
    assert_int_equal(increment_seal(fd, disk, scattered,
                                    G_N_ELEMENTS(scattered), "../p/disk.raw",
                                    "raw", NULL),
                     0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_blocks * 512 < 8 * 1024 * 1024);
    (void)close(fd);
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", disk, NULL);
    assert_non_null(image);
    for (uint64_t i = 0; i < G_N_ELEMENTS(scattered); i++) {
        struct image_run run;
        uint8_t data;
        assert_int_equal(
            image_map(image, scattered[i].offset, CLUSTER, &run, NULL), 0);
        assert_int_equal(run.kind, IMAGE_DATA);
        assert_int_equal(image_read(image, &run, &data, 1, NULL), 0);
        assert_int_equal(data, i + 1);
    }
}

static void seal_full(int fd, uint64_t disk_bytes)
{
    const struct increment_extent all = { .bytes = disk_bytes };

    assert_int_equal(increment_seal(fd, disk_bytes, &all,
                                    disk_bytes == 0 ? 0 : 1, NULL, NULL, NULL),
                     0);
}

static void a_full_image_has_what_the_file_had(void **state)
{
    struct scratch *scratch = *state;
    int fd = make_file(scratch, DISK_BYTES);

    fill(fd, 3 * CLUSTER, 2 * CLUSTER, 3);
    fill(fd, 20 * CLUSTER, 512, 20);
    seal_full(fd, DISK_BYTES);
    (void)close(fd);
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, NULL);
    assert_non_null(image);
    assert_null(image_backing_name(image));
    assert_run(image, 0, IMAGE_UNALLOCATED, 3 * CLUSTER, 0);
    assert_run(image, 3 * CLUSTER, IMAGE_DATA, 2 * CLUSTER, 3);
    assert_run(image, 5 * CLUSTER, IMAGE_UNALLOCATED, 15 * CLUSTER, 0);
    assert_run(image, 20 * CLUSTER, IMAGE_DATA, 512, 20);
}

/* A disk of any size, also of none, makes an image with what it began with. */
static void the_smallest_disks_are_images(void **state)
{
    struct scratch *scratch = *state;
    const uint64_t sizes[] = { 0, 1, 511, 512, 1000, CLUSTER };

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int fd = make_file(scratch, sizes[i]);
        struct image_run run;

        if (sizes[i] > 0) {
            fill(fd, 0, sizes[i], 7);
        }
        seal_full(fd, sizes[i]);
        (void)close(fd);
        g_autoptr(image_auto) image =
            image_open_qcow2(scratch->fd, "disk.qcow2", sizes[i], NULL);
        assert_non_null(image);
        if (sizes[i] > 0) {
            assert_int_equal(image_map(image, 0, sizes[i], &run, NULL), 0);
            assert_int_equal(run.kind, IMAGE_DATA);
        }
        assert_int_equal(unlinkat(scratch->fd, "disk.qcow2", 0), 0);
    }
}

static void a_huge_empty_disk_is_sealed_at_once(void **state)
{
    struct scratch *scratch = *state;
    const uint64_t disk = UINT64_C(8) << 40;
    struct stat status;
    int fd = make_file(scratch, disk);

    fill(fd, disk / 2, 1, 1);
    seal_full(fd, disk);
    assert_int_equal(fstat(fd, &status), 0);
    assert_true(status.st_blocks * 512 < 2 * 1024 * 1024);
    (void)close(fd);
}

static void extents_that_make_no_sense_are_refused(void **state)
{
    static const struct increment_extent bad[][2] = {
        { { 1, CLUSTER }, { 0, 0 } },
        { { 0, 0 }, { 0, 0 } },
        { { 0, CLUSTER + 1 }, { 2 * CLUSTER, CLUSTER } },
        { { 2 * CLUSTER, CLUSTER }, { CLUSTER, CLUSTER } },
        { { 0, 2 * CLUSTER }, { CLUSTER, CLUSTER } },
        { { 0, DISK_BYTES + 1 }, { 0, 0 } },
        { { CLUSTER, UINT64_MAX }, { 0, 0 } },
        { { UINT64_MAX - CLUSTER + 1, CLUSTER }, { 0, 0 } },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        size_t count = bad[i][1].bytes == 0 ? 1 : 2;
        assert_int_equal(
            increment_check_extents(bad[i], count, DISK_BYTES, NULL), -EINVAL);
    }
    assert_int_equal(increment_check_extents(extents, G_N_ELEMENTS(extents),
                                             DISK_BYTES, NULL),
                     0);
}

/* Opens the image and maps all of it; errors are fine, crashes are not. */
static void walk(const struct scratch *scratch)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, &err);
    g_autofree uint8_t *buffer = g_malloc(DISK_BYTES);

    assert_true((image == NULL) == (err != NULL));
    for (uint64_t at = 0; image != NULL && at < DISK_BYTES;) {
        struct image_run run;
        if (image_map(image, at, DISK_BYTES - at, &run, NULL) < 0) {
            break;
        }
        assert_true(run.bytes > 0 && run.bytes <= DISK_BYTES - at);
        if (run.kind == IMAGE_DATA) {
            (void)image_read(image, &run, buffer, run.bytes, NULL);
        }
        at += run.bytes;
    }
}

static void damaged_tables_never_lead_astray(void **state)
{
    struct scratch *scratch = *state;
    struct stat status;

    make_increment(scratch);
    int fd = openat(scratch->fd, "disk.qcow2", O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &status), 0);
    for (off_t at = 0; at < status.st_size;
         at += at < 256 || at >= (off_t)(21 * CLUSTER) ? 1 : 4096) {
        static const uint8_t values[] = { 0x00, 0x01, 0x40, 0x7f, 0xff };
        uint8_t before;
        if (at >= (off_t)(21 * CLUSTER) && at % (off_t)CLUSTER > 200) {
            at += (off_t)CLUSTER - 201 - 1;
            continue; /* the tables' used parts are short */
        }
        assert_int_equal(pread(fd, &before, 1, at), 1);
        for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
            assert_int_equal(pwrite(fd, &values[i], 1, at), 1);
            walk(scratch);
        }
        assert_int_equal(pwrite(fd, &before, 1, at), 1);
    }
    (void)close(fd);
}

static void an_image_cut_short_is_refused_or_fails_to_read(void **state)
{
    struct scratch *scratch = *state;
    struct stat status;

    make_increment(scratch);
    int fd = openat(scratch->fd, "disk.qcow2", O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &status), 0);
    for (off_t size = status.st_size; size >= 0; size -= 16384) {
        assert_int_equal(ftruncate(fd, size), 0);
        walk(scratch);
    }
    (void)close(fd);
}

static void a_raw_image_shows_its_holes(void **state)
{
    struct scratch *scratch = *state;
    int fd = make_file(scratch, DISK_BYTES);

    fill(fd, 3 * CLUSTER, CLUSTER, 9);
    (void)close(fd);
    assert_null(
        image_open_raw(scratch->fd, "disk.qcow2", DISK_BYTES + 1, NULL));
    g_autoptr(image_auto) image =
        image_open_raw(scratch->fd, "disk.qcow2", DISK_BYTES, NULL);
    assert_run(image, 0, IMAGE_ZERO, 3 * CLUSTER, 0);
    assert_run(image, 3 * CLUSTER, IMAGE_DATA, CLUSTER, 9);
    assert_run(image, 4 * CLUSTER, IMAGE_ZERO, DISK_BYTES - 4 * CLUSTER, 0);
    assert_run(image, 3 * CLUSTER + 1, IMAGE_DATA, CLUSTER - 1, 9);
}

static void links_and_pipes_are_no_images(void **state)
{
    struct scratch *scratch = *state;

    assert_int_equal(symlinkat("/etc/passwd", scratch->fd, "link"), 0);
    assert_int_equal(mkfifoat(scratch->fd, "pipe", 0600), 0);
    assert_null(image_open_raw(scratch->fd, "link", 1, NULL));
    assert_null(image_open_raw(scratch->fd, "pipe", 0, NULL));
    assert_null(image_open_qcow2(scratch->fd, "pipe", 1, NULL));
}

#define IN_SCRATCH(test) \
 cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(a_sealed_increment_reads_back),
        IN_SCRATCH(an_increment_of_nothing_is_an_image),
        IN_SCRATCH(a_large_sparse_disk_costs_what_changed),
        IN_SCRATCH(a_full_image_has_what_the_file_had),
        IN_SCRATCH(the_smallest_disks_are_images),
        IN_SCRATCH(a_huge_empty_disk_is_sealed_at_once),
        cmocka_unit_test(extents_that_make_no_sense_are_refused),
        IN_SCRATCH(damaged_tables_never_lead_astray),
        IN_SCRATCH(an_image_cut_short_is_refused_or_fails_to_read),
        IN_SCRATCH(a_raw_image_shows_its_holes),
        IN_SCRATCH(links_and_pipes_are_no_images),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
