/* SPDX-License-Identifier: BSD-3-Clause */
/* Bitmap directories: there and back, and everything wrong is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "drivers/qcow2/bitmap_directory.h"

static struct qcow2_stored_bitmap first = {
    .name = (char[]){ "one" },
    .table_offset = 0x70000,
    .table_count = 3,
    .flags = QCOW2_BITMAP_AUTO,
    .type = QCOW2_BITMAP_TYPE_DIRTY_TRACKING,
    .granularity_bits = 16,
};
static struct qcow2_stored_bitmap second = {
    .name = (char[]){ "number two" },
    .table_offset = 0x80000,
    .table_count = 1,
    .flags = QCOW2_BITMAP_IN_USE | 1U << 31,
    .type = 7,
    .granularity_bits = 9,
};

static GByteArray *directory(void)
{
    g_autoptr(GPtrArray) bitmaps = g_ptr_array_new();

    g_clear_pointer(&second.extra_data, g_bytes_unref);
    second.extra_data = g_bytes_new("extra", 5);
    g_ptr_array_add(bitmaps, &first);
    g_ptr_array_add(bitmaps, &second);
    return qcow2_bitmaps_format(bitmaps, NULL);
}

static void assert_same(const struct qcow2_stored_bitmap *a,
                        const struct qcow2_stored_bitmap *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->table_offset, b->table_offset);
    assert_int_equal(a->table_count, b->table_count);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->granularity_bits, b->granularity_bits);
    assert_true((a->extra_data == NULL) == (b->extra_data == NULL));
    assert_true(a->extra_data == NULL ||
                g_bytes_equal(a->extra_data, b->extra_data));
}

static void what_is_formatted_parses_to_the_same(void **state)
{
    (void)state;
    g_autoptr(GByteArray) bytes = directory();
    g_autoptr(GError) err = NULL;
    g_autoptr(GPtrArray) read =
        qcow2_bitmaps_parse(bytes->data, bytes->len, 2, 16, "a", &err);

    assert_int_equal(bytes->len % 8, 0);
    assert_non_null(read);
    assert_int_equal(read->len, 2);
    assert_same(read->pdata[0], &first);
    assert_same(read->pdata[1], &second);
}

static void assert_refused(const uint8_t *bytes, size_t length, uint32_t count)
{
    g_autoptr(GError) err = NULL;
    g_autofree uint8_t *exact = g_malloc(length + 1);
    uint8_t *start = exact + 1; /* so that its end is the allocation's */

    memcpy(start, bytes, length);
    assert_null(qcow2_bitmaps_parse(start, length, count, 16, "a", &err));
    assert_non_null(err);
}

static void every_other_length_and_count_is_refused(void **state)
{
    (void)state;
    g_autoptr(GByteArray) bytes = directory();

    for (size_t length = 0; length < bytes->len; length++) {
        assert_refused(bytes->data, length, 2);
    }
    assert_refused(bytes->data, bytes->len, 1);
    assert_refused(bytes->data, bytes->len, 3);
    assert_refused(bytes->data, bytes->len, UINT32_MAX);
}

static void each_wrong_field_is_refused(void **state)
{
    (void)state;

    static const struct {
        size_t offset;
        uint8_t value;
    } wrong[] = {
        { 0, 1 },     /* the table behind 2^56 */
        { 7, 1 },     /* ... not at a cluster */
        { 17, 64 },   /* granularity */
        { 18, 4 },    /* name of 1027 bytes */
        { 19, 0 },    /* ... of none */
        { 20, 0xff }, /* extra data of 4 GiB */
        { 25, 0 },    /* NUL in the name */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GByteArray) bytes = directory();

        bytes->data[wrong[i].offset] = wrong[i].value;
        assert_refused(bytes->data, bytes->len, 2);
    }
}

static void two_bitmaps_of_one_name_are_refused(void **state)
{
    (void)state;
    g_autoptr(GPtrArray) bitmaps = g_ptr_array_new();

    g_ptr_array_add(bitmaps, &first);
    g_ptr_array_add(bitmaps, &first);
    g_autoptr(GByteArray) bytes = qcow2_bitmaps_format(bitmaps, NULL);
    assert_refused(bytes->data, bytes->len, 2);
}

static int release(void **state)
{
    (void)state;
    g_clear_pointer(&second.extra_data, g_bytes_unref);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_formatted_parses_to_the_same),
        cmocka_unit_test(every_other_length_and_count_is_refused),
        cmocka_unit_test(each_wrong_field_is_refused),
        cmocka_unit_test(two_bitmaps_of_one_name_are_refused),
    };

    return cmocka_run_group_tests_name("drivers/qcow2/bitmap_directory", tests,
                                       NULL, release);
}
