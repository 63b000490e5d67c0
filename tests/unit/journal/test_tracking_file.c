/* SPDX-License-Identifier: BSD-3-Clause */
/* A tracking file that is open: what its syncs promise. */
#include "journal/tracking_file.h"

#include "tracked_disk.h"

#include <errno.h>

#include "loop/co_lock.h"
#include "loop/coroutine.h"

static struct tracking_file *co_make_file(struct tracked_disk *disk)
{
    const struct tracking_needs needs = {
        .disk_id = journal_id_new(),
        .region_bytes = DISK_REGION_BYTES,
        .region_count = 32,
        .superblock_bytes = 1024,
        .page_count = 4,
    };
    struct tracking_file *file = NULL;

    assert_int_equal(
        co_tracking_file_create(storage_memory_storage(disk->memory),
                                "/made.cbt", &needs, &file, NULL),
        0);
    return file;
}

struct syncer {
    struct tracking_file *file;
    int result;
    unsigned int *running;
    struct co_queue *over;
};

static void co_sync(void *opaque)
{
    struct syncer *syncer = opaque;

    syncer->result = co_tracking_file_sync(syncer->file);
    --*syncer->running;
    co_queue_wake_all(syncer->over);
}

/* Several wrote, and sync side by side. */
static void co_sync_together(struct tracking_file *file,
                             struct syncer *syncers,
                             unsigned int count)
{
    unsigned int running = count;
    struct co_queue over;

    co_queue_init(&over);
    assert_int_equal(co_tracking_file_write_sectors(file, 0, 1), 0);
    for (unsigned int i = 0; i < count; i++) {
        syncers[i] = (struct syncer){
            .file = file,
            .running = &running,
            .over = &over,
        };
        co_spawn(loop_current(), co_sync, &syncers[i]);
    }
    while (running > 0) {
        co_queue_wait(&over);
    }
}

static void co_fail_one_of_two(struct tracked_disk *disk)
{
    struct tracking_file *file = co_make_file(disk);
    struct syncer syncers[2];

    storage_memory_fail_sync(disk->memory, ".cbt.new", 1);
    co_sync_together(file, syncers, 2);
    assert_int_equal(syncers[0].result, -EIO);
    assert_int_equal(syncers[1].result, -EIO);
    co_tracking_file_close(&file);
}

static void test_of_two_syncs_at_once_none_succeeds_when_one_fails(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct tracked_disk *disk = tracked_disk_new(seed);

        tracked_disk_live(disk, co_fail_one_of_two, DISK_CLOSED);
        tracked_disk_free(disk);
    }
}

static void co_sync_after_a_failure(struct tracked_disk *disk)
{
    struct tracking_file *file = co_make_file(disk);
    g_autoptr(tracking_superblock) superblock = tracking_superblock_new();

    superblock->disk_id = file->layout.disk_id;
    storage_memory_fail_sync(disk->memory, ".cbt.new", 1);
    assert_int_equal(co_tracking_file_sync(file), -EIO);
    assert_int_equal(co_tracking_file_sync(file), -EIO);
    assert_int_equal(co_tracking_file_flip(file, superblock), -EIO);
    co_tracking_file_close(&file);
}

static void test_a_failed_sync_is_final_for_the_file(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    tracked_disk_live(disk, co_sync_after_a_failure, DISK_CLOSED);
    tracked_disk_free(disk);
}

static void co_sync_intents_after_a_failure(struct tracked_disk *disk)
{
    struct tracking_file *file = co_make_file(disk);

    storage_memory_fail_sync(disk->memory, ".cbt.new", 1);
    assert_int_equal(co_tracking_file_sync(file), -EIO);
    assert_int_equal(co_tracking_file_sync_intents(file), -EIO);
    assert_int_equal(co_tracking_file_sync_intents(file), -EIO);
    co_tracking_file_close(&file);
}

static void co_sync_after_failed_intents(struct tracked_disk *disk)
{
    struct tracking_file *file = co_make_file(disk);

    storage_memory_fail_sync(disk->memory, ".cbt.new", 1);
    assert_int_equal(co_tracking_file_sync_intents(file), -EIO);
    assert_int_equal(co_tracking_file_sync(file), -EIO);
    co_tracking_file_close(&file);
}

static void test_syncs_of_intents_and_others_fail_together(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    tracked_disk_live(disk, co_sync_intents_after_a_failure, DISK_CLOSED);
    tracked_disk_live(disk, co_sync_after_failed_intents, DISK_CLOSED);
    tracked_disk_free(disk);
}

/* The kernel tells each handle of an error; the poison's sync would be told of
 * the intents', and the file unlinked with all that it says of the reason. */
static void co_poison_after_failed_intents(struct tracked_disk *disk)
{
    struct tracking_file *file = co_make_file(disk);
    g_autoptr(tracking_superblock) superblock = tracking_superblock_new();
    struct storage_stat found;

    superblock->disk_id = file->layout.disk_id;
    assert_int_equal(co_tracking_file_flip(file, superblock), 0);
    assert_int_equal(co_tracking_file_publish(file), 0);
    storage_memory_fail_sync(disk->memory, NULL, 1);
    assert_int_equal(co_tracking_file_sync_intents(file), -EIO);
    assert_int_equal(
        co_tracking_file_poison(file, superblock, "the disk is gone", NULL), 0);
    assert_int_equal(co_storage_stat(storage_memory_storage(disk->memory),
                                     "/made.cbt", &found),
                     0);
    co_tracking_file_close(&file);
}

static void test_after_failed_intents_the_poison_is_in_the_file(void **state)
{
    struct tracked_disk *disk = tracked_disk_new(1);

    (void)state;
    tracked_disk_live(disk, co_poison_after_failed_intents, DISK_CLOSED);
    tracked_disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_of_two_syncs_at_once_none_succeeds_when_one_fails),
        cmocka_unit_test(test_a_failed_sync_is_final_for_the_file),
        cmocka_unit_test(test_syncs_of_intents_and_others_fail_together),
        cmocka_unit_test(test_after_failed_intents_the_poison_is_in_the_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
