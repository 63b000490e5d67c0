/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions over three disks: doubt, questions, acknowledgements, damage, and
 * daemons side by side.
 */
#include "log_world.h"

#include <errno.h>
#include <string.h>

static char *first_file(struct log_world *world, const char *suffix);

/* --- In doubt ---------------------------------------------------------------------------- */

static struct storage_ops broken_ops;
static const struct storage_ops *whole_ops;
static unsigned int renames_until_broken;

/* Each part of the log gets its name by a rename: from the third on (the run's
 * file, part 0) they fail. */
static int co_rename_breaks(struct storage *storage,
                            const char *from,
                            const char *to)
{
    if (renames_until_broken == 0) {
        return -EIO;
    }
    renames_until_broken--;
    return whole_ops->co_rename(storage, from, to);
}

static void break_renames(struct log_world *world)
{
    struct storage *storage = storage_memory_storage(world->memory);

    whole_ops = storage->ops;
    broken_ops = *whole_ops;
    broken_ops.co_rename = co_rename_breaks;
    renames_until_broken = 2;
    storage->ops = &broken_ops;
}

static void mend_renames(struct log_world *world)
{
    storage_memory_storage(world->memory)->ops = whole_ops;
}

static void test_in_doubt_nothing_is_told_until_abort_is_durable(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    fail_commit(world);
    break_renames(world);
    world->on_doubt = mend_renames;
    log_world_run(world, co_attempt);
    assert_int_equal(world->doubts, 1);
    assert_int_equal(world->told, TOLD_FAILED);
    log_world_run(world, co_recover_and_acknowledge);
    assert_alike(world);
    log_world_free(world);
}

/* Another transaction's record fails, so that COMMIT begins a part of its own; which
 * gets its name, though nobody is told so. */
static void co_spoil_the_part(struct log_world *world)
{
    struct group_commit *other = group_commit_new(world->coordinator, "other");

    storage_memory_fail_sync(world->memory, ".log", 1);
    assert_true(co_group_commit_begin(other, NULL) < 0);
    co_group_commit_end(&other);
    storage_memory_fail_rename_late(world->memory, ".log");
}

static void test_a_commit_that_has_its_name_after_all_is_aborted(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    world->co_before_decision = co_spoil_the_part;
    world->lagging = 7; /* they ask the log, in the next life */
    log_world_run(world, co_attempt);
    assert_int_equal(world->told, TOLD_FAILED);
    log_world_run(world, co_recover_and_acknowledge);
    assert_alike(world);
    log_world_free(world);
}

static void test_letting_go_in_doubt_tells_nothing_and_ends_alike(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 100; seed++) {
        struct log_world *world = log_world_new(seed);

        fail_commit(world);
        break_renames(world);
        log_world_run(world, co_attempt);
        mend_renames(world);
        assert_int_equal(world->doubts, 1);
        assert_int_equal(world->told, TOLD_NOTHING);
        storage_memory_crash_at(world->memory, 1);
        storage_memory_reboot(world->memory, seed % 2 == 0
                                                 ? STORAGE_CRASH_KILL
                                                 : STORAGE_CRASH_POWER);
        storage_memory_crash_at(world->memory, 0);
        log_world_run(world, co_recover_and_acknowledge);
        assert_alike(world);
        log_world_free(world);
    }
}

static void test_a_full_disk_fails_begin_and_not_commit(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    storage_memory_set_space(world->memory, 0);
    log_world_run(world, co_attempt);
    assert_int_equal(world->told, TOLD_FAILED);
    assert_int_equal(world->doubts, 0);
    storage_memory_set_space(world->memory, UINT64_MAX);
    assert_alike(world);
    log_world_free(world);
}

/* --- Who asks ------------------------------------------------------------------------------ */

static void co_query_after_restart(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    g_autofree char *outcome = co_outcome_text(coordinator);

    assert_string_equal(outcome, "committed");
    co_coordinator_close(coordinator);
}

static void test_a_client_learns_the_outcome_after_a_restart(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    log_world_run(world, co_attempt);
    log_world_run(world, co_recover);
    log_world_run(world, co_query_after_restart);
    assert_int_equal(count_state_files(world, ".sealed"), 1);
    log_world_run(world, co_recover_and_acknowledge);
    assert_int_equal(count_state_files(world, ".sealed"), 0);
    assert_int_equal(count_state_files(world, "commit.retired"), 1);
    log_world_free(world);
}

static void co_nothing_is_made(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    g_autofree char *outcome = co_outcome_text(coordinator);
    struct journal_id disk = log_world_disk_id(0);

    assert_string_equal(outcome, "");
    co_coordinator_settled(coordinator, &disk, NULL);
    co_coordinator_close(coordinator);
}

static void test_asking_makes_no_directory(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    log_world_run(world, co_nothing_is_made);
    assert_int_equal(count_state_files(world, ""), 0);
    log_world_free(world);
}

static void co_forget(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    struct journal_id disk = log_world_disk_id(2);

    assert_int_equal(
        co_coordinator_acknowledge(coordinator, NULL, NULL, &disk, NULL), 0);
    assert_int_equal(
        co_coordinator_acknowledge(coordinator, "none", NULL, NULL, NULL),
        -ENOENT);
    co_coordinator_close(coordinator);
}

/* Kills a daemon after COMMIT and before any disk is settled. */
static void kill_after_commit(struct log_world *world)
{
    for (uint64_t point = 1; world->told != TOLD_COMMITTED; point++) {
        storage_memory_sync_all(world->memory);
        assert_true(
            log_world_run_until(world, co_attempt, point, STORAGE_CRASH_KILL));
        if (world->told != TOLD_COMMITTED) {
            log_world_run(world, co_recover_and_acknowledge);
        }
    }
}

static void test_a_disk_that_is_gone_can_be_forgotten(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    world->client_id = "";
    kill_after_commit(world);
    world->absent = 1U << 2;
    log_world_run(world, co_recover);
    assert_int_equal(count_state_files(world, ".sealed"), 1);
    log_world_run(world, co_forget);
    assert_int_equal(count_state_files(world, ".sealed"), 0);
    log_world_free(world);
}

static bool is_prepared(struct log_world *world, int disk)
{
    return log_world_disk(world, disk).is_prepared;
}

/* Disk 2 goes away prepared by a transaction that aborts. */
static void test_a_label_used_again_revives_no_old_pair(void **state)
{
    struct log_world *world = NULL;
    struct disk_state after;

    (void)state;
    for (uint64_t point = 1; world == NULL || !is_prepared(world, 2); point++) {
        log_world_free(world);
        world = log_world_new(point);
        assert_true(
            log_world_run_until(world, co_attempt, point, STORAGE_CRASH_KILL));
    }
    assert_int_equal(world->told, TOLD_NOTHING);
    world->absent = 1U << 2;
    log_world_run(world, co_recover);
    log_world_run(world, co_attempt);
    assert_int_equal(world->told, TOLD_COMMITTED);
    log_world_run(world, co_recover_and_acknowledge);
    after = log_world_disk(world, 2);
    assert_true(journal_id_is_none(&after.base));
    log_world_free(world);
}

static void co_expect_nothing(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    g_autofree char *outcome = co_outcome_text(coordinator);

    assert_string_equal(outcome, "");
    co_coordinator_close(coordinator);
}

/* A power cut brings back what was unlinked of a log, without its COMMIT. */
static void test_a_retired_run_is_not_sealed_again(void **state)
{
    struct log_world *world = log_world_new(1);
    g_autofree char *part = NULL;

    (void)state;
    kill_after_commit(world);
    part = first_file(world, ".log");
    storage_memory_copy(world->memory, part, "/img/kept", true);
    log_world_run(world, co_recover_and_acknowledge);
    assert_int_equal(count_state_files(world, ".sealed"), 0);
    storage_memory_copy(world->memory, "/img/kept", part, true);
    log_world_run(world, co_expect_nothing);
    assert_int_equal(count_state_files(world, ".log"), 0);
    log_world_free(world);
}

static void co_expect_no_answer(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    g_autoptr(GError) err = NULL;
    struct json_value *list = NULL;

    assert_true(co_coordinator_query(coordinator, LABEL, NULL, &list, &err) <
                0);
    assert_non_null(strstr(err->message, "commit.retired"));
    co_coordinator_close(coordinator);
}

/* What is not known to be retired must not be sealed for that. */
static void test_nothing_is_sealed_before_the_list_is_read(void **state)
{
    struct log_world *world = log_world_new(1);
    g_autofree char *part = NULL;

    (void)state;
    kill_after_commit(world);
    part = first_file(world, ".log");
    storage_memory_copy(world->memory, part, "/img/kept", true);
    log_world_run(world, co_recover_and_acknowledge);
    storage_memory_copy(world->memory, "/img/kept", part, true);
    storage_memory_fail_reads(world->memory, "commit.retired", -EIO);
    log_world_run(world, co_expect_no_answer);
    assert_int_equal(count_state_files(world, ".sealed"), 0);
    assert_int_equal(count_state_files(world, ".log"), 1);
    storage_memory_fail_reads(world->memory, NULL, 0);
    log_world_run(world, co_expect_nothing);
    log_world_free(world);
}

static void co_abort_and_commit(struct log_world *world)
{
    struct disk_state lagging;
    enum outcome outcome;

    world->coordinator = log_world_coordinator(world);
    world->aborts = true;
    world->lagging = 1U << 2;
    co_transact(world);
    assert_int_equal(world->told, TOLD_FAILED);
    world->aborts = false;
    world->absent = 1U << 2;
    co_transact(world);
    assert_int_equal(world->told, TOLD_COMMITTED);
    lagging = log_world_disk(world, 2);
    assert_true(lagging.is_prepared);
    assert_int_equal(co_coordinator_look_up(world->coordinator, NULL,
                                            &lagging.txid, &outcome, NULL,
                                            NULL),
                     0);
    assert_int_equal(outcome, OUTCOME_ABORTED);
    co_coordinator_close(world->coordinator);
}

static void test_a_label_used_again_in_one_life_is_another(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    log_world_run(world, co_abort_and_commit);
    log_world_free(world);
}

#define MANY 300

static void co_commit_many_without_space(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    struct group_commit *groups[MANY];
    const struct group_member member = {
        .ops = NULL, /* it is not prepared here */
        .disk = log_world_disk_id(0),
        .node = "a-node-with-a-name-of-some-length",
        .job = "job",
        .bitmap = "b0",
    };

    for (int i = 0; i < MANY; i++) {
        groups[i] = group_commit_new(coordinator, "");
        for (int j = 0; j < 4; j++) {
            group_commit_add(groups[i], &member);
        }
        assert_int_equal(co_group_commit_begin(groups[i], NULL), 0);
    }
    storage_memory_set_space(world->memory, 1);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(co_group_commit_decide(groups[i], NULL, NULL, NULL),
                         0);
        co_group_commit_end(&groups[i]);
    }
    storage_memory_set_space(world->memory, UINT64_MAX);
    co_coordinator_close(coordinator);
}

static void test_what_began_needs_no_space_to_commit(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    log_world_run(world, co_commit_many_without_space);
    log_world_free(world);
}

static void co_expect_unknown(struct log_world *world)
{
    struct coordinator *coordinator = log_world_coordinator(world);
    struct disk_state disk = log_world_disk(world, 1);
    g_autofree char *reason = NULL;
    enum outcome outcome;

    assert_true(disk.is_prepared);
    assert_int_equal(co_coordinator_look_up(coordinator, &disk.segment,
                                            &disk.txid, &outcome, &reason,
                                            NULL),
                     0);
    assert_int_equal(outcome, OUTCOME_UNKNOWN);
    assert_non_null(reason);
    co_coordinator_close(coordinator);
}

static void test_a_lost_log_is_unknown(void **state)
{
    struct log_world *world = log_world_new(1);
    g_autofree char *part = NULL;
    g_autofree char *run = NULL;

    (void)state;
    kill_after_commit(world);
    part = first_file(world, ".log");
    run = first_file(world, ".run");
    storage_memory_remove(world->memory, part);
    storage_memory_remove(world->memory, run);
    log_world_run(world, co_expect_unknown);
    log_world_free(world);
}

static void test_damage_before_the_tail_is_unknown(void **state)
{
    struct log_world *world = log_world_new(1);
    g_autofree char *part = NULL;

    (void)state;
    kill_after_commit(world);
    part = first_file(world, ".log");
    storage_memory_poke(world->memory, part, COMMIT_HEADER_BYTES + 40, "x", 1);
    log_world_run(world, co_expect_unknown);
    log_world_run(world, co_expect_unknown); /* sealed as such */
    log_world_free(world);
}

static void test_process_mode_is_good_for_one_boot(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    world->is_process = true;
    for (uint64_t point = 1; world->told != TOLD_COMMITTED; point++) {
        storage_memory_crash_at(world->memory, point);
        log_world_run(world, co_attempt);
        assert_true(storage_memory_is_dead(world->memory));
        storage_memory_sync_all(world->memory);
        storage_memory_reboot(world->memory, world->told == TOLD_COMMITTED
                                                 ? STORAGE_CRASH_POWER
                                                 : STORAGE_CRASH_KILL);
        storage_memory_crash_at(world->memory, 0);
        if (world->told != TOLD_COMMITTED) {
            log_world_run(world, co_recover_and_acknowledge);
        }
    }
    log_world_run(world, co_expect_unknown);
    log_world_free(world);
}

/* --- Daemons side by side ------------------------------------------------------------------ */

static void co_recover_one_by_one(void *opaque)
{
    struct log_world *world = opaque;

    co_recover(world);
}

static void co_two_daemons(struct log_world *world)
{
    co_spawn(world->loop, co_recover_one_by_one, world);
    co_recover(world);
}

static void test_daemons_that_race_to_seal_agree(void **state)
{
    (void)state;
    for (uint64_t point = 1; point <= 60; point++) {
        struct log_world *world = log_world_new(point);

        (void)log_world_run_until(world, co_attempt, point, STORAGE_CRASH_KILL);
        (void)log_world_run_until(world, co_two_daemons, 5 + point % 20,
                                  STORAGE_CRASH_POWER);
        log_world_run(world, co_two_daemons);
        log_world_run(world, co_recover_and_acknowledge);
        assert_alike(world);
        log_world_free(world);
    }
}

static void co_ask_while_it_lives(struct log_world *world)
{
    struct coordinator *other = log_world_coordinator(world);
    struct disk_state disk = log_world_disk(world, 1);
    enum outcome outcome;

    assert_int_equal(co_coordinator_look_up(other, &disk.segment, &disk.txid,
                                            &outcome, NULL, NULL),
                     0);
    assert_int_equal(outcome, OUTCOME_PENDING);
    co_coordinator_close(other);
}

static void ask_in_doubt(struct log_world *world)
{
    co_ask_while_it_lives(world);
    mend_renames(world);
}

/* All disks have settled before the group's last word: its transaction is over,
 * and still there. */
static void test_a_group_may_end_after_all_disks_have_settled(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    world->client_id = ""; /* nor will a client ask */
    log_world_run(world, co_attempt);
    assert_int_equal(world->told, TOLD_COMMITTED);
    assert_alike(world);
    log_world_free(world);
}

static void test_a_living_run_is_asked_later(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    fail_commit(world);
    break_renames(world);
    world->on_doubt = ask_in_doubt;
    log_world_run(world, co_attempt);
    assert_int_equal(world->told, TOLD_FAILED);
    log_world_free(world);
}

struct search {
    struct log_world *world;
    const char *suffix;
    char *found;
};

static void co_search(void *opaque)
{
    struct search *search = opaque;
    g_autoptr(GPtrArray) names = NULL;

    assert_int_equal(
        co_storage_list(storage_memory_storage(search->world->memory),
                        STATE_PATH, &names),
        0);
    for (guint i = 0; i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);

        if (search->found == NULL && g_str_has_suffix(name, search->suffix)) {
            search->found = g_strdup_printf("%s/%s", STATE_PATH, name);
        }
    }
}

static char *first_file(struct log_world *world, const char *suffix)
{
    struct search search = { .world = world, .suffix = suffix };

    co_spawn(world->loop, co_search, &search);
    while (scheduler_turn(&world->scheduler)) {
    }
    assert_non_null(search.found);
    return search.found;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_doubt_nothing_is_told_until_abort_is_durable),
        cmocka_unit_test(test_a_commit_that_has_its_name_after_all_is_aborted),
        cmocka_unit_test(test_letting_go_in_doubt_tells_nothing_and_ends_alike),
        cmocka_unit_test(test_a_full_disk_fails_begin_and_not_commit),
        cmocka_unit_test(test_a_client_learns_the_outcome_after_a_restart),
        cmocka_unit_test(test_asking_makes_no_directory),
        cmocka_unit_test(test_a_disk_that_is_gone_can_be_forgotten),
        cmocka_unit_test(test_a_retired_run_is_not_sealed_again),
        cmocka_unit_test(test_nothing_is_sealed_before_the_list_is_read),
        cmocka_unit_test(test_a_label_used_again_revives_no_old_pair),
        cmocka_unit_test(test_a_label_used_again_in_one_life_is_another),
        cmocka_unit_test(test_what_began_needs_no_space_to_commit),
        cmocka_unit_test(test_a_lost_log_is_unknown),
        cmocka_unit_test(test_damage_before_the_tail_is_unknown),
        cmocka_unit_test(test_process_mode_is_good_for_one_boot),
        cmocka_unit_test(test_daemons_that_race_to_seal_agree),
        cmocka_unit_test(test_a_living_run_is_asked_later),
        cmocka_unit_test(test_a_group_may_end_after_all_disks_have_settled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
