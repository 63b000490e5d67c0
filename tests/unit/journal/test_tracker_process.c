/* SPDX-License-Identifier: BSD-3-Clause */
/* durability=process: what a power cut may leave of a file that is not synced. */
#include "tracked_disk.h"

#include <string.h>

#include "bitmap/dirty_bitmap.h"
#include "loop/coroutine.h"

#define WRITTEN (UINT64_C(100) * 1024)

/* So many that a superblock takes several sectors; the last bitmap is in the
 * last, so that a torn one is not whole. */
static void co_add_some(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_add(disk, "b0"), 0);
    assert_int_equal(co_disk_add(disk, "b1"), 0);
    assert_int_equal(co_disk_add(disk, "b2"), 0);
    assert_int_equal(co_disk_add(disk, "b3"), 0);
}

/* Two flips, so both slots are written, and neither is synced. */
static void co_write_between_flips(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_enable(disk, "b2", false), 0);
    assert_int_equal(co_disk_enable(disk, "b3", false), 0);
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
}

/* Without any superblock there is no bitmap, and that was told. */
static void co_expect_nothing_believed(struct tracked_disk *disk)
{
    const char *bit = disk_bit(disk, "b0", WRITTEN);

    if (strcmp(bit, "not there") == 0) {
        assert_int_equal(disk->troubles, 1);
    } else if (strcmp(bit, "") == 0 || strcmp(bit, "dirty") == 0) {
        fail_msg("the bitmap is believed, its bit is '%s'", bit);
    }
}

/* The slot that was closed cleanly, or kept with durability=power, must not come
 * to count because the newer one is torn. */
static void power_cut_after(enum tracker_durability first, enum disk_end end)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        disk->durability = first;
        tracked_disk_live(disk, co_add_some, end);
        disk->durability = TRACKER_PROCESS;
        tracked_disk_live(disk, co_write_between_flips, DISK_POWER_CUT);
        tracked_disk_live(disk, co_expect_nothing_believed, DISK_KILLED);
        tracked_disk_free(disk);
    }
}

static void test_a_clean_close_does_not_come_back(void **state)
{
    (void)state;
    power_cut_after(TRACKER_PROCESS, DISK_CLOSED);
}

static void test_what_power_mode_kept_does_not_come_back(void **state)
{
    (void)state;
    power_cut_after(TRACKER_POWER, DISK_KILLED);
}

/* What is lost is lost once. */

static void co_add_one(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_add(disk, "b0"), 0);
}

/* Each checkpoint clears intents under a sequence of its own. */
static void co_write_and_checkpoint(struct tracked_disk *disk)
{
    for (uint64_t at = 0; at < DISK_BYTES; at += DISK_BYTES / 64) {
        assert_int_equal(co_disk_write(disk, at), 0);
        assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
        co_sleep_until(loop_now_ns() + 1000); /* the cleared map is written */
    }
}

static void co_begin_anew(struct tracked_disk *disk)
{
    if (dirty_bitmap_find(disk->node, "b0") != NULL) {
        assert_int_equal(co_disk_remove(disk, "b0"), 0);
    }
    assert_int_equal(co_disk_add(disk, "b0"), 0);
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
}

static void co_expect_dirty(struct tracked_disk *disk)
{
    assert_string_equal(disk_bit(disk, "b0", WRITTEN), "dirty");
}

static void test_a_bitmap_made_after_the_loss_is_good(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        disk->durability = TRACKER_PROCESS;
        tracked_disk_live(disk, co_add_one, DISK_CLOSED);
        tracked_disk_live(disk, co_write_and_checkpoint, DISK_POWER_CUT);
        tracked_disk_live(disk, co_begin_anew, DISK_KILLED);
        tracked_disk_live(disk, co_expect_dirty, DISK_KILLED);
        tracked_disk_free(disk);
    }
}

/* A close that is cut. */

/* The pages of b0 are written and not synced; the first superblock of the close
 * names them, and has no other. */
static void co_close_and_die(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_add(disk, "b0"), 0);
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
    co_sleep_until(loop_now_ns() + 1000); /* the cleared map is written */
    storage_memory_crash_at(disk->memory, random_between(&disk->random, 1, 10));
    (void)co_tracker_close(&disk->tracker, NULL);
}

static void co_expect_undamaged(struct tracked_disk *disk)
{
    const char *bit = disk_bit(disk, "b0", WRITTEN);

    assert_string_not_equal(bit, "");
    assert_string_not_equal(bit, "its tracking file is damaged");
}

static void test_a_close_names_only_pages_that_are_durable(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        disk->durability = TRACKER_PROCESS;
        tracked_disk_live(disk, co_close_and_die, DISK_POWER_CUT);
        tracked_disk_live(disk, co_expect_undamaged, DISK_KILLED);
        tracked_disk_free(disk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_clean_close_does_not_come_back),
        cmocka_unit_test(test_what_power_mode_kept_does_not_come_back),
        cmocka_unit_test(test_a_bitmap_made_after_the_loss_is_good),
        cmocka_unit_test(test_a_close_names_only_pages_that_are_durable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
