/* SPDX-License-Identifier: BSD-3-Clause */
/* Repositories: making one, the lock, publishing, what is distrusted. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "repo/durable.h"
#include "repo/names.h"
#include "repo/repository.h"
#include "scratch.h"

static struct repository *open_repository(const struct scratch *scratch)
{
    struct repository *repository = NULL;
    g_autofree char *path = g_build_filename(scratch->path, "repo", NULL);

    assert_int_equal(repository_open_or_create(path, &repository, NULL), 0);
    return repository;
}

/* A partial point with one full disk. */
static struct manifest *add_partial(struct repository *repository,
                                    uint64_t sequence)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    struct manifest *point = manifest_new();
    struct manifest_disk *disk = manifest_add_disk(point, "disk");

    point->point = point_id_new(now, sequence);
    point->directory = g_strconcat(PARTIAL_PREFIX, point->point, NULL);
    point->repository = g_strdup(repository->id);
    point->sequence = sequence;
    point->label = g_strdup("label");
    point->not_before = g_strdup("");
    point->not_after = g_strdup("");
    point->tool = g_strdup("");
    point->daemon = g_strdup("");
    disk->reason = g_strdup("");
    disk->job = g_strdup("");
    disk->hash_root = g_strnfill(HASH_HEX_BYTES, '0');
    assert_int_equal(mkdirat(repository->fd, point->directory, 0700), 0);
    assert_int_equal(
        repository_write_manifest(repository, point, MANIFEST_FILE, NULL), 0);
    return point;
}

static void an_empty_directory_becomes_a_repository(void **state)
{
    g_autoptr(repository_auto) first = open_repository(*state);
    g_autoptr(repository_auto) second = open_repository(*state);

    assert_true(hex_is_legal(first->id, REPOSITORY_ID_DIGITS));
    assert_string_equal(first->id, second->id);
    assert_true(g_str_has_prefix(first->prefix, "cohort-"));
    assert_int_equal(first->points->len, 0);
    assert_null(repository_newest(first));
}

static void other_peoples_directories_are_left_alone(void **state)
{
    struct scratch *scratch = *state;
    struct repository *repository = NULL;

    assert_int_equal(durable_write(scratch->fd, "letter", "dear", 4, NULL), 0);
    assert_int_equal(
        repository_open_or_create(scratch->path, &repository, NULL), -EEXIST);
    assert_int_equal(repository_open(scratch->path, &repository, NULL),
                     -ENOENT);
}

static void the_lock_admits_one_and_names_it(void **state)
{
    g_autoptr(repository_auto) first = open_repository(*state);
    g_autoptr(repository_auto) second = open_repository(*state);
    g_autoptr(GError) err = NULL;
    g_autofree char *pid = g_strdup_printf("process %ld", (long)getpid());

    assert_null(repository_lock_holder(first));
    assert_int_equal(repository_lock(first, NULL), 0);
    assert_int_equal(repository_lock(second, &err), -EBUSY);
    assert_non_null(strstr(err->message, pid));
    g_autofree char *holder = repository_lock_holder(second);
    assert_non_null(strstr(holder, pid));
    g_clear_pointer(&first, repository_close);
    assert_null(repository_lock_holder(second));
    assert_int_equal(repository_lock(second, NULL), 0);
}

static void a_point_is_there_only_once_it_is_published(void **state)
{
    g_autoptr(repository_auto) repository = open_repository(*state);
    struct manifest *point = add_partial(repository, 1);

    assert_int_equal(repository_reload(repository, NULL), 0);
    assert_int_equal(repository->points->len, 0);
    g_autoptr(GPtrArray) partials = repository_partials(repository, NULL);
    assert_int_equal(partials->len, 1);
    assert_string_equal(partials->pdata[0], point->directory);
    assert_int_equal(repository_publish(repository, &point, NULL), 0);
    assert_null(point);
    assert_int_equal(repository_reload(repository, NULL), 0);
    assert_int_equal(repository->points->len, 1);
    assert_non_null(repository_newest_with(repository, "disk"));
    assert_null(repository_newest_with(repository, "other"));
}

static void numbers_are_never_used_twice_at_once(void **state)
{
    g_autoptr(repository_auto) repository = open_repository(*state);
    g_autoptr(manifest_auto) partial = NULL;

    assert_int_equal(repository_next_sequence(repository), 1);
    partial = add_partial(repository, 9999);
    assert_int_equal(repository_next_sequence(repository), 10000);
}

static void a_broken_manifest_is_told_and_hides_no_other(void **state)
{
    g_autoptr(repository_auto) repository = open_repository(*state);
    struct manifest *point = add_partial(repository, 1);
    const char *bad = "20260131T235958Z-0002";

    assert_int_equal(repository_publish(repository, &point, NULL), 0);
    assert_int_equal(mkdirat(repository->fd, bad, 0700), 0);
    assert_int_equal(repository_reload(repository, NULL), 0);
    assert_int_equal(repository->points->len, 1);
    assert_int_equal(repository->broken->len, 1);
    assert_non_null(strstr(repository->broken->pdata[0], bad));
}

static void what_is_distrusted_stays_so(void **state)
{
    g_autoptr(repository_auto) repository = open_repository(*state);

    assert_false(repository_is_distrusted(repository, "a"));
    assert_int_equal(repository_distrust(repository, "a", NULL), 0);
    assert_int_equal(repository_distrust(repository, "b", NULL), 0);
    g_autoptr(repository_auto) again = open_repository(*state);
    assert_true(repository_is_distrusted(again, "a"));
    assert_true(repository_is_distrusted(again, "b"));
    assert_false(repository_is_distrusted(again, "c"));
}

static void with_a_damaged_list_nothing_is_trusted(void **state)
{
    g_autoptr(repository_auto) repository = open_repository(*state);

    assert_int_equal(
        durable_write(repository->fd, "distrusted.json", "{", 1, NULL), 0);
    assert_true(repository_is_distrusted(repository, "a"));
    assert_true(repository_distrust(repository, "a", NULL) < 0);
}

static void a_newer_version_is_refused_by_name(void **state)
{
    g_autoptr(repository_auto) repository = open_repository(*state);
    g_autoptr(GError) err = NULL;
    struct repository *again = NULL;
    const char *text = "{\"format\": \"cohort-repository\", \"version\": 9,"
                       " \"id\": \"0\"}";

    assert_int_equal(durable_write(repository->fd, "repository.json", text,
                                   strlen(text), NULL),
                     0);
    assert_true(repository_open(repository->path, &again, &err) < 0);
    assert_non_null(strstr(err->message, "version 9"));
}

#define IN_SCRATCH(test) \
 cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(an_empty_directory_becomes_a_repository),
        IN_SCRATCH(other_peoples_directories_are_left_alone),
        IN_SCRATCH(the_lock_admits_one_and_names_it),
        IN_SCRATCH(a_point_is_there_only_once_it_is_published),
        IN_SCRATCH(numbers_are_never_used_twice_at_once),
        IN_SCRATCH(a_broken_manifest_is_told_and_hides_no_other),
        IN_SCRATCH(what_is_distrusted_stays_so),
        IN_SCRATCH(with_a_damaged_list_nothing_is_trusted),
        IN_SCRATCH(a_newer_version_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
