/* SPDX-License-Identifier: BSD-3-Clause */
/* Files of the file system: what a file that is opened again is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "journal/storage.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

struct scene {
    char folder[64];
    char *path;
    char *other_path;
    struct storage_file *file;
    void (*co_run)(struct scene *scene);
};

static void co_open_scene(void *opaque)
{
    struct scene *scene = opaque;

    assert_int_equal(co_storage_open(storage_real(), scene->path,
                                     STORAGE_CREATE, &scene->file, NULL),
                     0);
    scene->co_run(scene);
    co_storage_close(&scene->file);
    (void)co_storage_unlink(storage_real(), scene->path);
    (void)co_storage_unlink(storage_real(), scene->other_path);
    loop_stop(loop_current());
}

static void run(void (*co_run)(struct scene *scene))
{
    struct scene scene = { .folder = "/var/tmp/cohort-test-XXXXXX",
                           .co_run = co_run };
    struct loop *loop = loop_new(&loop_uring_backend, "test", NULL);

    assert_non_null(loop);
    assert_non_null(mkdtemp(scene.folder));
    scene.path = g_strconcat(scene.folder, "/file", NULL);
    scene.other_path = g_strconcat(scene.folder, "/other", NULL);
    co_spawn(loop, co_open_scene, &scene);
    loop_run(loop);
    loop_free(loop);
    assert_int_equal(rmdir(scene.folder), 0);
    g_free(scene.path);
    g_free(scene.other_path);
}

static void co_rename_then_open_again(struct scene *scene)
{
    struct storage_file *again = NULL;
    char back[5] = "";

    assert_int_equal(
        co_storage_rename(storage_real(), scene->path, scene->other_path), 0);
    assert_int_equal(co_storage_open_again(scene->file, &again), 0);
    assert_int_equal(co_storage_write(again, 100, "twin", 4), 0);
    assert_int_equal(co_storage_sync(again), 0);
    assert_int_equal(co_storage_read(scene->file, 100, back, 4), 0);
    assert_string_equal(back, "twin");
    co_storage_close(&again);
}

static void opened_again_it_is_the_same_file_whatever_its_name(void **state)
{
    (void)state;
    run(co_rename_then_open_again);
}

static void co_close_the_second(struct scene *scene)
{
    struct storage_file *again = NULL;
    struct storage_file *stranger = NULL;

    assert_int_equal(co_storage_lock(scene->file, true), 0);
    assert_int_equal(co_storage_open_again(scene->file, &again), 0);
    co_storage_close(&again);
    assert_int_equal(co_storage_open(storage_real(), scene->path,
                                     STORAGE_WRITABLE, &stranger, NULL),
                     0);
    assert_int_equal(co_storage_lock(stranger, true), -EAGAIN);
    co_storage_close(&stranger);
}

static void closing_the_second_handle_keeps_the_lock_of_the_first(void **state)
{
    (void)state;
    run(co_close_the_second);
}

static void co_write_short_and_long(struct scene *scene)
{
    const uint64_t bytes = 200000;
    g_autofree char *data = g_malloc(bytes);
    g_autofree char *back = g_malloc0(bytes);

    for (uint64_t i = 0; i < bytes; i++) {
        data[i] = (char)(i % 251);
    }
    assert_int_equal(co_storage_write(scene->file, 0, data, bytes), 0);
    assert_int_equal(co_storage_write(scene->file, 3, "short", 5), 0);
    assert_int_equal(co_storage_read(scene->file, 0, back, bytes), 0);
    memcpy(data + 3, "short", 5);
    assert_memory_equal(data, back, bytes);
}

static void short_and_long_writes_are_read_back(void **state)
{
    (void)state;
    run(co_write_short_and_long);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opened_again_it_is_the_same_file_whatever_its_name),
        cmocka_unit_test(closing_the_second_handle_keeps_the_lock_of_the_first),
        cmocka_unit_test(short_and_long_writes_are_read_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
