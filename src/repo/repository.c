/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening reads `repository.json`, then the manifest of every directory whose
 * name is a point's id. A directory that is neither that nor partial is not
 * ours and left alone.
 */
#include "repo/repository.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "repo/durable.h"
#include "repo/fd.h"
#include "repo/names.h"

#define REPOSITORY_FILE      "repository.json"
#define DISTRUSTED_FILE      "distrusted.json"
#define REPOSITORY_FORMAT    "cohort-repository"
#define REPOSITORY_VERSION   1
#define SMALL_FILE_BYTES_MAX ((size_t)(1 << 20))

void repository_close(struct repository *repository)
{
    if (repository == NULL) {
        return;
    }
    fd_cleanup(&repository->lock_fd);
    fd_cleanup(&repository->fd);
    g_clear_pointer(&repository->points, g_ptr_array_unref);
    g_clear_pointer(&repository->broken, g_ptr_array_unref);
    g_free(repository->path);
    g_free(repository->id);
    g_free(repository->prefix);
    g_free(repository);
}

static void free_manifest(void *pointer)
{
    manifest_free(pointer);
}

static int compare_sequence(gconstpointer a, gconstpointer b)
{
    const struct manifest *const *left = a;
    const struct manifest *const *right = b;

    if ((*left)->sequence != (*right)->sequence) {
        return (*left)->sequence < (*right)->sequence ? -1 : 1;
    }
    return strcmp((*left)->point, (*right)->point);
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

/* Names in the repository that `accepts`; sorted. NULL with err set. */
static GPtrArray *list_names(const struct repository *repository,
                             bool (*accepts)(const char *name),
                             GError **err)
{
    int copy = openat(repository->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    if (directory == NULL) {
        (void)error_set_errno(err, -errno, "cannot list '%s'",
                              repository->path);
        fd_cleanup(&copy);
        return NULL;
    }
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    while ((entry = readdir(directory)) != NULL) {
        if (accepts(entry->d_name)) {
            g_ptr_array_add(names, g_strdup(entry->d_name));
        }
    }
    (void)closedir(directory); /* read only */
    g_ptr_array_sort(names, compare_names);
    return names;
}

static bool is_partial(const char *name)
{
    return g_str_has_prefix(name, PARTIAL_PREFIX) &&
           point_id_is_legal(name + strlen(PARTIAL_PREFIX));
}

GPtrArray *repository_partials(const struct repository *repository,
                               GError **err)
{
    return list_names(repository, is_partial, err);
}

int repository_read_manifest(const struct repository *repository,
                             const char *directory,
                             const char *file,
                             struct manifest **ret_manifest,
                             GError **err)
{
    g_autofree char *text = NULL;
    size_t bytes;
    auto_fd int fd = durable_open_directory(repository->fd, directory, err);

    if (fd < 0) {
        return fd;
    }
    int ret = durable_read(fd, file, MANIFEST_BYTES_MAX, &text, &bytes, err);
    if (ret < 0) {
        g_prefix_error(err, "%s: ", directory);
        return ret;
    }
    struct manifest *manifest = manifest_parse(text, bytes, directory, err);
    if (manifest == NULL) {
        return -EINVAL;
    }
    *ret_manifest = manifest;
    return 0;
}

int repository_write_manifest(const struct repository *repository,
                              const struct manifest *point,
                              const char *file,
                              GError **err)
{
    g_autofree char *text = manifest_write(point);
    auto_fd int fd =
        durable_open_directory(repository->fd, point->directory, err);

    return fd < 0 ? fd : durable_write(fd, file, text, strlen(text), err);
}

int repository_reload(struct repository *repository, GError **err)
{
    g_autoptr(GPtrArray) names = list_names(repository, point_id_is_legal, err);

    if (names == NULL) {
        return -EIO;
    }
    g_clear_pointer(&repository->points, g_ptr_array_unref);
    g_clear_pointer(&repository->broken, g_ptr_array_unref);
    repository->points = g_ptr_array_new_with_free_func(free_manifest);
    repository->broken = g_ptr_array_new_with_free_func(g_free);
    for (guint i = 0; i < names->len; i++) {
        g_autoptr(GError) why = NULL;
        struct manifest *manifest = NULL;
        if (repository_read_manifest(repository, names->pdata[i], MANIFEST_FILE,
                                     &manifest, &why) < 0) {
            g_ptr_array_add(repository->broken, g_strdup(why->message));
        } else {
            g_ptr_array_add(repository->points, manifest);
        }
    }
    g_ptr_array_sort(repository->points, compare_sequence);
    return 0;
}

/* The whole of a small JSON file as an object. */
static int read_json(const struct repository *repository,
                     const char *name,
                     json_t **ret_root,
                     GError **err)
{
    g_autofree char *text = NULL;
    size_t bytes;
    json_error_t where;
    int ret = durable_read(repository->fd, name, SMALL_FILE_BYTES_MAX, &text,
                           &bytes, err);

    if (ret < 0) {
        return ret;
    }
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(err, -EINVAL, "'%s/%s' is damaged: no JSON object",
                         repository->path, name);
    }
    *ret_root = root;
    return 0;
}

static int read_identity(struct repository *repository, GError **err)
{
    json_t *root = NULL;
    int ret = read_json(repository, REPOSITORY_FILE, &root, err);

    if (ret < 0) {
        return ret;
    }
    const char *format = json_string_value(json_object_get(root, "format"));
    const char *id = json_string_value(json_object_get(root, "id"));
    json_int_t version = json_integer_value(json_object_get(root, "version"));
    if (g_strcmp0(format, REPOSITORY_FORMAT) != 0) {
        ret = error_set(err, -EINVAL, "'%s/%s' does not describe a repository",
                        repository->path, REPOSITORY_FILE);
    } else if (version != REPOSITORY_VERSION) {
        ret = error_set(err, -ENOTSUP,
                        "'%s' is a repository of version %" JSON_INTEGER_FORMAT
                        "; this cohort reads version %d",
                        repository->path, version, REPOSITORY_VERSION);
    } else if (id == NULL || !hex_is_legal(id, REPOSITORY_ID_DIGITS)) {
        ret = error_set(err, -EINVAL, "'%s/%s' is damaged: no legal id",
                        repository->path, REPOSITORY_FILE);
    } else {
        repository->id = g_strdup(id);
        repository->prefix = g_strdup_printf("cohort-%.8s-", id);
    }
    json_decref(root);
    return ret;
}

static struct repository *open_directory(const char *path, GError **err)
{
    struct repository *repository = g_new0(struct repository, 1);
    char *absolute;

    repository->lock_fd = -1;
    repository->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (repository->fd < 0) {
        (void)error_set_errno(err, -errno, "cannot open repository '%s'", path);
        repository_close(repository);
        return NULL;
    }
    absolute = realpath(path, NULL);
    repository->path = g_strdup(absolute == NULL ? path : absolute);
    free(absolute);
    return repository;
}

static int open_existing(struct repository *repository, GError **err)
{
    int ret = read_identity(repository, err);

    return ret < 0 ? ret : repository_reload(repository, err);
}

int repository_open(const char *path,
                    struct repository **ret_repository,
                    GError **err)
{
    g_autoptr(repository_auto) repository = open_directory(path, err);

    if (repository == NULL) {
        return -errno;
    }
    int ret = open_existing(repository, err);
    if (ret == -ENOENT) {
        g_clear_error(err);
        return error_set(err, ret,
                         "'%s' is no repository (it has no %s); 'cohort "
                         "backup' makes one of an empty directory",
                         path, REPOSITORY_FILE);
    }
    if (ret == 0) {
        *ret_repository = g_steal_pointer(&repository);
    }
    return ret;
}

static bool is_stranger(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           strcmp(name, "lost+found") != 0 &&
           strcmp(name, "." REPOSITORY_FILE ".new") != 0;
}

static int write_identity(struct repository *repository, GError **err)
{
    g_autofree char *id = hex_random(REPOSITORY_ID_DIGITS, err);

    if (id == NULL) {
        return -EIO;
    }
    g_autofree char *text = g_strdup_printf(
        "{\n  \"format\": \"" REPOSITORY_FORMAT "\",\n  \"version\": %d,\n"
        "  \"id\": \"%s\"\n}\n",
        REPOSITORY_VERSION, id);
    return durable_write(repository->fd, REPOSITORY_FILE, text, strlen(text),
                         err);
}

/* An empty directory becomes a repository. */
static int initialise(struct repository *repository, GError **err)
{
    g_autoptr(GPtrArray) strangers = list_names(repository, is_stranger, err);

    if (strangers == NULL) {
        return -EIO;
    }
    if (strangers->len > 0) {
        return error_set(err, -EEXIST,
                         "'%s' is no repository and not empty (it holds '%s'); "
                         "give an empty or a new directory",
                         repository->path, (char *)strangers->pdata[0]);
    }
    return write_identity(repository, err);
}

static int make_directory(const char *path, GError **err)
{
    g_autofree char *parent = g_path_get_dirname(path);

    if (mkdir(path, 0700) < 0) {
        return errno == EEXIST
                   ? 0
                   : error_set_errno(err, -errno, "cannot make '%s'", path);
    }
    auto_fd int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, -errno, "cannot open '%s'", parent)
                  : durable_sync(fd, parent, err);
}

int repository_open_or_create(const char *path,
                              struct repository **ret_repository,
                              GError **err)
{
    int ret = make_directory(path, err);
    if (ret < 0) {
        return ret;
    }
    g_autoptr(repository_auto) repository = open_directory(path, err);
    g_autoptr(GError) why = NULL;

    if (repository == NULL) {
        return -errno;
    }
    ret = open_existing(repository, &why);
    if (ret == -ENOENT) {
        g_clear_error(&why);
        ret = initialise(repository, &why);
        if (ret == 0) {
            ret = open_existing(repository, &why);
        }
    }
    if (ret < 0) {
        g_propagate_error(err, g_steal_pointer(&why));
        return ret;
    }
    *ret_repository = g_steal_pointer(&repository);
    return 0;
}

struct manifest *repository_find(const struct repository *repository,
                                 const char *point)
{
    for (guint i = 0; i < repository->points->len; i++) {
        struct manifest *manifest = repository->points->pdata[i];
        if (strcmp(manifest->point, point) == 0) {
            return manifest;
        }
    }
    return NULL;
}

struct manifest *repository_newest(const struct repository *repository)
{
    guint count = repository->points->len;

    return count == 0 ? NULL : repository->points->pdata[count - 1];
}

struct manifest *repository_newest_with(const struct repository *repository,
                                        const char *node)
{
    for (guint i = repository->points->len; i > 0; i--) {
        struct manifest *manifest = repository->points->pdata[i - 1];
        if (manifest_find_disk(manifest, node) != NULL) {
            return manifest;
        }
    }
    return NULL;
}

unsigned repository_chain_length(const struct repository *repository,
                                 const struct manifest *point,
                                 const char *node)
{
    unsigned length = 0;

    while (point != NULL && length <= repository->points->len) {
        const struct manifest_disk *disk = manifest_find_disk(point, node);
        if (disk == NULL) {
            return 0;
        }
        length++;
        if (!disk->incremental) {
            return length;
        }
        point = repository_find(repository, disk->previous);
    }
    return 0;
}

/* The number in a point's id. */
static uint64_t id_sequence(const char *id)
{
    return g_ascii_strtoull(strrchr(id, '-') + 1, NULL, 10);
}

static bool is_point_or_partial(const char *name)
{
    return point_id_is_legal(name) || is_partial(name);
}

uint64_t repository_next_sequence(const struct repository *repository)
{
    g_autoptr(GPtrArray) names =
        list_names(repository, is_point_or_partial, NULL);
    uint64_t next = 1;

    for (guint i = 0; names != NULL && i < names->len; i++) {
        uint64_t number = id_sequence(names->pdata[i]);
        next = number >= next ? number + 1 : next;
    }
    return next;
}

/* Of a partial point: one of its own files, if it has it. */
static int sync_file(int directory_fd, const char *name, GError **err)
{
    auto_fd int fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return errno == ENOENT
                   ? 0
                   : error_set_errno(err, -errno, "cannot open '%s'", name);
    }
    return durable_sync(fd, name, err);
}

static int sync_partial(const struct repository *repository,
                        const char *name,
                        GError **err)
{
    auto_fd int fd = durable_open_directory(repository->fd, name, err);
    int ret;

    if (fd < 0) {
        return fd;
    }
    ret = sync_file(fd, STARTED_FILE, err);
    if (ret == 0) {
        ret = sync_file(fd, MANIFEST_FILE, err);
    }
    return ret < 0 ? ret : durable_sync(fd, name, err);
}

int repository_sync_found(const struct repository *repository, GError **err)
{
    g_autoptr(GPtrArray) partials = repository_partials(repository, err);
    int ret = partials == NULL ? -EIO : 0;

    for (guint i = 0; ret == 0 && i < partials->len; i++) {
        ret = sync_partial(repository, partials->pdata[i], err);
    }
    return ret < 0 ? ret : durable_sync(repository->fd, repository->path, err);
}

int repository_publish(struct repository *repository,
                       struct manifest **point,
                       GError **err)
{
    struct manifest *manifest = *point;

    if (renameat2(repository->fd, manifest->directory, repository->fd,
                  manifest->point, RENAME_NOREPLACE) < 0) {
        return error_set_errno(err, -errno, "cannot rename '%s' to '%s'",
                               manifest->directory, manifest->point);
    }
    int ret = durable_sync(repository->fd, repository->path, err);
    if (ret < 0) {
        return ret;
    }
    g_free(manifest->directory);
    manifest->directory = g_strdup(manifest->point);
    g_ptr_array_add(repository->points, g_steal_pointer(point));
    g_ptr_array_sort(repository->points, compare_sequence);
    return 0;
}

static int read_distrusted(const struct repository *repository,
                           json_t **ret_list,
                           GError **err)
{
    json_t *root = NULL;
    int ret = read_json(repository, DISTRUSTED_FILE, &root, err);

    if (ret < 0) {
        return ret;
    }
    json_t *list = json_object_get(root, "bitmaps");
    if (json_is_array(list)) {
        *ret_list = json_incref(list);
    } else {
        ret = error_set(err, -EINVAL, "'%s/%s' is damaged", repository->path,
                        DISTRUSTED_FILE);
    }
    json_decref(root);
    return ret;
}

bool repository_is_distrusted(const struct repository *repository,
                              const char *bitmap)
{
    json_t *list = NULL;
    int ret = read_distrusted(repository, &list, NULL);
    bool found = false;

    if (ret < 0) {
        /* Unreadable: trust nothing. */
        return ret != -ENOENT;
    }
    for (size_t i = 0; i < json_array_size(list) && !found; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        found = g_strcmp0(name, bitmap) == 0;
    }
    json_decref(list);
    return found;
}

int repository_distrust(struct repository *repository,
                        const char *bitmap,
                        GError **err)
{
    json_t *list = NULL;
    g_autoptr(GError) why = NULL;
    int ret = read_distrusted(repository, &list, &why);

    if (ret == -ENOENT) {
        list = json_array();
    } else if (ret < 0) {
        g_propagate_error(err, g_steal_pointer(&why));
        return ret;
    }
    json_t *root = json_pack("{s:o}", "bitmaps", list);
    g_assert(root != NULL);
    g_assert(json_array_append_new(list, json_string(bitmap)) == 0);
    char *text = json_dumps(root, JSON_INDENT(2));
    g_assert(text != NULL);
    ret =
        durable_write(repository->fd, DISTRUSTED_FILE, text, strlen(text), err);
    free(text);
    json_decref(root);
    return ret;
}
