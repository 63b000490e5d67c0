/* SPDX-License-Identifier: BSD-3-Clause */
/* Compressed images: what is packed reads back through our own reader, which
 * survives any damage to it. (tests/integration lets qemu-img read them.) */
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
#include "repo/packed_image.h"
#include "scratch.h"

#define CLUSTER    INCREMENT_CLUSTER_BYTES
#define CLUSTERS   41
#define DISK_BYTES (40 * CLUSTER + 512)

static const struct increment_extent all = { .bytes = DISK_BYTES };
/* Clusters 0-9, 20-29, and the last, short one. */
static const struct increment_extent some[] = {
    { .offset = 0, .bytes = 10 * CLUSTER },
    { .offset = 20 * CLUSTER, .bytes = 10 * CLUSTER },
    { .offset = 40 * CLUSTER, .bytes = 512 },
};

/* By cluster: text, noise, a mixture, zeroes, a hole. */
static uint8_t *make_disk(int fd)
{
    uint8_t *disk = g_malloc0(DISK_BYTES);
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);

    assert_int_equal(ftruncate(fd, (off_t)DISK_BYTES), 0);
    for (uint64_t i = 0; i < CLUSTERS; i++) {
        uint64_t bytes = min_u64(CLUSTER, DISK_BYTES - i * CLUSTER);
        uint8_t *cluster = disk + i * CLUSTER;

        for (uint64_t k = 0; k < bytes && i % 5 < 3; k++) {
            cluster[k] = i % 5 == 1 || (i % 5 == 2 && k % 8 == 0)
                             ? (uint8_t)g_rand_int(rand)
                             : (uint8_t)(k / 100 + i);
        }
        if (i % 5 != 4) {
            assert_int_equal(pwrite_fully(fd, cluster, bytes, i * CLUSTER), 0);
        }
    }
    return disk;
}

static int open_file(const struct scratch *scratch, const char *name)
{
    int fd = openat(scratch->fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

/* Packs a disk into "disk.qcow2"; returns it. */
static uint8_t *pack(const struct scratch *scratch,
                     const struct increment_extent *extents,
                     size_t count,
                     const char *backing_name)
{
    int raw = open_file(scratch, "raw");
    int fd = open_file(scratch, "disk.qcow2");
    uint8_t *disk = make_disk(raw);
    const struct packed_image_source source = {
        .fd = raw,
        .disk_bytes = DISK_BYTES,
        .extents = extents,
        .extent_count = count,
        .backing_name = backing_name,
        .backing_format = backing_name == NULL ? NULL : "qcow2",
    };

    assert_int_equal(packed_image_write(fd, &source, NULL), 0);
    (void)close(raw);
    (void)close(fd);
    return disk;
}

/* Reads [offset, offset + bytes) in pieces of `step`; what is not there becomes
 * `unallocated`. */
static void read_range(struct image *image,
                       uint64_t offset,
                       uint64_t bytes,
                       uint64_t step,
                       uint8_t *to,
                       int unallocated)
{
    for (uint64_t at = offset; at < offset + bytes;) {
        struct image_run run;
        uint64_t most = min_u64(step, offset + bytes - at);

        assert_int_equal(image_map(image, at, most, &run, NULL), 0);
        assert_true(run.bytes > 0 && run.bytes <= most);
        if (run.kind == IMAGE_DATA) {
            assert_int_equal(image_read(image, &run, to, run.bytes, NULL), 0);
        } else {
            memset(to, run.kind == IMAGE_ZERO ? 0 : unallocated, run.bytes);
        }
        to += run.bytes;
        at += run.bytes;
    }
}

static void a_packed_disk_reads_back(void **state)
{
    struct scratch *scratch = *state;
    g_autofree uint8_t *disk = pack(scratch, &all, 1, NULL);
    g_autofree uint8_t *found = g_malloc(DISK_BYTES);
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, NULL);

    assert_non_null(image);
    assert_null(image_backing_name(image));
    read_range(image, 0, DISK_BYTES, UINT64_MAX, found, 0);
    assert_memory_equal(found, disk, DISK_BYTES);
    memset(found, 0xee, DISK_BYTES);
    read_range(image, 0, DISK_BYTES, 1000, found, 0);
    assert_memory_equal(found, disk, DISK_BYTES);
}

static void a_packed_increment_has_its_extents_and_no_more(void **state)
{
    struct scratch *scratch = *state;
    g_autofree uint8_t *disk =
        pack(scratch, some, G_N_ELEMENTS(some), "../p/disk.qcow2");
    g_autofree uint8_t *found = g_malloc(DISK_BYTES);
    g_autoptr(image_auto) image =
        image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, NULL);

    assert_non_null(image);
    assert_string_equal(image_backing_name(image), "../p/disk.qcow2");
    memset(disk + 10 * CLUSTER, 0x99, 10 * CLUSTER);
    memset(disk + 30 * CLUSTER, 0x99, 10 * CLUSTER);
    read_range(image, 0, DISK_BYTES, UINT64_MAX, found, 0x99);
    assert_memory_equal(found, disk, DISK_BYTES);
}

static void packing_makes_it_smaller_and_empties_the_file(void **state)
{
    struct scratch *scratch = *state;
    g_autofree uint8_t *disk = pack(scratch, &all, 1, NULL);
    struct stat packed;
    struct stat raw;

    assert_non_null(disk);
    assert_int_equal(fstatat(scratch->fd, "disk.qcow2", &packed, 0), 0);
    assert_int_equal(fstatat(scratch->fd, "raw", &raw, 0), 0);
    /* 8 of noise, 8 of a mixture, the rest next to nothing, tables. */
    assert_true((uint64_t)packed.st_size < 19 * CLUSTER);
    assert_int_equal(raw.st_size, DISK_BYTES);
    assert_true((uint64_t)raw.st_blocks * 512 <= CLUSTER);
}

static bool stop(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
    (void)opaque;
    assert_true(done_bytes <= total_bytes);
    return false;
}

static void packing_stops_when_told_so(void **state)
{
    struct scratch *scratch = *state;
    int raw = open_file(scratch, "raw");
    int fd = open_file(scratch, "disk.qcow2");
    g_autofree uint8_t *disk = make_disk(raw);
    const struct packed_image_source source = {
        .fd = raw,
        .disk_bytes = DISK_BYTES,
        .extents = &all,
        .extent_count = 1,
        .step = stop,
    };

    assert_non_null(disk);
    assert_int_equal(packed_image_write(fd, &source, NULL), -ECANCELED);
    (void)close(raw);
    (void)close(fd);
    assert_null(image_open_qcow2(scratch->fd, "disk.qcow2", DISK_BYTES, NULL));
}

/* Maps and reads all of it; errors are fine, crashes are not. */
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

static void damage_never_leads_astray(void **state)
{
    struct scratch *scratch = *state;
    g_autofree uint8_t *disk = pack(scratch, &all, 1, NULL);
    g_autoptr(GRand) rand = g_rand_new_with_seed(11);
    int fd = open_file(scratch, "disk.qcow2");
    struct stat status;

    assert_non_null(disk);
    assert_int_equal(fstat(fd, &status), 0);
    for (unsigned int i = 0; i < 300; i++) {
        gint32 end = i % 3 == 0 ? 256 : (gint32)status.st_size;
        off_t at = g_rand_int_range(rand, 0, end);
        uint8_t value = (uint8_t)g_rand_int(rand);
        uint8_t before;

        assert_int_equal(pread(fd, &before, 1, at), 1);
        assert_int_equal(pwrite(fd, &value, 1, at), 1);
        walk(scratch);
        assert_int_equal(pwrite(fd, &before, 1, at), 1);
    }
    for (off_t size = status.st_size; size >= 0; size -= 50000) {
        assert_int_equal(ftruncate(fd, size), 0);
        walk(scratch);
    }
    (void)close(fd);
}

#define IN_SCRATCH(test) \
 cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(a_packed_disk_reads_back),
        IN_SCRATCH(a_packed_increment_has_its_extents_and_no_more),
        IN_SCRATCH(packing_makes_it_smaller_and_empties_the_file),
        IN_SCRATCH(packing_stops_when_told_so),
        IN_SCRATCH(damage_never_leads_astray),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
