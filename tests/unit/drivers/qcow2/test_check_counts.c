/* SPDX-License-Identifier: BSD-3-Clause */
/* Numbers for clusters: large and small, near and far, within a bound. */
#include "block_test.h"

#include <errno.h>

#include "drivers/qcow2/check_counts.h"

#define FAR (UINT64_C(1) << 55)

/* What was added is there, and nothing beside it. */
static void counts_add_up(void **state)
{
    g_autoptr(check_counts) counts = check_counts_new(1 << 20);

    (void)state;
    assert_int_equal(check_counts_get(counts, 7), 0);
    assert_int_equal(check_counts_add(counts, 7, 1), 0);
    assert_int_equal(check_counts_add(counts, 7, 2), 0);
    assert_int_equal(check_counts_add(counts, FAR, 1), 0);
    assert_int_equal(check_counts_get(counts, 7), 3);
    assert_int_equal(check_counts_get(counts, 6), 0);
    assert_int_equal(check_counts_get(counts, 8), 0);
    assert_int_equal(check_counts_get(counts, FAR), 1);
}

/* Also beyond 16 bits, and up to the end of 64. */
static void large_counts_stay_exact(void **state)
{
    g_autoptr(check_counts) counts = check_counts_new(1 << 20);

    (void)state;
    assert_int_equal(check_counts_add(counts, 7, 65534), 0);
    assert_int_equal(check_counts_get(counts, 7), 65534);
    for (uint64_t expected = 65535; expected < 65540; expected++) {
        assert_int_equal(check_counts_add(counts, 7, 1), 0);
        assert_true(check_counts_get(counts, 7) == expected);
    }
    assert_int_equal(check_counts_add(counts, 7, UINT64_MAX), 0);
    assert_true(check_counts_get(counts, 7) == UINT64_MAX);
    assert_int_equal(check_counts_get(counts, 8), 0);
}

/* The walk meets each once, in order. */
static void the_next_is_found(void **state)
{
    static const uint64_t clusters[] = { 0, 1, 255, 256, 5000, FAR };
    g_autoptr(check_counts) counts = check_counts_new(1 << 20);
    uint64_t found = check_counts_next(counts, 0);

    (void)state;
    assert_true(found == CHECK_COUNTS_NONE);
    for (size_t i = G_N_ELEMENTS(clusters); i > 0; i--) {
        assert_int_equal(check_counts_add(counts, clusters[i - 1], 1), 0);
    }
    found = check_counts_next(counts, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(clusters); i++) {
        assert_true(found == clusters[i]);
        found = check_counts_next(counts, found + 1);
    }
    assert_true(found == CHECK_COUNTS_NONE);
}

/* Too much is refused and changes nothing; what is there can grow on. */
static void memory_is_bounded(void **state)
{
    g_autoptr(check_counts) counts = check_counts_new(4096);
    uint64_t cluster = 0;
    int ret = 0;

    (void)state;
    while (ret == 0) {
        cluster += 1000000;
        ret = check_counts_add(counts, cluster, 1);
        assert_true(cluster < 10000000);
    }
    assert_int_equal(ret, -ENOMEM);
    assert_int_equal(check_counts_get(counts, cluster), 0);
    assert_int_equal(check_counts_add(counts, 1000001, 5), 0);
    assert_int_equal(check_counts_get(counts, 1000001), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_add_up),
        cmocka_unit_test(large_counts_stay_exact),
        cmocka_unit_test(the_next_is_found),
        cmocka_unit_test(memory_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
