/* SPDX-License-Identifier: BSD-3-Clause */
/* L2 entries: what the format says they mean, and what it forbids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "drivers/qcow2/entry.h"

static bool load(uint64_t descriptor,
                 unsigned int cluster_bits,
                 struct qcow2_entry *ret)
{
    uint8_t bytes[8];

    store_be64(bytes, descriptor);
    return qcow2_entry_load(bytes, cluster_bits, false, ret);
}

static bool load_extended(uint64_t descriptor,
                          uint64_t subclusters,
                          struct qcow2_entry *ret)
{
    uint8_t bytes[16];

    store_be64(bytes, descriptor);
    store_be64(bytes + 8, subclusters);
    return qcow2_entry_load(bytes, 16, true, ret);
}

static void a_standard_entry_is_offset_and_flags(void **state)
{
    (void)state;
    struct qcow2_entry entry;

    assert_true(load(UINT64_C(0x8000000000050000), 16, &entry));
    assert_true(entry.copied);
    assert_false(entry.compressed);
    assert_false(entry.zero);
    assert_int_equal(entry.host_offset, 0x50000);
    assert_true(load(UINT64_C(0x0000000000050001), 16, &entry));
    assert_false(entry.copied);
    assert_true(entry.zero);
    assert_int_equal(entry.host_offset, 0x50000);
    assert_true(load(0, 16, &entry));
    assert_int_equal(entry.host_offset, 0);
}

static void each_reserved_bit_makes_it_invalid(void **state)
{
    (void)state;
    struct qcow2_entry entry;

    for (unsigned int bit = 1; bit <= 8; bit++) {
        assert_false(load(UINT64_C(0x50000) | UINT64_C(1) << bit, 16, &entry));
    }
    for (unsigned int bit = 56; bit <= 61; bit++) {
        assert_false(load(UINT64_C(0x50000) | UINT64_C(1) << bit, 16, &entry));
    }
}

static void a_compressed_entry_counts_whole_sectors(void **state)
{
    (void)state;
    struct qcow2_entry entry;

    /* 64 KiB: offset in bits 0-53, further sectors in bits 54-61. */
    assert_true(
        load(UINT64_C(1) << 62 | UINT64_C(3) << 54 | 0x50010, 16, &entry));
    assert_true(entry.compressed);
    assert_int_equal(entry.host_offset, 0x50010);
    assert_int_equal(entry.compressed_bytes, 4 * 512 - 0x10);
    /* 512 bytes: the offset's field is wider than any offset. */
    assert_true(load(UINT64_C(1) << 62 | UINT64_C(1) << 61 | 0x200, 9, &entry));
    assert_int_equal(entry.compressed_bytes, 1024);
    assert_false(load(UINT64_C(1) << 62 | UINT64_C(1) << 56, 9, &entry));
    /* 2 MiB: offset in bits 0-48. */
    assert_true(load(UINT64_C(1) << 62 | UINT64_C(0x1fff) << 49, 21, &entry));
    assert_int_equal(entry.compressed_bytes, 8192 * 512);
}

static void subclusters_are_allocated_or_zero_not_both(void **state)
{
    (void)state;
    struct qcow2_entry entry;

    assert_true(load_extended(0x50000, UINT64_C(0x8000000000000003), &entry));
    assert_int_equal(entry.subclusters_allocated, 3);
    assert_int_equal(entry.subclusters_zero, UINT32_C(1) << 31);
    assert_false(load_extended(0x50000, UINT64_C(0x0000000100000001), &entry));
    assert_false(load_extended(0x50001, 0, &entry));
}

static void what_is_stored_loads_as_it_was(void **state)
{
    (void)state;
    const struct qcow2_entry entries[] = {
        { .copied = true, .host_offset = UINT64_C(0xfffffffffffe00) },
        { .zero = true },
        { .zero = true, .copied = true, .host_offset = 0x200 },
        { .compressed = true, .host_offset = 0x7ff, .compressed_bytes = 513 },
        { .compressed = true, .host_offset = 0x201, .compressed_bytes = 511 },
    };

    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        for (unsigned int bits = 9; bits <= 21; bits++) {
            struct qcow2_entry entry;
            uint8_t bytes[8];

            qcow2_entry_store(bytes, bits, false, &entries[i]);
            assert_true(qcow2_entry_load(bytes, bits, false, &entry));
            assert_memory_equal(&entry, &entries[i], sizeof(entry));
        }
    }
}

static void stored_subclusters_load_as_they_were(void **state)
{
    (void)state;
    const struct qcow2_entry stored = { .copied = true,
                                        .host_offset = 0x70000,
                                        .subclusters_allocated = 0xf0,
                                        .subclusters_zero = 0x0f };
    struct qcow2_entry entry;
    uint8_t bytes[16];

    qcow2_entry_store(bytes, 16, true, &stored);
    assert_true(qcow2_entry_load(bytes, 16, true, &entry));
    assert_memory_equal(&entry, &stored, sizeof(entry));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_standard_entry_is_offset_and_flags),
        cmocka_unit_test(each_reserved_bit_makes_it_invalid),
        cmocka_unit_test(a_compressed_entry_counts_whole_sectors),
        cmocka_unit_test(subclusters_are_allocated_or_zero_not_both),
        cmocka_unit_test(what_is_stored_loads_as_it_was),
        cmocka_unit_test(stored_subclusters_load_as_they_were),
    };

    return cmocka_run_group_tests_name("drivers/qcow2/entry", tests, NULL,
                                       NULL);
}
