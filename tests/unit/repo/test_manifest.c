/* SPDX-License-Identifier: BSD-3-Clause */
/* Manifests: what is written reads back; what is not sound is refused. */
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

#include "repo/manifest.h"

#define POINT "20260131T235958Z-0007"
#define TXID  "0123456789abcdef0123456789abcdef"
#define DISK  "fedcba9876543210fedcba9876543210"
#define ROOT  "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static struct manifest *example(void)
{
    struct manifest *point = manifest_new();
    struct manifest_disk *full = manifest_add_disk(point, "full");
    struct manifest_disk *increment = manifest_add_disk(point, "increment");

    point->point = g_strdup(POINT);
    point->directory = g_strdup(POINT);
    point->repository = g_strdup("id");
    point->sequence = 7;
    point->label = g_strdup("cohort-id-0007-abcd");
    point->txid = g_strdup(TXID);
    point->not_before = g_strdup("a");
    point->not_after = g_strdup("b");
    point->tool = g_strdup("cohort");
    point->daemon = g_strdup("daemon \"x\"");
    full->size = UINT64_C(1) << 40;
    full->reason = g_strdup("first");
    full->job = g_strdup("job");
    full->hash_root = g_strdup(ROOT);
    increment->size = 512;
    increment->incremental = true;
    increment->reason = g_strdup("changes");
    increment->previous = g_strdup("20260130T235958Z-0006");
    increment->bitmap = g_strdup("new");
    increment->previous_bitmap = g_strdup("old");
    increment->job = g_strdup("job2");
    manifest_base_set(&increment->base, TXID, DISK);
    increment->changed_bytes = 65536;
    increment->hash_root = g_strdup(ROOT);
    return point;
}

static void what_is_written_reads_back(void **state)
{
    g_autoptr(manifest_auto) point = example();
    g_autofree char *text = manifest_write(point);
    g_autoptr(GError) err = NULL;
    g_autoptr(manifest_auto) read =
        manifest_parse(text, strlen(text), POINT, &err);

    (void)state;
    assert_non_null(read);
    assert_int_equal(read->sequence, 7);
    assert_string_equal(read->daemon, point->daemon);
    assert_int_equal(read->disks->len, 2);
    const struct manifest_disk *full = manifest_find_disk(read, "full");
    const struct manifest_disk *increment =
        manifest_find_disk(read, "increment");
    assert_true(full->size == UINT64_C(1) << 40);
    assert_null(full->previous);
    assert_null(full->bitmap);
    assert_true(increment->incremental);
    assert_string_equal(increment->previous_bitmap, "old");
    assert_string_equal(read->txid, TXID);
    assert_true(manifest_base_equal(
        &increment->base, &manifest_find_disk(point, "increment")->base));
    assert_false(manifest_base_equal(&full->base, &full->previous_base));
    assert_null(manifest_find_disk(read, "other"));
    g_autofree char *again = manifest_write(read);
    assert_string_equal(again, text);
}

/* The example with one piece of its text exchanged must be refused. */
static void assert_refused(const char *what, const char *instead)
{
    g_autoptr(manifest_auto) point = example();
    g_autofree char *text = manifest_write(point);
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) parts = g_strsplit(text, what, 2);

    assert_int_equal(g_strv_length(parts), 2);
    g_autofree char *changed = g_strconcat(parts[0], instead, parts[1], NULL);
    assert_null(manifest_parse(changed, strlen(changed), POINT, &err));
    assert_non_null(err);
    assert_non_null(strstr(err->message, POINT));
}

static void what_is_unsound_is_refused(void **state)
{
    static const char *const cases[][2] = {
        { "cohort-point", "cohort-repository" },
        { "\"version\": 1", "\"version\": 2" },
        { "\"version\": 1", "\"version\": \"1\"" },
        { "\"point\": \"" POINT, "\"point\": \"20260131T235958Z-0008" },
        { "\"full\"", "\"../full\"" },
        { "\"node\": \"increment\"", "\"node\": \"full\"" },
        { "\"size\": 512", "\"size\": -512" },
        { "\"size\": 512", "\"size\": 9223372036854775807" },
        { "\"size\": 512", "\"size\": 5.5" },
        { "\"kind\": \"incremental\"", "\"kind\": \"full\"" },
        { "\"kind\": \"incremental\"", "\"kind\": 7" },
        { "20260130T235958Z-0006", "../20260130T235958Z-0006" },
        { "\"image\": \"increment.qcow2\"", "\"image\": \"/etc/passwd\"" },
        { "\"hashes\": \"full.hashes\"", "\"hashes\": null" },
        { ROOT, "short" },
        { "\"txid\": \"" TXID, "\"txid\": \"0" },
        { "\"disk\": \"" DISK, "\"disk\": \"..\", \"d\": \"" },
        { "\"disk\": \"" DISK, "\"desk\": \"" DISK },
        { "\"job\": \"job\"", "\"jab\": \"job\"" },
        { "\"sequence\": 7", "\"sequence\": 7, \"sequence\": 8" },
        { "\"disks\": [", "\"disks\": [], \"others\": [" },
        { "}", "" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_refused(cases[i][0], cases[i][1]);
    }
}

static void a_manifest_in_the_wrong_directory_is_refused(void **state)
{
    g_autoptr(manifest_auto) point = example();
    g_autofree char *text = manifest_write(point);
    g_autoptr(manifest_auto) partial =
        manifest_parse(text, strlen(text), ".partial-" POINT, NULL);

    (void)state;
    assert_non_null(partial);
    assert_string_equal(partial->directory, ".partial-" POINT);
    assert_null(
        manifest_parse(text, strlen(text), "20260131T235958Z-0009", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(what_is_unsound_is_refused),
        cmocka_unit_test(a_manifest_in_the_wrong_directory_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
