/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trackers, at every crash point of short lives: whatever dies where, what is
 * recovered holds all that must be dirty, by a comparison of bytes
 * (tests/sim/journal/oracle.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "journal/disk_world.h"

/* Three lives each: one that makes, one that dies at the point, one that looks. */
static uint64_t die_everywhere(struct world_options options, uint64_t points)
{
    uint64_t lived = 0;

    for (uint64_t point = 1; point <= points; point++) {
        struct world_result result;

        options.crash_point = point;
        options.lives = 4;
        disk_world_run(&options, &result);
        if (result.problem != NULL) {
            fail_msg("crash point %" G_GUINT64_FORMAT ": %s", point,
                     result.problem);
        }
        lived += result.counts[WORLD_LIVES];
    }
    return lived;
}

static void test_no_crash_point_loses_a_bit_to_a_kill(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        const struct world_options options = {
            .seed = seed,
            .durability = TRACKER_POWER,
            .steps = 12,
        };

        assert_true(die_everywhere(options, 120) > 0);
    }
}

static void test_no_crash_point_loses_a_bit_to_a_power_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 3; seed <= 5; seed++) {
        const struct world_options options = {
            .seed = seed,
            .power_cuts = true,
            .durability = TRACKER_POWER,
            .steps = 12,
        };

        assert_true(die_everywhere(options, 120) > 0);
    }
}

static void test_process_mode_keeps_all_over_a_kill(void **state)
{
    const struct world_options options = {
        .seed = 6,
        .durability = TRACKER_PROCESS,
        .steps = 12,
    };

    (void)state;
    assert_true(die_everywhere(options, 80) > 0);
}

static void test_process_mode_says_what_a_power_cut_took(void **state)
{
    const struct world_options options = {
        .seed = 7,
        .power_cuts = true,
        .durability = TRACKER_PROCESS,
        .steps = 12,
    };

    (void)state;
    assert_true(die_everywhere(options, 80) > 0);
}

static void test_failing_syncs_make_no_bitmap_lie(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        const struct world_options options = {
            .seed = seed,
            .lives = 6,
            .power_cuts = true,
            .faults = true,
            .durability = TRACKER_POWER,
            .steps = 20,
        };
        struct world_result result;

        disk_world_run(&options, &result);
        if (result.problem != NULL) {
            fail_msg("%s", result.problem);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_crash_point_loses_a_bit_to_a_kill),
        cmocka_unit_test(test_no_crash_point_loses_a_bit_to_a_power_cut),
        cmocka_unit_test(test_process_mode_keeps_all_over_a_kill),
        cmocka_unit_test(test_process_mode_says_what_a_power_cut_took),
        cmocka_unit_test(test_failing_syncs_make_no_bitmap_lie),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
