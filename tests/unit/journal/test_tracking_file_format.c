/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of a tracking file, there and back, and damaged. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "journal/tracking_file_format.h"
#include "random.h"

static const struct tracking_layout layout = {
    .disk_id = { { 1, 2, 3 } },
    .region_bytes = MIB,
    .region_count = TRACKING_SECTOR_REGIONS,
    .slot_offset = { 4096, 12288 },
    .slot_bytes = 8192,
    .intent_offset = 20480,
    .intent_sectors = 1,
    .pages_offset = 24576,
    .page_count = 12,
};

static void test_crc_is_the_castagnoli_one(void **state)
{
    (void)state;
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xE3069283);
}

static void test_header_comes_back(void **state)
{
    static uint8_t bytes[TRACKING_HEADER_BYTES];
    struct tracking_layout found;

    (void)state;
    tracking_header_encode(&layout, bytes);
    assert_int_equal(tracking_header_decode(bytes, "x", &found, NULL), 0);
    assert_memory_equal(&found, &layout, sizeof(layout));
}

static void test_newer_version_is_refused_by_name(void **state)
{
    static uint8_t bytes[TRACKING_HEADER_BYTES];
    struct tracking_layout found;
    g_autoptr(GError) err = NULL;

    (void)state;
    tracking_header_encode(&layout, bytes);
    store_le16(bytes + 8, TRACKING_MAJOR + 1);
    assert_int_equal(tracking_header_decode(bytes, "disk.cbt", &found, &err),
                     -ENOTSUP);
    assert_non_null(strstr(err->message, "disk.cbt"));
    assert_non_null(strstr(err->message, "version 2"));
}

static struct tracking_superblock *sample(void)
{
    struct tracking_superblock *superblock = tracking_superblock_new();
    struct tracked_bitmap *bitmap = tracked_bitmap_new("b0");

    superblock->sequence = 7;
    superblock->disk_id = layout.disk_id;
    superblock->size_bytes = 64 * MIB;
    superblock->is_resizing = true;
    superblock->resize_old_bytes = 1;
    superblock->resize_new_bytes = 2;
    superblock->next_bitmap_id = 9;
    superblock->identity.kind = IDENTITY_FILE;
    superblock->identity.modified_ns = -5;
    memcpy(superblock->layer, "raw", 4);
    bitmap->id = 3;
    bitmap->recording = true;
    bitmap->has_second = true;
    bitmap->granularity_shift = 16;
    bitmap->base.kind = BITMAP_BASE_EITHER;
    bitmap->base.points[1].txid.bytes[0] = 8;
    bitmap->change = (struct tracked_change){
        .kind = TRACKER_CHANGE_JOB,
        .state = TRACKED_PREPARED,
        .mode = TRACKER_ALWAYS,
        .segment = { .part = 4 },
        .txid = { { 6 } },
    };
    bitmap->page_count = 2;
    bitmap->pages[TRACKED_FIRST] = g_new0(struct tracked_page, 2);
    bitmap->pages[TRACKED_SECOND] = g_new0(struct tracked_page, 2);
    bitmap->pages[TRACKED_SECOND][1] = (struct tracked_page){ 12, 99 };
    g_ptr_array_add(superblock->bitmaps, bitmap);
    return superblock;
}

static void test_superblock_comes_back(void **state)
{
    g_autoptr(tracking_superblock) superblock = sample();
    g_autoptr(GByteArray) bytes = tracking_superblock_encode(superblock);
    g_autoptr(tracking_superblock) found =
        tracking_superblock_decode(bytes->data, bytes->len, &layout);
    g_autoptr(GByteArray) again = NULL;

    (void)state;
    assert_non_null(found);
    again = tracking_superblock_encode(found);
    assert_int_equal(again->len, bytes->len);
    assert_memory_equal(again->data, bytes->data, bytes->len);
}

static void test_damaged_superblock_is_none(void **state)
{
    g_autoptr(tracking_superblock) superblock = sample();
    g_autoptr(GByteArray) bytes = tracking_superblock_encode(superblock);

    (void)state;
    for (guint i = 0; i < bytes->len; i++) {
        bytes->data[i] ^= 1;
        assert_null(
            tracking_superblock_decode(bytes->data, bytes->len, &layout));
        bytes->data[i] ^= 1;
    }
}

/* Not by accident: with a right checksum. */
static void test_wrong_superblock_ends_within_its_bytes(void **state)
{
    g_autoptr(tracking_superblock) superblock = sample();
    g_autoptr(GByteArray) right = tracking_superblock_encode(superblock);
    struct random random;

    (void)state;
    random_init(&random, 1);
    for (int i = 0; i < 20000; i++) {
        g_autofree uint8_t *bytes = g_memdup2(right->data, right->len);
        uint64_t at = random_between(&random, 40, right->len - 1);

        bytes[at] = (uint8_t)random_next(&random);
        bytes[random_between(&random, 256, right->len - 1)] =
            (uint8_t)random_next(&random);
        store_le32(bytes + 8, 0);
        store_le32(bytes + 8, crc32c(0, bytes, right->len));
        tracking_superblock_free(
            tracking_superblock_decode(bytes, right->len, &layout));
    }
}

static void test_page_counts_in_its_place_only(void **state)
{
    static uint64_t words[TRACKING_PAGE_WORDS] = { 5 };
    static uint64_t found[TRACKING_PAGE_WORDS];
    static uint8_t bytes[TRACKING_PAGE_BYTES];
    uint32_t crc =
        tracking_page_encode(3, TRACKED_SECOND, 1, 7, words, 2, bytes);

    (void)state;
    assert_true(tracking_page_decode(bytes, 3, TRACKED_SECOND, 1, crc, found));
    assert_memory_equal(found, words, sizeof(words));
    assert_false(tracking_page_decode(bytes, 4, TRACKED_SECOND, 1, crc, found));
    assert_false(tracking_page_decode(bytes, 3, TRACKED_FIRST, 1, crc, found));
    assert_false(tracking_page_decode(bytes, 3, TRACKED_SECOND, 2, crc, found));
    assert_false(
        tracking_page_decode(bytes, 3, TRACKED_SECOND, 1, crc + 1, found));
    bytes[100] ^= 1;
    assert_false(tracking_page_decode(bytes, 3, TRACKED_SECOND, 1, crc, found));
}

static void test_bad_intent_sector_is_all_ones(void **state)
{
    uint8_t sector[STORAGE_SECTOR_BYTES] = { 0 };
    uint64_t sequence;

    (void)state;
    tracking_sector_seal(sector, 2, 9);
    tracking_sector_check(sector, 2, &sequence);
    assert_int_equal(sequence, 9);
    assert_int_equal(sector[16], 0);
    tracking_sector_check(sector, 1, &sequence);
    assert_int_equal(sequence, 0);
    assert_int_equal(sector[16], 0xff);
    assert_int_equal(sector[511], 0xff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc_is_the_castagnoli_one),
        cmocka_unit_test(test_header_comes_back),
        cmocka_unit_test(test_newer_version_is_refused_by_name),
        cmocka_unit_test(test_superblock_comes_back),
        cmocka_unit_test(test_damaged_superblock_is_none),
        cmocka_unit_test(test_wrong_superblock_ends_within_its_bytes),
        cmocka_unit_test(test_page_counts_in_its_place_only),
        cmocka_unit_test(test_bad_intent_sector_is_all_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
