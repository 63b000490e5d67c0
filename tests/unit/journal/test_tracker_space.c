/* SPDX-License-Identifier: BSD-3-Clause */
/* No space for a tracking file: what is refused, and what goes on. */
#include "tracked_disk.h"

#include <errno.h>

#include "block/request.h"

#define WRITTEN     (UINT64_C(100) * 1024)
#define LATER       (UINT64_C(300) * 1024)
#define GROWN_BYTES (DISK_BYTES * 64)

static void co_nothing(struct tracked_disk *disk)
{
    (void)disk;
}

static void co_add_one(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_add(disk, "b0"), 0);
}

/* What there was before goes on as if nothing had been asked for. */
static void co_expect_b0_to_record(struct tracked_disk *disk)
{
    assert_int_equal(disk->troubles, 0);
    assert_null(tracker_reason(disk->tracker));
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    assert_string_equal(disk_bit(disk, "b0", WRITTEN), "dirty");
}

static void co_expect_b0_to_have_recorded(struct tracked_disk *disk)
{
    assert_string_equal(disk_bit(disk, "b0", WRITTEN), "dirty");
    assert_string_equal(disk_bit(disk, "b1", WRITTEN), "not there");
}

static void goes_on(void (*co_fail)(struct tracked_disk *disk),
                    enum disk_end end)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    tracked_disk_live(disk, co_add_one, DISK_CLOSED);
    tracked_disk_live(disk, co_fail, end);
    storage_memory_set_space(disk->memory, UINT64_MAX);
    tracked_disk_live(disk, co_expect_b0_to_have_recorded, DISK_CLOSED);
    tracked_disk_free(disk);
}

static void go_on(void (*co_fail)(struct tracked_disk *disk))
{
    goes_on(co_fail, DISK_CLOSED);
    goes_on(co_fail, DISK_KILLED);
    goes_on(co_fail, DISK_POWER_CUT);
}

/*
 * Adding.
 */

static void co_add_without_space(struct tracked_disk *disk)
{
    uint64_t bytes;

    storage_memory_set_space(disk->memory, 0);
    assert_int_equal(co_disk_add(disk, "b1"), -ENOSPC);
    assert_null(
        storage_memory_peek(disk->memory, DISK_TRACKING_PATH ".new", &bytes));
    assert_string_equal(disk_bit(disk, "b1", WRITTEN), "not there");
    co_expect_b0_to_record(disk);
}

static void test_a_bitmap_without_space_is_refused_and_others_go_on(
    void **state)
{
    (void)state;
    go_on(co_add_without_space);
}

static void co_add_first_without_space(struct tracked_disk *disk)
{
    storage_memory_set_space(disk->memory, 0);
    assert_int_equal(co_disk_add(disk, "b0"), -ENOSPC);
    assert_int_equal(disk->troubles, 0);
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    storage_memory_set_space(disk->memory, UINT64_MAX);
    assert_int_equal(co_disk_add(disk, "b0"), 0);
    co_expect_b0_to_record(disk);
}

static void test_the_first_bitmap_can_be_added_when_there_is_space(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    tracked_disk_live(disk, co_nothing, DISK_CLOSED);
    tracked_disk_live(disk, co_add_first_without_space, DISK_KILLED);
    tracked_disk_live(disk, co_expect_b0_to_have_recorded, DISK_CLOSED);
    tracked_disk_free(disk);
}

/*
 * Growing.
 */

static int co_grow(struct tracked_disk *disk)
{
    return co_block_truncate(disk->node, GROWN_BYTES, false, NULL);
}

static void co_grow_without_space(struct tracked_disk *disk)
{
    storage_memory_set_space(disk->memory, DISK_BYTES);
    assert_int_equal(co_grow(disk), -ENOSPC);
    assert_int_equal(block_size(disk->node), DISK_BYTES);
    co_expect_b0_to_record(disk);
}

static void test_growing_without_space_is_refused_and_bitmaps_go_on(
    void **state)
{
    (void)state;
    go_on(co_grow_without_space);
}

/* The first sync of the new file is that of its being made. */
static void co_grow_with_a_failed_sync(struct tracked_disk *disk)
{
    storage_memory_fail_sync(disk->memory, ".cbt.new", 2);
    assert_int_equal(co_grow(disk), -EIO);
    co_expect_b0_to_record(disk);
    assert_int_equal(co_grow(disk), 0);
    assert_null(tracker_reason(disk->tracker));
    assert_int_equal(co_disk_write(disk, GROWN_BYTES - 512), 0);
    assert_string_equal(disk_bit(disk, "b0", GROWN_BYTES - 512), "dirty");
}

static void test_growing_can_be_tried_again_after_a_failed_sync(void **state)
{
    (void)state;
    go_on(co_grow_with_a_failed_sync);
}

/*
 * Checkpoints: the space is there, but some file systems want more to overwrite.
 */

static void co_checkpoint_without_space(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    storage_memory_fail_writes(disk->memory, ".cbt", -ENOSPC);
    assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), -ENOSPC);
    storage_memory_fail_writes(disk->memory, NULL, 0);
    co_expect_b0_to_record(disk);
    assert_int_equal(co_disk_write(disk, LATER), 0);
    assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
}

static void test_a_checkpoint_without_space_is_made_later(void **state)
{
    (void)state;
    go_on(co_checkpoint_without_space);
}

static void co_work_on_a_full_file_system(struct tracked_disk *disk)
{
    storage_memory_set_space(disk->memory, 0);
    for (uint64_t offset = 0; offset < DISK_BYTES; offset += 16384) {
        assert_int_equal(co_disk_write(disk, offset), 0);
        assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
    }
    assert_int_equal(co_disk_enable(disk, "b0", false), 0);
    assert_int_equal(co_disk_enable(disk, "b0", true), 0);
    co_expect_b0_to_record(disk);
}

static void test_a_full_file_system_does_not_stop_checkpoints(void **state)
{
    (void)state;
    go_on(co_work_on_a_full_file_system);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_a_bitmap_without_space_is_refused_and_others_go_on),
        cmocka_unit_test(
            test_the_first_bitmap_can_be_added_when_there_is_space),
        cmocka_unit_test(
            test_growing_without_space_is_refused_and_bitmaps_go_on),
        cmocka_unit_test(test_growing_can_be_tried_again_after_a_failed_sync),
        cmocka_unit_test(test_a_checkpoint_without_space_is_made_later),
        cmocka_unit_test(test_a_full_file_system_does_not_stop_checkpoints),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
