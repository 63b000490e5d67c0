/* SPDX-License-Identifier: BSD-3-Clause */
/* Integers from outside: byte order at any alignment, overflow-safe ranges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

static void stores_put_the_bytes_in_order(void **state)
{
    (void)state;
    uint8_t bytes[9] = { 0 };

    store_be16(bytes + 1, 0x0102);
    assert_memory_equal(bytes + 1, "\x01\x02", 2);
    store_le16(bytes + 1, 0x0102);
    assert_memory_equal(bytes + 1, "\x02\x01", 2);
    store_be32(bytes + 1, 0x01020304);
    assert_memory_equal(bytes + 1, "\x01\x02\x03\x04", 4);
    store_le32(bytes + 1, 0x01020304);
    assert_memory_equal(bytes + 1, "\x04\x03\x02\x01", 4);
    store_be64(bytes + 1, UINT64_C(0x0102030405060708));
    assert_memory_equal(bytes + 1, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    store_le64(bytes + 1, UINT64_C(0x0102030405060708));
    assert_memory_equal(bytes + 1, "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
}

static void loads_read_what_stores_wrote(void **state)
{
    (void)state;
    uint8_t bytes[9];

    store_be16(bytes + 1, 0xfffe);
    assert_int_equal(load_be16(bytes + 1), 0xfffe);
    store_le16(bytes + 1, 0xfffe);
    assert_int_equal(load_le16(bytes + 1), 0xfffe);
    store_be32(bytes + 1, UINT32_MAX - 1);
    assert_int_equal(load_be32(bytes + 1), UINT32_MAX - 1);
    store_le32(bytes + 1, UINT32_MAX - 1);
    assert_int_equal(load_le32(bytes + 1), UINT32_MAX - 1);
    store_be64(bytes + 1, UINT64_MAX - 1);
    assert_true(load_be64(bytes + 1) == UINT64_MAX - 1);
    store_le64(bytes + 1, UINT64_MAX - 1);
    assert_true(load_le64(bytes + 1) == UINT64_MAX - 1);
}

static void a_range_is_within_or_not_whatever_the_numbers(void **state)
{
    (void)state;
    assert_true(bytes_range_within(0, 0, 0));
    assert_true(bytes_range_within(0, 10, 10));
    assert_true(bytes_range_within(10, 0, 10));
    assert_true(bytes_range_within(UINT64_MAX - 1, 1, UINT64_MAX));
    assert_false(bytes_range_within(0, 11, 10));
    assert_false(bytes_range_within(11, 0, 10));
    assert_false(bytes_range_within(1, UINT64_MAX, 10));
    assert_false(bytes_range_within(UINT64_MAX, 2, 10));
}

static void powers_of_two_are_known(void **state)
{
    (void)state;
    assert_true(is_power_of_two(1));
    assert_true(is_power_of_two(UINT64_C(1) << 63));
    assert_false(is_power_of_two(0));
    assert_false(is_power_of_two(3));
    assert_false(is_power_of_two(UINT64_MAX));
}

static void rounding_goes_to_the_alignment(void **state)
{
    (void)state;
    assert_int_equal(round_down(4095, 512), 3584);
    assert_int_equal(round_down(4096, 512), 4096);
    assert_int_equal(round_up(4095, 512), 4096);
    assert_int_equal(round_up(4096, 512), 4096);
    assert_int_equal(round_up(0, 512), 0);
    assert_true(round_up(UINT64_MAX - 511, 512) == UINT64_MAX - 511);
}

static void division_rounds_up_without_overflow(void **state)
{
    (void)state;
    assert_int_equal(divide_round_up(0, 3), 0);
    assert_int_equal(divide_round_up(9, 3), 3);
    assert_int_equal(divide_round_up(10, 3), 4);
    assert_true(divide_round_up(UINT64_MAX, 2) == UINT64_C(1) << 63);
}

static void the_smaller_and_the_larger(void **state)
{
    (void)state;
    assert_int_equal(min_u64(1, 2), 1);
    assert_int_equal(min_u64(2, 1), 1);
    assert_int_equal(max_u64(1, 2), 2);
    assert_int_equal(max_u64(2, 1), 2);
    assert_true(TIB == 1024 * GIB && GIB == 1024 * MIB && MIB == 1024 * KIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stores_put_the_bytes_in_order),
        cmocka_unit_test(loads_read_what_stores_wrote),
        cmocka_unit_test(a_range_is_within_or_not_whatever_the_numbers),
        cmocka_unit_test(powers_of_two_are_known),
        cmocka_unit_test(rounding_goes_to_the_alignment),
        cmocka_unit_test(division_rounds_up_without_overflow),
        cmocka_unit_test(the_smaller_and_the_larger),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
