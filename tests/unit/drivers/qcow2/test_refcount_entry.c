/* SPDX-License-Identifier: BSD-3-Clause */
/* Refcounts of any width: what is put is taken, and its neighbours stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "drivers/qcow2/refcount_entry.h"

#define COUNTS 16

static uint64_t count_max(unsigned int order)
{
    return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1U << order)) - 1;
}

static void each_width_keeps_what_is_put(void **state)
{
    (void)state;
    for (unsigned int order = 0; order <= 6; order++) {
        uint64_t max = count_max(order);
        uint8_t block[COUNTS * 8];

        for (uint64_t i = 0; i < COUNTS; i++) {
            memset(block, 0xa5, sizeof(block));
            for (uint64_t k = 0; k < COUNTS; k++) {
                qcow2_refcount_store(block, order, k, k & max);
            }
            qcow2_refcount_store(block, order, i, max);
            for (uint64_t k = 0; k < COUNTS; k++) {
                assert_int_equal(qcow2_refcount_load(block, order, k),
                                 k == i ? max : k & max);
            }
        }
    }
}

static void they_lie_where_the_format_has_them(void **state)
{
    static const uint8_t block[8] = { 0x02, 0x00, 0x01, 0x00, 0, 0, 0, 0x40 };

    (void)state;
    /* Narrow ones from the lowest bit up, wide ones big-endian. */
    assert_int_equal(qcow2_refcount_load(block, 0, 1), 1);
    assert_int_equal(qcow2_refcount_load(block, 1, 0), 2);
    assert_int_equal(qcow2_refcount_load(block, 2, 15), 4);
    assert_int_equal(qcow2_refcount_load(block, 3, 2), 1);
    assert_int_equal(qcow2_refcount_load(block, 4, 1), 0x100);
    assert_int_equal(qcow2_refcount_load(block, 5, 0), 0x02000100);
    assert_int_equal(qcow2_refcount_load(block, 6, 0),
                     UINT64_C(0x0200010000000040));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_width_keeps_what_is_put),
        cmocka_unit_test(they_lie_where_the_format_has_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
