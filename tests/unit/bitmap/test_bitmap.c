/* SPDX-License-Identifier: BSD-3-Clause */
/* The bits, held against a plain array of booleans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "bitmap/bitmap.h"

/* The model: one bool per segment, every operation the obvious loop. */
struct model {
    uint64_t size_bytes;
    uint64_t granularity_bytes;
    uint64_t segment_count;
    bool *set;
};

static void model_init(struct model *model, uint64_t size, uint64_t granularity)
{
    model->size_bytes = size;
    model->granularity_bytes = granularity;
    model->segment_count = divide_round_up(size, granularity);
    model->set = g_new0(bool, model->segment_count + 1);
}

static void model_release(struct model *model)
{
    g_free(model->set);
}

/* What the range touches (`inwards`: what it covers, to the disk's end). */
static void model_write(struct model *model,
                        uint64_t offset,
                        uint64_t bytes,
                        bool value,
                        bool inwards)
{
    for (uint64_t i = 0; bytes > 0 && i < model->segment_count; i++) {
        uint64_t start = i * model->granularity_bytes;
        uint64_t end =
            min_u64(start + model->granularity_bytes, model->size_bytes);
        bool covered = offset <= start && end <= offset + bytes;
        bool touched = offset < end && start < offset + bytes;
        if (inwards ? covered : touched) {
            model->set[i] = value;
        }
    }
}

static bool model_next(const struct model *model,
                       bool wanted,
                       uint64_t offset,
                       uint64_t max_bytes,
                       uint64_t *ret_offset,
                       uint64_t *ret_bytes)
{
    uint64_t i = offset / model->granularity_bytes;

    if (offset >= model->size_bytes) {
        return false;
    }
    while (i < model->segment_count && model->set[i] != wanted) {
        i++;
    }
    if (i == model->segment_count) {
        return false;
    }
    *ret_offset = max_u64(offset, i * model->granularity_bytes);
    while (i < model->segment_count && model->set[i] == wanted) {
        i++;
    }
    uint64_t end = min_u64(i * model->granularity_bytes, model->size_bytes);
    *ret_bytes = min_u64(end - *ret_offset, max_bytes);
    return true;
}

static uint64_t model_count(const struct model *model)
{
    uint64_t count = 0;

    for (uint64_t i = 0; i < model->segment_count; i++) {
        count += model->set[i];
    }
    return count;
}

static void check_same(const struct bitmap *bitmap, const struct model *model)
{
    assert_int_equal(bitmap_count(bitmap), model_count(model));
    for (uint64_t i = 0; i < model->segment_count; i++) {
        assert_int_equal(bitmap_get(bitmap, i * model->granularity_bytes),
                         model->set[i]);
    }
}

static void check_next(const struct bitmap *bitmap,
                       const struct model *model,
                       uint64_t offset,
                       uint64_t max_bytes)
{
    uint64_t expected[2] = { 0, 0 };
    uint64_t got[2] = { 0, 0 };

    bool has =
        model_next(model, true, offset, max_bytes, &expected[0], &expected[1]);
    assert_int_equal(
        bitmap_next_set(bitmap, offset, max_bytes, &got[0], &got[1]), has);
    assert_memory_equal(got, expected, sizeof(got));

    memset(expected, 0, sizeof(expected));
    memset(got, 0, sizeof(got));
    has =
        model_next(model, false, offset, max_bytes, &expected[0], &expected[1]);
    assert_int_equal(
        bitmap_next_clear(bitmap, offset, max_bytes, &got[0], &got[1]), has);
    assert_memory_equal(got, expected, sizeof(got));
}

static uint64_t random_below(GRand *rand, uint64_t limit)
{
    uint64_t value =
        (uint64_t)g_rand_int(rand) << 32 | (uint64_t)g_rand_int(rand);

    return limit == 0 ? 0 : value % limit;
}

/* A range of any size; short ones as likely as long ones. */
static uint64_t random_bytes(GRand *rand,
                             uint64_t size,
                             uint64_t offset,
                             uint64_t granularity)
{
    uint64_t most = size - offset;

    if (g_rand_boolean(rand)) {
        most = min_u64(most, 3 * granularity);
    }
    return random_below(rand, most + 1);
}

static bool model_is_set(const struct model *model,
                         uint64_t offset,
                         uint64_t bytes)
{
    for (uint64_t at = offset; at < offset + bytes; at++) {
        if (!model->set[at / model->granularity_bytes]) {
            return false;
        }
        at = round_down(at, model->granularity_bytes) +
             model->granularity_bytes - 1;
    }
    return true;
}

static void random_operations(GRand *rand, uint64_t size, uint64_t granularity)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(size, granularity, NULL);
    struct model model;

    assert_non_null(bitmap);
    model_init(&model, size, granularity);
    for (int i = 0; i < 200; i++) {
        uint64_t offset = random_below(rand, size + 1);
        uint64_t bytes = random_bytes(rand, size, offset, granularity);
        switch (g_rand_int_range(rand, 0, 12)) {
        case 0:
            bitmap_clear_all(bitmap);
            model_write(&model, 0, size, false, true);
            break;
        case 1:
            bitmap_set_all(bitmap);
            model_write(&model, 0, size, true, false);
            break;
        case 2:
        case 3:
        case 4:
        case 5:
            bitmap_clear(bitmap, offset, bytes);
            model_write(&model, offset, bytes, false, true);
            break;
        default:
            bitmap_set(bitmap, offset, bytes);
            model_write(&model, offset, bytes, true, false);
            break;
        }
        check_same(bitmap, &model);
        offset = random_below(rand, size + 1);
        bytes = random_bytes(rand, size, offset, granularity);
        assert_int_equal(bitmap_is_set(bitmap, offset, bytes),
                         model_is_set(&model, offset, bytes));
        check_next(bitmap, &model, offset, bytes + 1);
        check_next(bitmap, &model, offset, UINT64_MAX);
    }
    model_release(&model);
}

static GRand *seeded(void)
{
    const char *given = g_getenv("COHORT_TEST_SEED");
    guint32 seed =
        given != NULL ? (guint32)strtoul(given, NULL, 10) : g_random_int();

    print_message("COHORT_TEST_SEED=%u\n", seed);
    return g_rand_new_with_seed(seed);
}

static void random_operations_equal_the_model(void **state)
{
    static const uint64_t segments[] = { 1,   2,   63,   64,   65,  127,
                                         128, 129, 4095, 4096, 4097 };
    g_autoptr(GRand) rand = seeded();

    (void)state;
    for (uint64_t granularity = 512; granularity <= MIB; granularity *= 8) {
        for (size_t i = 0; i < G_N_ELEMENTS(segments); i++) {
            uint64_t size = segments[i] * granularity;
            random_operations(rand, size, granularity);
            /* An end that cuts the last segment. */
            random_operations(rand, size - 1, granularity);
            random_operations(rand, size - granularity + 1, granularity);
        }
    }
}

static void a_disk_without_bytes_has_no_bits(void **state)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(0, 512, NULL);
    uint64_t offset = 0;
    uint64_t bytes = 0;

    (void)state;
    bitmap_set_all(bitmap);
    bitmap_clear_all(bitmap);
    assert_int_equal(bitmap_count(bitmap), 0);
    assert_true(bitmap_is_set(bitmap, 0, 0));
    assert_false(bitmap_next_set(bitmap, 0, UINT64_MAX, &offset, &bytes));
    assert_false(bitmap_next_clear(bitmap, 0, UINT64_MAX, &offset, &bytes));
}

static void one_bit_in_a_terabyte_is_found(void **state)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(TIB, 4096, NULL);
    uint64_t offset = 0;
    uint64_t bytes = 0;

    (void)state;
    assert_false(bitmap_next_set(bitmap, 0, UINT64_MAX, &offset, &bytes));
    bitmap_set(bitmap, TIB - 4096, 1);
    assert_true(bitmap_next_set(bitmap, 1, UINT64_MAX, &offset, &bytes));
    assert_int_equal(offset, TIB - 4096);
    assert_int_equal(bytes, 4096);
    assert_true(bitmap_next_clear(bitmap, 0, UINT64_MAX, &offset, &bytes));
    assert_int_equal(bytes, TIB - 4096);
    bitmap_clear_all(bitmap);
    assert_false(bitmap_next_set(bitmap, 0, UINT64_MAX, &offset, &bytes));
}

static void a_full_terabyte_clears_again(void **state)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(TIB, 64 * KIB, NULL);
    uint64_t offset = 0;
    uint64_t bytes = 0;

    (void)state;
    bitmap_set_all(bitmap);
    assert_int_equal(bitmap_count(bitmap), TIB / (64 * KIB));
    assert_false(bitmap_next_clear(bitmap, 0, UINT64_MAX, &offset, &bytes));
    bitmap_clear(bitmap, 0, TIB - 1);
    assert_int_equal(bitmap_count(bitmap), 1);
    bitmap_clear(bitmap, 0, TIB);
    assert_int_equal(bitmap_count(bitmap), 0);
    assert_false(bitmap_next_set(bitmap, 0, UINT64_MAX, &offset, &bytes));
}

static void illegal_granularities_are_refused(void **state)
{
    static const uint64_t illegal[] = {
        0, 1, 256, 513, 64000, LIMIT_BITMAP_GRANULARITY_MAX * 2, UINT64_MAX
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(illegal); i++) {
        g_autoptr(GError) err = NULL;
        assert_null(bitmap_new(MIB, illegal[i], &err));
        assert_non_null(err);
    }
}

static void too_much_memory_is_refused(void **state)
{
    g_autoptr(GError) err = NULL;

    (void)state;
    assert_null(bitmap_new(LIMIT_DISK_BYTES, 512, &err));
    assert_non_null(strstr(err->message, "coarser"));
    g_clear_error(&err);
    assert_null(bitmap_new(UINT64_MAX, 512, &err));
    assert_non_null(err);
}

/* Every byte dirty before is dirty after, and nothing that neither needs. */
static void merge_once(GRand *rand, uint64_t to, uint64_t from)
{
    uint64_t size = 64 * KIB + random_below(rand, MIB);
    g_autoptr(owned_bitmap) target = bitmap_new(size, to, NULL);
    g_autoptr(owned_bitmap) source = bitmap_new(size, from, NULL);
    struct model model;

    model_init(&model, size, to);
    for (int i = 0; i < 20; i++) {
        uint64_t offset = random_below(rand, size);
        uint64_t bytes = random_bytes(rand, size, offset, 512);
        bitmap_set(i % 2 == 0 ? target : source, offset, bytes);
    }
    for (uint64_t at = 0; at < size; at += min_u64(to, from)) {
        uint64_t bytes = min_u64(size - at, min_u64(to, from));
        if (bitmap_get(target, at) || bitmap_get(source, at)) {
            model_write(&model, at, bytes, true, false);
        }
    }
    bitmap_merge(target, source);
    check_same(target, &model);
    model_release(&model);
}

static void merging_is_or_whatever_the_granularities(void **state)
{
    g_autoptr(GRand) rand = seeded();

    (void)state;
    for (uint64_t to = 512; to <= 64 * KIB; to *= 2) {
        for (uint64_t from = 512; from <= 64 * KIB; from *= 2) {
            merge_once(rand, to, from);
        }
    }
}

static void merging_with_itself_changes_nothing(void **state)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(MIB, 512, NULL);

    (void)state;
    bitmap_set(bitmap, 1000, 5000);
    uint64_t count = bitmap_count(bitmap);
    bitmap_merge(bitmap, bitmap);
    assert_int_equal(bitmap_count(bitmap), count);
}

static void a_copy_is_equal_and_its_own(void **state)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(MIB + 3, 512, NULL);

    (void)state;
    bitmap_set(bitmap, 1000, 5000);
    bitmap_set(bitmap, MIB, 3);
    g_autoptr(owned_bitmap) copy = bitmap_copy(bitmap, NULL);
    g_autofree char *sha256 = bitmap_sha256(bitmap);
    g_autofree char *copy_sha256 = bitmap_sha256(copy);
    assert_string_equal(sha256, copy_sha256);
    bitmap_clear_all(bitmap);
    assert_true(bitmap_is_set(copy, 1000, 5000));
}

static void swapping_exchanges_the_bits(void **state)
{
    g_autoptr(owned_bitmap) a = bitmap_new(MIB, 512, NULL);
    g_autoptr(owned_bitmap) b = bitmap_new(MIB, 512, NULL);

    (void)state;
    bitmap_set(a, 0, 512);
    bitmap_set(b, 512, 1024);
    bitmap_swap(a, b);
    assert_int_equal(bitmap_count(a), 2);
    assert_false(bitmap_get(a, 0));
    assert_int_equal(bitmap_count(b), 1);
    assert_true(bitmap_get(b, 0));
}

static void resize_once(GRand *rand, uint64_t old_size, bool grown_is_set)
{
    uint64_t granularity = UINT64_C(512) << g_rand_int_range(rand, 0, 6);
    uint64_t new_size = random_below(rand, 2 * MIB);
    g_autoptr(owned_bitmap) bitmap = bitmap_new(old_size, granularity, NULL);
    struct model model;

    model_init(&model, new_size, granularity);
    for (int i = 0; i < 8; i++) {
        uint64_t offset = random_below(rand, old_size);
        bitmap_set(bitmap, offset,
                   random_bytes(rand, old_size, offset, granularity));
    }
    for (uint64_t i = 0; i < model.segment_count; i++) {
        model.set[i] =
            i * granularity < old_size && bitmap_get(bitmap, i * granularity);
    }
    if (grown_is_set && new_size > old_size) {
        model_write(&model, old_size, new_size - old_size, true, false);
    }
    assert_int_equal(bitmap_resize(bitmap, new_size, grown_is_set, NULL), 0);
    assert_int_equal(bitmap_size_bytes(bitmap), new_size);
    check_same(bitmap, &model);
    check_next(bitmap, &model, 0, UINT64_MAX);

    /* What was cut off does not come back. */
    uint64_t count = bitmap_count(bitmap);
    assert_int_equal(bitmap_resize(bitmap, 4 * MIB, false, NULL), 0);
    assert_int_equal(bitmap_count(bitmap), count);
    model_release(&model);
}

static void resizing_keeps_cuts_and_fills(void **state)
{
    g_autoptr(GRand) rand = seeded();

    (void)state;
    for (int i = 0; i < 500; i++) {
        resize_once(rand, 1 + random_below(rand, 2 * MIB), i % 2 == 0);
    }
}

static void a_failed_resize_changes_nothing(void **state)
{
    g_autoptr(owned_bitmap) bitmap = bitmap_new(MIB, 512, NULL);
    g_autoptr(GError) err = NULL;

    (void)state;
    bitmap_set(bitmap, 0, 1);
    assert_true(bitmap_resize(bitmap, LIMIT_DISK_BYTES, true, &err) < 0);
    assert_non_null(err);
    assert_int_equal(bitmap_size_bytes(bitmap), MIB);
    assert_int_equal(bitmap_count(bitmap), 1);
}

/* 128 segments, bit 0 and bit 64 set: sha256 of two words of value 1. */
static void the_hash_is_that_of_the_words(void **state)
{
    static const uint64_t words[] = { 1, 1 };
    g_autoptr(owned_bitmap) bitmap = bitmap_new(UINT64_C(128) * 512, 512, NULL);
    g_autofree char *expected = g_compute_checksum_for_data(
        G_CHECKSUM_SHA256, (const guchar *)words, sizeof(words));

    (void)state;
    bitmap_set(bitmap, 0, 1);
    bitmap_set(bitmap, UINT64_C(64) * 512, 1);
    g_autofree char *got = bitmap_sha256(bitmap);
    assert_string_equal(got, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_equal_the_model),
        cmocka_unit_test(a_disk_without_bytes_has_no_bits),
        cmocka_unit_test(one_bit_in_a_terabyte_is_found),
        cmocka_unit_test(a_full_terabyte_clears_again),
        cmocka_unit_test(illegal_granularities_are_refused),
        cmocka_unit_test(too_much_memory_is_refused),
        cmocka_unit_test(merging_is_or_whatever_the_granularities),
        cmocka_unit_test(merging_with_itself_changes_nothing),
        cmocka_unit_test(a_copy_is_equal_and_its_own),
        cmocka_unit_test(swapping_exchanges_the_bits),
        cmocka_unit_test(resizing_keeps_cuts_and_fills),
        cmocka_unit_test(a_failed_resize_changes_nothing),
        cmocka_unit_test(the_hash_is_that_of_the_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
