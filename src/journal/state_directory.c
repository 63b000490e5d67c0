/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/state_directory.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "journal/journal_id.h"
#include "loop/coroutine.h"

#define LOCK_NAME     "commit.lock"
#define LOCK_RETRY_NS UINT64_C(10000000)

struct state_directory {
    struct storage *storage;
    char *path;
    bool is_process;
    uint8_t boot_id[STORAGE_BOOT_ID_BYTES];
};

/* --- Where it is --------------------------------------------------------------- */

static bool is_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

static char *check_absolute(char *path, const char *source, GError **err)
{
    if (path[0] != '/') {
        error_set(err, -EINVAL,
                  "The state directory '%s', from %s, is not an absolute path",
                  path, source);
        g_free(path);
        return NULL;
    }
    return path;
}

char *state_directory_choose(const struct state_directory_places *places,
                             GError **err)
{
    if (is_given(places->option)) {
        return g_strdup(places->option);
    }
    if (is_given(places->state_directory)) {
        const char *end = strchrnul(places->state_directory, ':');

        return check_absolute(g_strndup(places->state_directory,
                                        (gsize)(end - places->state_directory)),
                              "$STATE_DIRECTORY", err);
    }
    if (places->is_root) {
        return g_strdup("/var/lib/cohort");
    }
    if (is_given(places->xdg_state_home)) {
        return check_absolute(
            g_build_filename(places->xdg_state_home, "cohort", NULL),
            "$XDG_STATE_HOME", err);
    }
    if (is_given(places->home)) {
        return check_absolute(
            g_build_filename(places->home, ".local", "state", "cohort", NULL),
            "$HOME", err);
    }
    error_set(err, -ENOENT,
              "There is no place for the state directory: neither "
              "$STATE_DIRECTORY, $XDG_STATE_HOME nor $HOME is set; name one "
              "with --state-dir");
    return NULL;
}

/* --- Opening -------------------------------------------------------------------- */

/* Makes the directory with its parents; each new name is durable. */
static int co_make(struct state_directory *directory,
                   const char *path,
                   GError **err)
{
    g_autofree char *parent = g_path_get_dirname(path);
    struct storage_stat stat;
    int ret = co_storage_stat(directory->storage, path, &stat);

    if (ret == 0 && stat.kind == STORAGE_DIRECTORY) {
        return 0;
    }
    if (ret == 0) {
        return error_set(err, -ENOTDIR,
                         "The state directory cannot be in '%s', which is no "
                         "directory; name another with --state-dir",
                         path);
    }
    if (ret == -ENOENT && strcmp(parent, path) != 0) {
        ret = co_make(directory, parent, err);
        if (ret < 0) {
            return ret;
        }
        ret = co_storage_make_directory(directory->storage, path);
        if (ret == -EEXIST) {
            ret = 0; /* another daemon was faster */
        }
        if (ret == 0 && !directory->is_process) {
            ret = co_storage_sync_directory(directory->storage, parent);
        }
    }
    if (ret < 0) {
        return error_set_errno(err, ret,
                               "Cannot make directory '%s' for the daemon's "
                               "state; name another with --state-dir",
                               path);
    }
    return 0;
}

static int co_refuse_volatile(struct state_directory *directory, GError **err)
{
    bool is_volatile;
    int ret = co_storage_is_volatile(directory->storage, directory->path,
                                     &is_volatile);

    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot look at state directory '%s'",
                               directory->path);
    }
    if (is_volatile && !directory->is_process) {
        return error_set(err, -EINVAL,
                         "The state directory '%s' lies in memory and would "
                         "not survive a power cut; name one on a disk with "
                         "--state-dir, or use durability=process",
                         directory->path);
    }
    return 0;
}

int co_state_directory_open(struct storage *storage,
                            const char *path,
                            bool is_process,
                            struct state_directory **ret_directory,
                            GError **err)
{
    g_autoptr(state_directory) directory = g_new0(struct state_directory, 1);
    int ret;

    directory->storage = storage;
    directory->path = g_strdup(path);
    directory->is_process = is_process;
    ret = co_make(directory, path, err);
    if (ret == 0) {
        ret = co_refuse_volatile(directory, err);
    }
    if (ret < 0) {
        return ret;
    }
    ret = co_storage_boot_id(storage, directory->boot_id);
    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot tell this boot from others");
    }
    *ret_directory = g_steal_pointer(&directory);
    return 0;
}

void state_directory_free(struct state_directory *directory)
{
    if (directory != NULL) {
        g_free(directory->path);
        g_free(directory);
    }
}

struct storage *state_directory_storage(const struct state_directory *directory)
{
    return directory->storage;
}

const char *state_directory_path(const struct state_directory *directory)
{
    return directory->path;
}

bool state_directory_is_process(const struct state_directory *directory)
{
    return directory->is_process;
}

const uint8_t *state_directory_boot_id(const struct state_directory *directory)
{
    return directory->boot_id;
}

char *state_directory_file(const struct state_directory *directory,
                           const char *name)
{
    return g_build_filename(directory->path, name, NULL);
}

/* --- Its lock ------------------------------------------------------------------- */

static int co_open_lock(struct state_directory *directory,
                        struct storage_file **ret_lock,
                        GError **err)
{
    g_autofree char *path = state_directory_file(directory, LOCK_NAME);
    int ret = co_storage_open(directory->storage, path, STORAGE_CREATE,
                              ret_lock, NULL);

    if (ret == -EEXIST) {
        return co_storage_open(directory->storage, path, STORAGE_WRITABLE,
                               ret_lock, err);
    }
    return ret < 0 ? error_set_errno(err, ret, "Cannot make '%s'", path) : 0;
}

int co_state_directory_lock(struct state_directory *directory,
                            struct storage_file **ret_lock,
                            GError **err)
{
    uint64_t deadline_ns = loop_now_ns() + STATE_LOCK_WAIT_NS;
    struct storage_file *lock = NULL;
    int ret = co_open_lock(directory, &lock, err);

    if (ret < 0) {
        return ret;
    }
    while ((ret = co_storage_lock(lock, true)) == -EAGAIN &&
           loop_now_ns() < deadline_ns) {
        co_sleep_until(loop_now_ns() + LOCK_RETRY_NS);
    }
    if (ret < 0) {
        error_set(err, ret == -EAGAIN ? -EBUSY : ret,
                  ret == -EAGAIN
                      ? "'%s' is locked by another process that does not "
                        "let go of it"
                      : "Cannot lock '%s'",
                  lock->path);
        co_storage_close(&lock);
        return ret == -EAGAIN ? -EBUSY : ret;
    }
    *ret_lock = lock;
    return 0;
}

/* --- Files ---------------------------------------------------------------------- */

int co_state_directory_sync(struct state_directory *directory, GError **err)
{
    int ret = co_storage_sync_directory(directory->storage, directory->path);

    if (ret < 0) {
        error_set_errno(err, ret, "Cannot sync state directory '%s'",
                        directory->path);
    }
    return ret;
}

/* A name of its own for what is being written. */
static char *temporary_path(struct state_directory *directory, const char *name)
{
    struct journal_id random = journal_id_new();
    char text[JOURNAL_ID_TEXT_BYTES];
    g_autofree char *temporary = NULL;

    journal_id_format(&random, text);
    temporary = g_strdup_printf("%s.tmp-%.8s", name, text);
    return state_directory_file(directory, temporary);
}

static int co_write_whole(struct storage_file *file,
                          const GByteArray *content,
                          unsigned int flags)
{
    int ret = (flags & STATE_PUT_LOCKED) != 0 ? co_storage_lock(file, true) : 0;

    if (ret == 0 && content->len > 0) {
        ret = co_storage_write(file, 0, content->data, content->len);
    }
    if (ret == 0 && (flags & STATE_PUT_UNSYNCED) == 0) {
        ret = co_storage_sync(file);
    }
    return ret;
}

int co_state_directory_put(struct state_directory *directory,
                           const char *name,
                           const GByteArray *content,
                           unsigned int flags,
                           struct storage_file **ret_file,
                           bool *ret_maybe,
                           GError **err)
{
    g_autofree char *path = state_directory_file(directory, name);
    g_autofree char *temporary = temporary_path(directory, name);
    struct storage_file *file = NULL;
    bool maybe = false;
    int ret = co_storage_open(directory->storage, temporary, STORAGE_CREATE,
                              &file, err);

    if (ret == 0) {
        ret = co_write_whole(file, content, flags);
        if (ret == 0) {
            ret = co_storage_rename(directory->storage, temporary, path);
            maybe = ret == 0 || storage_rename_may_hold(ret);
        }
        if (ret == 0) {
            g_free(file->path); /* errors shall say its name */
            file->path = g_strdup(path);
        }
        if (ret < 0) {
            error_set_errno(err, ret, "Cannot write '%s'", path);
            /* A leftover would be ignored. */
            (void)co_storage_unlink(directory->storage, temporary);
        } else if ((flags & STATE_PUT_UNSYNCED) == 0) {
            ret = co_state_directory_sync(directory, err);
        }
    }
    if (ret < 0 && ret_maybe != NULL) {
        *ret_maybe = maybe;
    }
    if (ret == 0 && ret_file != NULL) {
        *ret_file = g_steal_pointer(&file);
    }
    co_storage_close(&file);
    return ret;
}

int co_state_directory_get(struct state_directory *directory,
                           const char *name,
                           uint64_t limit_bytes,
                           GByteArray **ret_content,
                           GError **err)
{
    g_autofree char *path = state_directory_file(directory, name);
    struct storage_file *file = NULL;
    void *data;
    uint64_t bytes;
    int ret = co_storage_open(directory->storage, path, 0, &file, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_storage_read_all(file, limit_bytes, &data, &bytes);
    co_storage_close(&file);
    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot read '%s'", path);
    }
    *ret_content = g_byte_array_new_take(data, bytes);
    return 0;
}

int co_state_directory_remove(struct state_directory *directory,
                              const char *name,
                              GError **err)
{
    g_autofree char *path = state_directory_file(directory, name);
    int ret = co_storage_unlink(directory->storage, path);

    if (ret < 0 && ret != -ENOENT) {
        return error_set_errno(err, ret, "Cannot remove '%s'", path);
    }
    return 0;
}
