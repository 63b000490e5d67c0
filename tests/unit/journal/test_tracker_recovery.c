/* SPDX-License-Identifier: BSD-3-Clause */
/* What is recovered, in cases that chance seldom makes. */
#include "tracked_disk.h"

#include <string.h>

#include "bitmap/dirty_bitmap.h"
#include "block/fence.h"
#include "block/request.h"
#include "loop/coroutine.h"

#define WRITTEN (UINT64_C(100) * 1024)
#define LATER   (UINT64_C(300) * 1024)

static void co_add_one(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_add(disk, "b0"), 0);
}

/*
 * The page cache after a failed sync.
 */

/* Where lives die, counted from a step of theirs. */
static uint64_t crash_point;

static void co_write_and_store(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
}

/* The superblock is in the cache only, and the kernel takes it for stored. */
static void co_lose_a_flip(struct tracked_disk *disk)
{
    assert_int_equal(co_disk_write(disk, LATER), 0);
    storage_memory_fail_sync(disk->memory, ".cbt", 2);
    storage_memory_crash_at(disk->memory, crash_point);
    (void)co_tracker_checkpoint(disk->tracker, NULL);
    while (disk->troubles == 0 && !storage_memory_is_dead(disk->memory)) {
        co_reschedule();
    }
}

static void co_expect_no_damage(struct tracked_disk *disk)
{
    const char *bit = disk_bit(disk, "b0", LATER);

    if (strcmp(bit, "") == 0 || strstr(bit, "damaged") != NULL) {
        fail_msg("what was written is '%s'", bit);
    }
}

/* Who opens the file dies, too, when it has written some of its own. */
static void test_what_a_failed_sync_left_is_not_believed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        crash_point = seed % 5 + 3;
        tracked_disk_live(disk, co_add_one, DISK_CLOSED);
        tracked_disk_live(disk, co_write_and_store, DISK_KILLED);
        tracked_disk_live(disk, co_lose_a_flip, DISK_KILLED);
        tracked_disk_die_opening(disk, seed / 5 % 12 + 1);
        tracked_disk_live(disk, co_expect_no_damage, DISK_KILLED);
        tracked_disk_free(disk);
    }
}

/*
 * A frozen bitmap.
 */

static struct journal_id txid;

static enum tracker_outcome co_tell_committed(struct tracker_outcomes *outcomes,
                                              const struct journal_id *asked,
                                              const struct log_segment *segment)
{
    (void)outcomes;
    (void)segment;
    assert_true(journal_id_equal(asked, &txid));
    return TRACKER_COMMITTED;
}

static void co_drop_acknowledgement(struct tracker_outcomes *outcomes,
                                    const struct journal_id *settled,
                                    const struct journal_id *disk)
{
    (void)outcomes;
    (void)settled;
    (void)disk;
}

static struct tracker_outcomes committed = {
    .co_ask = co_tell_committed,
    .co_acknowledge = co_drop_acknowledgement,
};

static void co_freeze(struct tracked_disk *disk, enum tracker_mode mode)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_find(disk->node, "b0");
    struct bitmap *successor =
        bitmap_new(DISK_BYTES, dirty_bitmap_granularity_bytes(bitmap), NULL);

    co_tracker_begin(disk->tracker);
    (void)co_block_fence(disk->node, UINT64_MAX);
    dirty_bitmap_freeze(bitmap, &successor, "job");
    tracker_freeze(disk->tracker, bitmap, &txid, mode);
    block_unfence(disk->node);
    co_tracker_end(disk->tracker);
}

static void co_prepare(struct tracked_disk *disk)
{
    const struct log_segment segment = { .part = 1 };

    co_tracker_begin(disk->tracker);
    assert_int_equal(co_tracker_prepare(disk->tracker, &txid, &segment, NULL),
                     0);
    co_tracker_end(disk->tracker);
}

/* The segment is dirty in P, and durable so, but S is what records. */
static void co_write_after_prepare(struct tracked_disk *disk)
{
    co_write_and_store(disk);
    txid = journal_id_new();
    co_freeze(disk, TRACKER_ON_SUCCESS);
    co_prepare(disk);
    assert_int_equal(co_disk_write(disk, WRITTEN), 0);
    /* The end; what comes after is for the memory only. */
    storage_memory_crash_at(disk->memory, 1);
    (void)co_disk_write(disk, LATER);
    assert_true(storage_memory_is_dead(disk->memory));
    dirty_bitmap_reclaim(dirty_bitmap_find(disk->node, "b0"));
    tracker_settle(disk->tracker, &txid, TRACKER_ABORTED);
}

static void co_expect_dirty(struct tracked_disk *disk)
{
    assert_string_equal(disk_bit(disk, "b0", WRITTEN), "dirty");
}

/* The tracking file when the pair was durable as frozen, and not prepared yet. */
static GBytes *frozen_file;

static void co_keep_what_is_frozen(struct tracked_disk *disk)
{
    uint64_t bytes;
    const void *data;

    co_write_and_store(disk);
    txid = journal_id_new();
    co_freeze(disk, TRACKER_ON_SUCCESS);
    assert_int_equal(co_disk_write(disk, LATER), 0);
    assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
    data = storage_memory_peek(disk->memory, DISK_TRACKING_PATH, &bytes);
    frozen_file = g_bytes_new(data, bytes);
    co_prepare(disk);
    storage_memory_crash_at(disk->memory, 1);
    (void)co_disk_write(disk, 0);
    dirty_bitmap_reclaim(dirty_bitmap_find(disk->node, "b0"));
    tracker_settle(disk->tracker, &txid, TRACKER_ABORTED);
}

static void put_back_what_was_frozen(struct tracked_disk *disk)
{
    gsize bytes;
    const void *data = g_bytes_get_data(frozen_file, &bytes);

    storage_memory_poke(disk->memory, DISK_TRACKING_PATH, 0, data, bytes);
    g_clear_pointer(&frozen_file, g_bytes_unref);
}

static struct bitmap_base base_of(struct tracked_disk *disk)
{
    struct bitmap_base base;

    assert_true(tracker_base(disk->tracker, dirty_bitmap_find(disk->node, "b0"),
                             &base));
    return base;
}

static void co_expect_both(struct tracked_disk *disk)
{
    assert_string_equal(disk_bit(disk, "b0", WRITTEN), "dirty");
    assert_string_equal(disk_bit(disk, "b0", LATER), "dirty");
    assert_int_equal(base_of(disk).kind, BITMAP_BASE_EITHER);
}

/* The job was committed, but the file was rolled back to before it was prepared:
 * what the pair says of the time between is not to be relied on. */
static void test_a_frozen_pair_that_meets_a_commit_keeps_both(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    disk->outcomes = &committed;
    tracked_disk_live(disk, co_add_one, DISK_CLOSED);
    tracked_disk_live(disk, co_keep_what_is_frozen, DISK_KILLED);
    put_back_what_was_frozen(disk);
    tracked_disk_live(disk, co_expect_both, DISK_CLOSED);
    tracked_disk_free(disk);
}

static void test_a_write_during_a_job_is_in_the_successor(void **state)
{
    (void)state;
    for (int end = DISK_KILLED; end <= DISK_POWER_CUT; end++) {
        struct tracked_disk *disk = tracked_disk_new(1);

        disk->outcomes = &committed;
        tracked_disk_live(disk, co_add_one, DISK_CLOSED);
        tracked_disk_live(disk, co_write_after_prepare, (enum disk_end)end);
        tracked_disk_live(disk, co_expect_dirty, DISK_CLOSED);
        tracked_disk_free(disk);
    }
}

/*
 * The base.
 */

static void co_end_job(struct tracked_disk *disk, enum tracker_outcome outcome)
{
    co_prepare(disk);
    dirty_bitmap_abdicate(dirty_bitmap_find(disk->node, "b0"));
    tracker_settle(disk->tracker, &txid, outcome);
    assert_int_equal(co_tracker_checkpoint(disk->tracker, NULL), 0);
}

static void co_back_up(struct tracked_disk *disk)
{
    txid = journal_id_new();
    co_freeze(disk, TRACKER_ON_SUCCESS);
    co_end_job(disk, TRACKER_COMMITTED);
    assert_int_equal(base_of(disk).kind, BITMAP_BASE_ONE);
}

static void co_fail_and_consume(struct tracked_disk *disk)
{
    txid = journal_id_new();
    co_freeze(disk, TRACKER_ALWAYS);
    co_end_job(disk, TRACKER_ABORTED);
    assert_int_equal(base_of(disk).kind, BITMAP_BASE_NONE);
}

static void co_expect_no_base(struct tracked_disk *disk)
{
    assert_int_equal(base_of(disk).kind, BITMAP_BASE_NONE);
}

/* bitmap-mode=always: what was dirty is forgotten, and in no backup. */
static void test_a_bitmap_that_a_failed_job_consumed_has_no_base(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    disk->outcomes = &committed;
    tracked_disk_live(disk, co_add_one, DISK_CLOSED);
    tracked_disk_live(disk, co_back_up, DISK_CLOSED);
    tracked_disk_live(disk, co_fail_and_consume, DISK_KILLED);
    tracked_disk_live(disk, co_expect_no_base, DISK_CLOSED);
    tracked_disk_free(disk);
}

/*
 * Transactions of dead runs.
 */

static unsigned int told_settled;

static enum tracker_outcome co_tell_pending(struct tracker_outcomes *outcomes,
                                            const struct journal_id *asked,
                                            const struct log_segment *segment)
{
    (void)outcomes;
    (void)asked;
    (void)segment;
    return TRACKER_PENDING;
}

static void co_count_settled(struct tracker_outcomes *outcomes,
                             const struct journal_id *settled,
                             const struct journal_id *disk)
{
    (void)outcomes;
    (void)disk;
    told_settled += settled == NULL;
}

static struct tracker_outcomes pending = {
    .co_ask = co_tell_pending,
    .co_acknowledge = co_count_settled,
};

static void co_do_nothing(struct tracked_disk *disk)
{
    (void)disk;
}

/* Who settled it may have died before the log knew. */
static void test_once_a_disk_is_settled_it_says_so_of_all_dead_runs(
    void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    disk->outcomes = &pending;
    tracked_disk_live(disk, co_add_one, DISK_CLOSED);
    told_settled = 0;
    tracked_disk_live(disk, co_do_nothing, DISK_CLOSED);
    assert_int_equal(told_settled, 1);
    tracked_disk_free(disk);
}

static void test_a_disk_that_waits_for_an_outcome_does_not(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    disk->outcomes = &pending;
    tracked_disk_live(disk, co_add_one, DISK_CLOSED);
    tracked_disk_live(disk, co_write_after_prepare, DISK_KILLED);
    told_settled = 0;
    tracked_disk_live(disk, co_do_nothing, DISK_CLOSED);
    assert_int_equal(told_settled, 0);
    tracked_disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_failed_sync_left_is_not_believed),
        cmocka_unit_test(test_a_write_during_a_job_is_in_the_successor),
        cmocka_unit_test(test_a_frozen_pair_that_meets_a_commit_keeps_both),
        cmocka_unit_test(test_a_bitmap_that_a_failed_job_consumed_has_no_base),
        cmocka_unit_test(
            test_once_a_disk_is_settled_it_says_so_of_all_dead_runs),
        cmocka_unit_test(test_a_disk_that_waits_for_an_outcome_does_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
