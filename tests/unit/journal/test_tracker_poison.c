/* SPDX-License-Identifier: BSD-3-Clause */
/* When tracking fails: how that is made durable, whatever fails or dies next. */
#include "tracked_disk.h"

#include <errno.h>
#include <string.h>

#include "bitmap/dirty_bitmap.h"
#include "block/request.h"
#include "loop/coroutine.h"

#define WRITTEN (UINT64_C(100) * 1024)

/* Where a life dies, counted from its failing. */
static uint64_t crash_point;

static void co_add_one(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_add(disk, "b0"), 0);
}

/*
 * The newest superblock.
 */

/* So many that a superblock is torn when the power fails: it takes some sectors. */
static void co_add_many(struct tracked_disk *disk)
{
    co_add_one(disk);
    for (int i = 1; i <= 8; i++) {
        g_autofree char *name = g_strdup_printf("one-of-many-bitmaps-%d", i);

        assert_int_equal(co_disk_add(disk, name), 0);
    }
}

static void co_expect_no_older_state(struct tracked_disk *disk)
{
    const struct dirty_bitmap *bitmap = dirty_bitmap_find(disk->node, "b0");

    if (bitmap != NULL && dirty_bitmap_reason(bitmap) == NULL) {
        assert_false(dirty_bitmap_is_enabled(bitmap));
    }
}

/* One slot holds what was before the last answer, the other what was answered. */
static void co_fail_two_syncs_and_die(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_enable(disk, "b0", false), 0);
    storage_memory_fail_syncs(disk->memory, ".cbt", 2);
    storage_memory_crash_at(disk->memory, crash_point);
    (void)co_tracker_checkpoint(disk->tracker, NULL);
    while (disk->troubles == 0 && !storage_memory_is_dead(disk->memory)) {
        co_reschedule();
    }
}

static void test_no_crash_while_poisoning_brings_an_older_state_back(
    void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        crash_point = seed % 10 + 1;
        tracked_disk_live(disk, co_add_many, DISK_CLOSED);
        tracked_disk_live(disk, co_fail_two_syncs_and_die, DISK_POWER_CUT);
        tracked_disk_live(disk, co_expect_no_older_state, DISK_KILLED);
        tracked_disk_free(disk);
    }
}

/*
 * Each way, when the one before fails.
 */

static void co_write_and_expect_told(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    (void)co_tracker_checkpoint(disk->tracker, NULL);
    assert_int_equal(disk->troubles, 1);
    assert_true(disk->trouble_is_durable);
}

static void co_fail_one_sync(struct tracked_disk *disk)
{
    storage_memory_fail_syncs(disk->memory, ".cbt", 1);
    co_write_and_expect_told(disk);
}

static void co_fail_all_of_the_slots(struct tracked_disk *disk)
{
    storage_memory_fail_syncs(disk->memory, ".cbt", 2);
    co_write_and_expect_told(disk);
}

static void co_fail_all_of_the_file(struct tracked_disk *disk)
{
    storage_memory_fail_writes(disk->memory, ".cbt", -EIO);
    co_write_and_expect_told(disk);
}

/* More bitmaps than the file has room for get a new one, which then has its name;
 * what goes to the old one is seen by nobody after a crash. */
static void co_fail_a_rename_late(struct tracked_disk *disk)
{
    int ret = 0;

    storage_memory_fail_rename_late(disk->memory, ".cbt");
    for (int i = 1; i <= 100 && ret == 0; i++) {
        g_autofree char *name = g_strdup_printf("bitmap-%d", i);

        ret = co_disk_add(disk, name);
    }
    assert_int_equal(ret, -EIO);
    co_write_and_expect_told(disk);
}

static void co_expect_inconsistent(struct tracked_disk *disk)
{
    const char *bit = disk_bit(disk, "b0", WRITTEN);

    if (strcmp(bit, "") == 0 || strcmp(bit, "dirty") == 0) {
        fail_msg("the bitmap is believed, its bit is '%s'", bit);
    }
}

static void poison_survives(void (*co_fail)(struct tracked_disk *disk),
                            enum disk_end end)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        tracked_disk_live(disk, co_add_one, DISK_CLOSED);
        tracked_disk_live(disk, co_fail, end);
        tracked_disk_live(disk, co_expect_inconsistent, DISK_KILLED);
        tracked_disk_free(disk);
    }
}

static void test_a_poisoned_slot_survives(void **state)
{
    (void)state;
    poison_survives(co_fail_one_sync, DISK_KILLED);
    poison_survives(co_fail_one_sync, DISK_POWER_CUT);
}

static void test_an_unlinked_file_stays_away(void **state)
{
    (void)state;
    poison_survives(co_fail_all_of_the_slots, DISK_KILLED);
    poison_survives(co_fail_all_of_the_slots, DISK_POWER_CUT);
}

static void test_of_two_files_the_one_with_the_name_is_poisoned(void **state)
{
    (void)state;
    poison_survives(co_fail_a_rename_late, DISK_KILLED);
    poison_survives(co_fail_a_rename_late, DISK_POWER_CUT);
}

static void test_a_tombstone_outlives_the_file(void **state)
{
    (void)state;
    poison_survives(co_fail_all_of_the_file, DISK_KILLED);
    poison_survives(co_fail_all_of_the_file, DISK_POWER_CUT);
}

/*
 * The answer to a verb that failed.
 */

static void co_fail_to_disable(struct tracked_disk *disk)
{
    storage_memory_fail_syncs(disk->memory, ".cbt", 1);
    assert_true(co_disk_enable(disk, "b0", false) < 0);
}

/* The page cache, or the disk, may have the flip: whoever believes it finds a
 * bitmap that stopped recording, of which the client was told that it had not. */
static void test_a_failed_verb_is_answered_after_the_poison(void **state)
{
    (void)state;
    poison_survives(co_fail_to_disable, DISK_KILLED);
    poison_survives(co_fail_to_disable, DISK_POWER_CUT);
}

static void co_fail_to_resize(struct tracked_disk *disk)
{
    storage_memory_fail_syncs(disk->memory, ".cbt", 1);
    assert_true(co_block_truncate(disk->node, DISK_BYTES / 2, true, NULL) < 0);
}

static void test_a_failed_resize_is_answered_after_the_poison(void **state)
{
    (void)state;
    poison_survives(co_fail_to_resize, DISK_KILLED);
    poison_survives(co_fail_to_resize, DISK_POWER_CUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_no_crash_while_poisoning_brings_an_older_state_back),
        cmocka_unit_test(test_a_poisoned_slot_survives),
        cmocka_unit_test(test_an_unlinked_file_stays_away),
        cmocka_unit_test(test_of_two_files_the_one_with_the_name_is_poisoned),
        cmocka_unit_test(test_a_tombstone_outlives_the_file),
        cmocka_unit_test(test_a_failed_verb_is_answered_after_the_poison),
        cmocka_unit_test(test_a_failed_resize_is_answered_after_the_poison),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
