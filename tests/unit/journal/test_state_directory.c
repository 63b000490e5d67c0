/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the state directory is, and how files come into being there. */
#include "log_world.h"

#include <errno.h>
#include <string.h>

#include "journal/state_directory.h"

static void assert_place(const struct state_directory_places *places,
                         const char *expected)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = state_directory_choose(places, &err);

    if (expected == NULL) {
        assert_null(path);
        assert_non_null(err);
    } else {
        assert_string_equal(path, expected);
    }
}

static void test_the_place_is_the_first_that_is_known(void **state)
{
    struct state_directory_places places = {
        .option = "here",
        .state_directory = "/run/a:/run/b",
        .xdg_state_home = "/xdg",
        .home = "/home/me",
        .is_root = true,
    };

    (void)state;
    assert_place(&places, "here");
    places.option = NULL;
    assert_place(&places, "/run/a");
    places.state_directory = "";
    assert_place(&places, "/var/lib/cohort");
    places.is_root = false;
    assert_place(&places, "/xdg/cohort");
    places.xdg_state_home = NULL;
    assert_place(&places, "/home/me/.local/state/cohort");
    places.home = "relative";
    assert_place(&places, NULL);
    places.home = NULL;
    assert_place(&places, NULL);
}

static void co_open_volatile(struct log_world *world)
{
    g_autoptr(state_directory) directory = NULL;
    g_autoptr(GError) err = NULL;
    struct storage *storage = storage_memory_storage(world->memory);

    storage_memory_set_volatile(world->memory, true);
    assert_true(co_state_directory_open(storage, "/a/b/state", false,
                                        &directory, &err) < 0);
    assert_non_null(strstr(err->message, "--state-dir"));
    assert_int_equal(
        co_state_directory_open(storage, "/a/b/state", true, &directory, NULL),
        0);
}

static void test_memory_is_refused_unless_for_the_process(void **state)
{
    struct log_world *world = log_world_new(1);

    (void)state;
    log_world_run(world, co_open_volatile);
    log_world_free(world);
}

static void co_put_twice(struct log_world *world)
{
    g_autoptr(state_directory) directory = NULL;
    g_autoptr(GByteArray) content = g_byte_array_new();

    if (co_state_directory_open(storage_memory_storage(world->memory),
                                STATE_PATH, false, &directory, NULL) < 0) {
        return;
    }
    g_byte_array_append(content, (const guint8 *)"old", 3);
    if (co_state_directory_put(directory, "x", content, 0, NULL, NULL, NULL) <
        0) {
        return;
    }
    world->told = TOLD_FAILED; /* the old one is there for certain */
    memcpy(content->data, "new", 3);
    if (co_state_directory_put(directory, "x", content, 0, NULL, NULL, NULL) ==
        0) {
        world->told = TOLD_COMMITTED;
    }
}

static void test_a_file_is_the_old_or_the_new_one_whole(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        bool died = true;

        for (uint64_t point = 1; died; point++) {
            struct log_world *world = log_world_new(seed);
            const uint8_t *data;
            uint64_t bytes;

            died = log_world_run_until(world, co_put_twice, point,
                                       STORAGE_CRASH_POWER);
            data = storage_memory_peek(world->memory, STATE_PATH "/x", &bytes);
            assert_true(data != NULL || world->told == TOLD_NOTHING);
            if (data != NULL) {
                assert_int_equal(bytes, 3);
                assert_true(memcmp(data, "new", 3) == 0 ||
                            (memcmp(data, "old", 3) == 0 &&
                             world->told != TOLD_COMMITTED));
            }
            log_world_free(world);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_place_is_the_first_that_is_known),
        cmocka_unit_test(test_memory_is_refused_unless_for_the_process),
        cmocka_unit_test(test_a_file_is_the_old_or_the_new_one_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
