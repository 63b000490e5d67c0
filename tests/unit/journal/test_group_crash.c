/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions over three disks, with a crash at every operation of the storage,
 * and another at every one of the recovery.
 */
#include "log_world.h"

#define POWER_SEEDS 6

/* --- Crashes --------------------------------------------------------------------------- */

typedef void (*world_setup)(struct log_world *world);

/* A life that dies at `point`, a recovery that dies at `again` (0: does not), one
 * that does not. Returns false if the first did not get as far as that. */
static bool crash_twice(world_setup setup,
                        uint64_t seed,
                        uint64_t point,
                        enum storage_crash crash,
                        uint64_t again,
                        enum storage_crash crash_again,
                        bool *ret_died_again)
{
    struct log_world *world = log_world_new(seed);
    unsigned int absent;
    bool died;

    setup(world);
    absent = world->absent;
    world->absent = 0; /* it goes only then */
    died = log_world_run_until(world, co_attempt, point, crash);
    world->absent = absent;
    storage_memory_fail_writes(world->memory, NULL, 0);
    storage_memory_fail_sync(world->memory, NULL, 0);
    *ret_died_again = again != 0 && log_world_run_until(world, co_recover,
                                                        again, crash_again);
    log_world_run(world, co_recover);
    world->absent = 0;
    log_world_run(world, co_recover_and_acknowledge);
    assert_alike(world);
    /* Nothing is left behind. */
    assert_int_equal(count_state_files(world, ".log"), 0);
    assert_int_equal(count_state_files(world, ".run"), 0);
    assert_int_equal(count_state_files(world, ".sealed"), 0);
    log_world_free(world);
    return died;
}

static void crash_everywhere(world_setup setup)
{
    bool again;
    uint64_t points = 1;

    for (uint64_t point = 1;
         crash_twice(setup, point, point, STORAGE_CRASH_KILL, 0, 0, &again);
         point++) {
        points = point;
        for (uint64_t seed = 1; seed <= POWER_SEEDS; seed++) {
            (void)crash_twice(setup, seed, point, STORAGE_CRASH_POWER, 0, 0,
                              &again);
        }
    }
    assert_in_range(points, 10, 1000);
    /* Kill, then a power cut at any point of the recovery. */
    for (uint64_t point = 1; point <= points; point++) {
        again = true;
        for (uint64_t second = 1; again; second++) {
            (void)crash_twice(setup, point * 1000 + second, point,
                              second % 2 == 0 ? STORAGE_CRASH_KILL
                                              : STORAGE_CRASH_POWER,
                              second, STORAGE_CRASH_POWER, &again);
        }
    }
}

static void setup_plain(struct log_world *world)
{
    (void)world;
}

static void test_a_crash_anywhere_leaves_all_disks_alike(void **state)
{
    (void)state;
    crash_everywhere(setup_plain);
}

static void setup_failing_prepare(struct log_world *world)
{
    world->fail_prepare = 2;
}

static void test_a_crash_anywhere_in_an_abort_leaves_all_alike(void **state)
{
    (void)state;
    crash_everywhere(setup_failing_prepare);
}

static void setup_absent(struct log_world *world)
{
    world->absent = 1U << 2;
}

static void test_an_absent_disk_learns_the_outcome_later(void **state)
{
    (void)state;
    crash_everywhere(setup_absent);
}

static void test_a_failed_sync_of_commit_aborts_all_alike(void **state)
{
    (void)state;
    crash_everywhere(fail_commit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_crash_anywhere_leaves_all_disks_alike),
        cmocka_unit_test(test_a_crash_anywhere_in_an_abort_leaves_all_alike),
        cmocka_unit_test(test_an_absent_disk_learns_the_outcome_later),
        cmocka_unit_test(test_a_failed_sync_of_commit_aborts_all_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
