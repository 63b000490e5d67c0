/* SPDX-License-Identifier: BSD-3-Clause */
/* What a qcow2 image does when its file fails it, or lies. */
#include "block_test.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "crash_disk.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/create.h"
#include "drivers/qcow2/image.h"

#define DISK_BYTES  (1 * MIB)
#define WRITE_BYTES 4096

static const struct block_driver *const drivers[] = { &driver_crash_disk,
                                                      &driver_qcow2, NULL };

struct rig {
    struct block_graph *graph;
    struct block_node *file;
    struct block_node *image;
};

static void co_rig_open(struct rig *rig, struct block_graph *graph)
{
    const struct qcow2_create_options options = {
        .size_bytes = DISK_BYTES,
        .version = 3,
        .refcount_bits = 16,
        .cluster_bytes = 4096,
    };
    g_autoptr(GError) err = NULL;

    rig->graph = graph;
    rig->file = co_add(graph, "driver=crash-disk,node-name=file");
    if (co_qcow2_create(rig->file, &options, &err) < 0) {
        fail_msg("%s", err->message);
    }
    rig->image =
        co_add(graph, "driver=qcow2,node-name=image,file=file,discard=unmap");
}

static struct crash_disk *file_of(const struct rig *rig)
{
    return crash_disk_of(rig->file);
}

static int co_write(const struct rig *rig, uint64_t offset, uint8_t value)
{
    g_autofree uint8_t *buffer = g_malloc(WRITE_BYTES);

    memset(buffer, value, WRITE_BYTES);
    return co_block_pwrite(rig->image, offset, WRITE_BYTES, buffer, 0);
}

static void co_assert_clean(const struct rig *rig)
{
    struct qcow2_check_result result;

    assert_int_equal(co_qcow2_check(rig->file, "image", QCOW2_REPAIR_NOTHING,
                                    NULL, NULL, &result, NULL),
                     0);
    assert_int_equal(result.corruptions + result.check_errors, 0);
    assert_int_equal(result.leaks, 0);
}

static void co_failed_sync(struct block_graph *graph, void *opaque)
{
    struct rig rig;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    file_of(&rig)->fail_flushes = -EIO;
    assert_int_equal(co_block_flush(rig.image), -EIO);
    file_of(&rig)->fail_flushes = 0;
    assert_int_equal(co_block_flush(rig.image), -EIO);
}

static void a_failed_sync_fails_all_later_flushes(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_failed_sync, NULL);
}

static void co_failed_writes(struct block_graph *graph, void *opaque)
{
    struct rig rig;
    uint8_t byte = 1;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    file_of(&rig)->fail_writes = -ENOSPC;
    assert_int_equal(co_write(&rig, 8192, 2), -ENOSPC);
    assert_int_equal(co_block_flush(rig.image), -ENOSPC);
    file_of(&rig)->fail_writes = 0;
    assert_int_equal(co_write(&rig, 16384, 3), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    assert_int_equal(co_block_pread(rig.image, 8192, 1, &byte), 0);
    assert_int_equal(byte, 0);
    assert_int_equal(co_block_del(graph, "image", NULL), 0);
    co_assert_clean(&rig);
}

static void a_full_disk_is_told_and_mends(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_failed_writes, NULL);
}

/* Makes the guest's first cluster be where the L1 table is. */
static void co_point_at_l1(struct rig *rig)
{
    GByteArray *bytes = g_byte_array_new();
    uint64_t l1_offset;
    uint64_t l2_offset;

    assert_int_equal(co_write(rig, 0, 1), 0);
    assert_int_equal(co_block_del(rig->graph, "image", NULL), 0);
    g_byte_array_append(bytes, file_of(rig)->now->data, file_of(rig)->now->len);
    l1_offset = load_be64(bytes->data + QCOW2_L1_OFFSET);
    l2_offset = load_be64(bytes->data + l1_offset) & QCOW2_L1_OFFSET_MASK;
    store_be64(bytes->data + l2_offset, l1_offset | QCOW2_ENTRY_COPIED);
    crash_disk_load(rig->file, bytes);
    g_byte_array_unref(bytes);
    rig->image = co_add(rig->graph,
                        "driver=qcow2,node-name=image,file=file,discard=unmap");
}

static void co_lying_table(struct block_graph *graph, void *opaque)
{
    struct rig rig;
    g_autofree uint8_t *before = NULL;
    const uint8_t *now;
    uint64_t l1_offset;

    (void)opaque;
    co_rig_open(&rig, graph);
    co_point_at_l1(&rig);
    now = file_of(&rig)->now->data;
    l1_offset = load_be64(now + QCOW2_L1_OFFSET);
    before = g_malloc(4096);
    memcpy(before, now + l1_offset, 4096);
    assert_int_equal(co_write(&rig, 0, 7), -EIO);
    now = file_of(&rig)->now->data;
    assert_memory_equal(now + l1_offset, before, 4096);
    assert_true((load_be64(now + QCOW2_INCOMPATIBLE) &
                 QCOW2_INCOMPATIBLE_CORRUPT) != 0);
    assert_int_equal(co_write(&rig, 65536, 7), -EIO);
}

static void data_never_goes_over_a_table(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_lying_table, NULL);
}

static void co_rewritten(struct block_graph *graph, void *opaque)
{
    struct rig rig;
    unsigned int flushes;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    flushes = file_of(&rig)->flushes;
    assert_int_equal(co_write(&rig, 0, 2), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    assert_int_equal(file_of(&rig)->flushes, flushes + 1);
}

static void a_flush_of_data_alone_is_one_sync(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_rewritten, NULL);
}

/* The header is written and synced; then writes fail. */
static void fail_after_a_sync(struct crash_disk *disk, void *opaque)
{
    unsigned int *flushes = opaque;

    if (disk->flushes > *flushes) {
        disk->fail_writes = -EIO;
    }
}

static void co_half_shrunk(struct block_graph *graph, void *opaque)
{
    struct rig rig;
    unsigned int flushes;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    assert_int_equal(co_write(&rig, DISK_BYTES - 4096, 1), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    flushes = file_of(&rig)->flushes;
    file_of(&rig)->moment = fail_after_a_sync;
    file_of(&rig)->opaque = &flushes;
    assert_int_equal(co_block_truncate(rig.image, DISK_BYTES / 2, true, NULL),
                     0);
    assert_int_equal(file_of(&rig)->fail_writes, -EIO);
    assert_int_equal(block_size(rig.image), DISK_BYTES / 2);
    assert_int_equal(load_be64(file_of(&rig)->now->data + QCOW2_SIZE),
                     DISK_BYTES / 2);
    file_of(&rig)->moment = NULL;
    file_of(&rig)->fail_writes = 0;
    assert_int_equal(co_write(&rig, 8192, 3), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    assert_int_equal(co_block_del(graph, "image", NULL), 0);
    co_assert_clean(&rig);
}

static void a_disk_has_the_size_that_its_header_says(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_half_shrunk, NULL);
}

static void co_unsynced_header(struct block_graph *graph, void *opaque)
{
    struct rig rig;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    file_of(&rig)->fail_flushes = -EIO;
    assert_int_equal(co_block_truncate(rig.image, DISK_BYTES / 2, true, NULL),
                     -EIO);
    file_of(&rig)->fail_flushes = 0;
    assert_int_equal(co_block_flush(rig.image), -EIO);
}

static void a_failed_sync_of_the_header_is_final(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_unsynced_header, NULL);
}

/* Fails the first write to the header after its preparations. */
static void fail_the_header(struct crash_disk *disk, void *opaque)
{
    unsigned int *flushes = opaque;

    disk->fail_writes = disk->flushes == *flushes ? -EIO : 0;
}

static void co_unwritten_header(struct block_graph *graph, void *opaque)
{
    struct rig rig;
    unsigned int flushes;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    flushes = file_of(&rig)->flushes;
    file_of(&rig)->moment = fail_the_header;
    file_of(&rig)->opaque = &flushes;
    assert_int_equal(co_block_truncate(rig.image, DISK_BYTES / 2, true, NULL),
                     -EIO);
    file_of(&rig)->moment = NULL;
    file_of(&rig)->fail_writes = 0;
    assert_int_equal(block_size(rig.image), DISK_BYTES);
    assert_int_equal(co_block_flush(rig.image), -EIO);
}

static void a_header_of_which_nothing_is_known_is_final(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_unwritten_header, NULL);
}

/* The first write fails; before it the header is read. */
static void fail_once(struct crash_disk *disk, void *opaque)
{
    unsigned int *moments = opaque;

    ++*moments;
    disk->fail_writes = *moments <= 2 ? -EIO : 0;
}

static void co_header_fails_once(struct block_graph *graph, void *opaque)
{
    struct rig rig;
    unsigned int moments = 0;

    (void)opaque;
    co_rig_open(&rig, graph);
    assert_int_equal(co_write(&rig, 0, 1), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    file_of(&rig)->moment = fail_once;
    file_of(&rig)->opaque = &moments;
    assert_int_equal(co_block_truncate(rig.image, DISK_BYTES / 2, true, NULL),
                     -EIO);
    assert_true(moments > 2);
    file_of(&rig)->moment = NULL;
    assert_int_equal(co_write(&rig, DISK_BYTES - 4096, 3), 0);
    assert_int_equal(co_block_flush(rig.image), 0);
    assert_int_equal(co_block_del(graph, "image", NULL), 0);
    assert_int_equal(load_be64(file_of(&rig)->now->data + QCOW2_SIZE),
                     DISK_BYTES);
    co_assert_clean(&rig);
}

static void a_failed_write_of_the_header_is_undone(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_header_fails_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_sync_fails_all_later_flushes),
        cmocka_unit_test(a_full_disk_is_told_and_mends),
        cmocka_unit_test(data_never_goes_over_a_table),
        cmocka_unit_test(a_flush_of_data_alone_is_one_sync),
        cmocka_unit_test(a_disk_has_the_size_that_its_header_says),
        cmocka_unit_test(a_failed_sync_of_the_header_is_final),
        cmocka_unit_test(a_header_of_which_nothing_is_known_is_final),
        cmocka_unit_test(a_failed_write_of_the_header_is_undone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
