/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bitmaps on a node: what they record, and what freezing, abdicating and
 * reclaiming make of them. The node is real, its disk keeps nothing.
 */
#include <errno.h>
#include <string.h>

#include "plain_disk.h"

#include "base/bytes.h"
#include "base/limits.h"
#include "bitmap/dirty_bitmap.h"

#define SIZE    (UINT64_C(1) * MIB)
#define SEGMENT (UINT64_C(64) * KIB)

static struct dirty_bitmap *add(struct block_node *node,
                                const char *name,
                                uint64_t granularity)
{
    g_autoptr(GError) err = NULL;
    struct dirty_bitmap *bitmap =
        dirty_bitmap_new(node, name, granularity, false, &err);
    struct dirty_bitmap *kept = bitmap;

    assert_non_null(bitmap);
    dirty_bitmap_attach(node, &bitmap);
    assert_null(bitmap);
    return kept;
}

static void freeze(struct dirty_bitmap *bitmap, const char *holder)
{
    struct bitmap *bits = dirty_bitmap_bits(bitmap);
    struct bitmap *successor = bitmap_new(bitmap_size_bytes(bits),
                                          bitmap_granularity_bytes(bits), NULL);

    dirty_bitmap_freeze(bitmap, &successor, holder);
    assert_null(successor);
}

static void co_write(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    static const char zeroes[4 * KIB];

    assert_true(bytes <= sizeof(zeroes));
    assert_int_equal(co_block_pwrite(node, offset, bytes, zeroes, 0), 0);
}

static uint64_t count_of(struct dirty_bitmap *bitmap)
{
    return bitmap_count(dirty_bitmap_bits(bitmap));
}

static void writes_zeroes_and_discards_are_recorded(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", 4 * KIB);
    co_write(node, 1, 1);
    assert_int_equal(count_of(bitmap), 1);
    assert_int_equal(co_block_write_zeroes(node, 64 * KIB, 8 * KIB, 0), 0);
    assert_int_equal(count_of(bitmap), 3);
    assert_int_equal(co_block_discard(node, 128 * KIB, 4 * KIB), 0);
    assert_int_equal(count_of(bitmap), 4);
    co_write(node, 1, 1);
    assert_int_equal(count_of(bitmap), 4);
    co_go_back(place);
}

static void each_bitmap_records_for_itself(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *coarse = add(node, "coarse", 64 * KIB);
    co_write(node, 0, 1);
    struct dirty_bitmap *fine = add(node, "fine", 512);
    co_write(node, 100 * KIB, 1024);
    assert_int_equal(count_of(coarse), 2);
    assert_int_equal(count_of(fine), 2);
    dirty_bitmap_set_enabled(coarse, false);
    assert_false(dirty_bitmap_is_enabled(coarse));
    co_write(node, 900 * KIB, 512);
    assert_int_equal(count_of(coarse), 2);
    assert_int_equal(count_of(fine), 3);
    dirty_bitmap_free(dirty_bitmap_detach(fine));
    dirty_bitmap_set_enabled(coarse, true);
    co_write(node, 900 * KIB, 512);
    assert_int_equal(count_of(coarse), 3);
    assert_null(dirty_bitmap_find(node, "fine"));
    assert_ptr_equal(dirty_bitmap_find(node, "coarse"), coarse);
    assert_ptr_equal(dirty_bitmap_next(node, NULL), coarse);
    assert_null(dirty_bitmap_next(node, coarse));
    co_go_back(place);
}

static void the_default_granularity_is_the_cluster(struct disk_place *place)
{
    static const struct {
        uint64_t cluster;
        uint64_t expected;
    } cases[] = {
        { 0, 65536 }, { 512, 4096 }, { 16384, 16384 }, { 2 * MIB, 65536 }
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strdup_printf("d%zu", i);
        struct block_node *node =
            co_disk_add(place, name, SIZE, cases[i].cluster);
        g_autoptr(dirty_bitmap) bitmap =
            dirty_bitmap_new(node, "b", 0, false, NULL);
        assert_int_equal(dirty_bitmap_granularity_bytes(bitmap),
                         cases[i].expected);
    }
}

static void illegal_bitmaps_are_refused(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);
    g_autofree char *too_long = g_strnfill(1024, 'b');
    g_autofree char *longest = g_strnfill(1023, 'b');
    g_autoptr(GError) err = NULL;

    assert_null(dirty_bitmap_new(node, "", 0, false, &err));
    g_clear_error(&err);
    assert_null(dirty_bitmap_new(node, too_long, 0, false, &err));
    g_clear_error(&err);
    assert_null(dirty_bitmap_new(node, "b", 64000, false, &err));
    assert_non_null(strstr(err->message, "'b'"));
    g_clear_error(&err);
    assert_null(dirty_bitmap_new(node, "b", 256, false, &err));
    g_autoptr(dirty_bitmap) bitmap =
        dirty_bitmap_new(node, longest, 512, false, NULL);
    assert_non_null(bitmap);
}

/* P keeps still, S records; success: P := S. */
static void abdicating_keeps_what_came_after(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
    struct bitmap *bits = dirty_bitmap_bits(bitmap);
    co_write(node, 0, 1);
    freeze(bitmap, "job0");
    co_write(node, 5 * SEGMENT, 1);
    co_write(node, 6 * SEGMENT, 1);
    assert_true(dirty_bitmap_is_frozen(bitmap));
    assert_int_equal(count_of(bitmap), 1);
    dirty_bitmap_abdicate(bitmap);
    assert_false(dirty_bitmap_is_frozen(bitmap));
    assert_false(dirty_bitmap_is_busy(bitmap));
    assert_ptr_equal(dirty_bitmap_bits(bitmap), bits);
    assert_false(bitmap_get(bits, 0));
    assert_true(bitmap_is_set(bits, 5 * SEGMENT, 2 * SEGMENT));
    assert_int_equal(count_of(bitmap), 2);
    co_write(node, 0, 1);
    assert_int_equal(count_of(bitmap), 3);
    co_go_back(place);
}

/* Failure: P := P OR S. */
static void reclaiming_loses_nothing(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
    co_write(node, 0, 1);
    freeze(bitmap, "job0");
    co_write(node, 0, 1);
    co_write(node, 5 * SEGMENT, 1);
    dirty_bitmap_reclaim(bitmap);
    assert_int_equal(count_of(bitmap), 2);
    assert_true(bitmap_get(dirty_bitmap_bits(bitmap), 0));
    assert_true(bitmap_get(dirty_bitmap_bits(bitmap), 5 * SEGMENT));
    co_write(node, 7 * SEGMENT, 1);
    assert_int_equal(count_of(bitmap), 3);
    /* And once more, from the bitmap as it came back. */
    freeze(bitmap, "job1");
    dirty_bitmap_abdicate(bitmap);
    assert_int_equal(count_of(bitmap), 0);
    co_go_back(place);
}

static void a_disabled_bitmaps_successor_is_disabled(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
    co_write(node, 0, 1);
    dirty_bitmap_set_enabled(bitmap, false);
    freeze(bitmap, "job0");
    co_write(node, 5 * SEGMENT, 1);
    dirty_bitmap_reclaim(bitmap);
    assert_int_equal(count_of(bitmap), 1);
    freeze(bitmap, "job0");
    co_write(node, 5 * SEGMENT, 1);
    dirty_bitmap_abdicate(bitmap);
    assert_int_equal(count_of(bitmap), 0);
    assert_false(dirty_bitmap_is_enabled(bitmap));
    co_go_back(place);
}

static void a_busy_bitmap_names_its_holder(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);
    g_autoptr(GError) err = NULL;

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
    assert_int_equal(dirty_bitmap_check_free(bitmap, NULL), 0);
    freeze(bitmap, "job0");
    assert_int_equal(dirty_bitmap_check_free(bitmap, &err), -EBUSY);
    assert_non_null(strstr(err->message, "'b0'"));
    assert_non_null(strstr(err->message, "'d0'"));
    assert_non_null(strstr(err->message, "'job0'"));
    dirty_bitmap_reclaim(bitmap);
    assert_int_equal(dirty_bitmap_check_free(bitmap, NULL), 0);
    dirty_bitmap_set_busy(bitmap, "export0");
    assert_true(dirty_bitmap_is_busy(bitmap));
    dirty_bitmap_set_busy(bitmap, NULL);
    assert_false(dirty_bitmap_is_busy(bitmap));
    co_go_back(place);
}

static void co_resize(struct block_node *node, uint64_t size_bytes)
{
    assert_int_equal(co_block_truncate(node, size_bytes, true, NULL), 0);
}

static void what_grows_is_dirty(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
    co_write(node, 0, 1);
    co_resize(node, SIZE + 2 * SEGMENT);
    assert_int_equal(count_of(bitmap), 3);
    assert_true(bitmap_is_set(dirty_bitmap_bits(bitmap), SIZE, 2 * SEGMENT));
    co_resize(node, SEGMENT / 2);
    assert_int_equal(count_of(bitmap), 1);
    co_resize(node, SIZE);
    assert_int_equal(count_of(bitmap), SIZE / SEGMENT);
    co_go_back(place);
}

static void a_frozen_bitmap_keeps_still_when_the_disk_grows(
    struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    for (int abdicate = 0; abdicate < 2; abdicate++) {
        struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
        co_resize(node, SIZE);
        bitmap_clear_all(dirty_bitmap_bits(bitmap));
        freeze(bitmap, "job0");
        co_resize(node, SIZE + SEGMENT);
        co_write(node, SIZE, 1);
        assert_int_equal(count_of(bitmap), 0);
        if (abdicate) {
            dirty_bitmap_abdicate(bitmap);
        } else {
            dirty_bitmap_reclaim(bitmap);
        }
        assert_int_equal(count_of(bitmap), 1);
        assert_true(bitmap_get(dirty_bitmap_bits(bitmap), SIZE));
        dirty_bitmap_free(dirty_bitmap_detach(bitmap));
    }
    co_go_back(place);
}

/* 512 bytes of granularity are too fine for so long a disk. */
static void a_disk_that_outgrows_a_bitmap_makes_it_coarser(
    struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);

    co_go_home(node);
    struct dirty_bitmap *bitmap = add(node, "b0", 512);
    co_write(node, 512, 1);
    freeze(bitmap, "job0");
    co_write(node, 8 * KIB, 1);
    co_resize(node, 8 * TIB);
    dirty_bitmap_reclaim(bitmap);
    struct bitmap *bits = dirty_bitmap_bits(bitmap);
    assert_true(bitmap_granularity_bytes(bits) > 512);
    assert_true(bitmap_get(bits, 512));
    assert_true(bitmap_get(bits, 8 * KIB));
    assert_true(bitmap_get(bits, 8 * TIB - 1));
    co_go_back(place);
}

static void a_query_shows_the_successor_without_a_name(struct disk_place *place)
{
    struct block_node *node = co_disk_add(place, "d0", SIZE, 0);
    g_autoptr(GString) text = g_string_new(NULL);

    co_go_home(node);
    assert_null(dirty_bitmap_query(node));
    dirty_bitmap_prepare_node(node);
    assert_null(dirty_bitmap_query(node));
    struct dirty_bitmap *bitmap = add(node, "b0", SEGMENT);
    add(node, "b1", SEGMENT);
    co_write(node, 0, 1);
    freeze(bitmap, "job0");
    g_autoptr(json_value) bitmaps = dirty_bitmap_query(node);
    json_write(bitmaps, false, text);
    assert_string_equal(
        text->str,
        "[{\"name\": \"b0\", \"count\": 65536, \"granularity\": 65536, "
        "\"recording\": true, \"busy\": true, \"persistent\": false}, "
        "{\"count\": 0, \"granularity\": 65536, \"recording\": true, "
        "\"busy\": false, \"persistent\": false}, "
        "{\"name\": \"b1\", \"count\": 65536, \"granularity\": 65536, "
        "\"recording\": true, \"busy\": false, \"persistent\": false}]");
    dirty_bitmap_reclaim(bitmap);
    /* Explicitly here; closing the node does it in all other tests. */
    dirty_bitmap_release_node(node);
    assert_null(dirty_bitmap_query(node));
    co_write(node, 0, 1);
    co_go_back(place);
}

/* Also with the node at home on another thread; an assertion that fails there
 * ends the program, so the one loop comes first. */
#define BOTH(name)                             \
 static void name##_on_one_loop(void **state)  \
 {                                             \
  (void)state;                                 \
  run_with_disks(name, false);                 \
 }                                             \
 static void name##_on_iothreads(void **state) \
 {                                             \
  (void)state;                                 \
  run_with_disks(name, true);                  \
 }

BOTH(writes_zeroes_and_discards_are_recorded)
BOTH(each_bitmap_records_for_itself)
BOTH(the_default_granularity_is_the_cluster)
BOTH(illegal_bitmaps_are_refused)
BOTH(abdicating_keeps_what_came_after)
BOTH(reclaiming_loses_nothing)
BOTH(a_disabled_bitmaps_successor_is_disabled)
BOTH(a_busy_bitmap_names_its_holder)
BOTH(what_grows_is_dirty)
BOTH(a_frozen_bitmap_keeps_still_when_the_disk_grows)
BOTH(a_disk_that_outgrows_a_bitmap_makes_it_coarser)
BOTH(a_query_shows_the_successor_without_a_name)

#define PAIR(name) \
 cmocka_unit_test(name##_on_one_loop), cmocka_unit_test(name##_on_iothreads)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIR(writes_zeroes_and_discards_are_recorded),
        PAIR(each_bitmap_records_for_itself),
        PAIR(the_default_granularity_is_the_cluster),
        PAIR(illegal_bitmaps_are_refused),
        PAIR(abdicating_keeps_what_came_after),
        PAIR(reclaiming_loses_nothing),
        PAIR(a_disabled_bitmaps_successor_is_disabled),
        PAIR(a_busy_bitmap_names_its_holder),
        PAIR(what_grows_is_dirty),
        PAIR(a_frozen_bitmap_keeps_still_when_the_disk_grows),
        PAIR(a_disk_that_outgrows_a_bitmap_makes_it_coarser),
        PAIR(a_query_shows_the_successor_without_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
