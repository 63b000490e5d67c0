/* SPDX-License-Identifier: BSD-3-Clause */
#include "mixed/repository.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MAGIC       UINT64_C(0x74736566696e616d)
#define POINTS_KEPT 3

static struct storage *storage_of(struct repository *repository)
{
    return storage_memory_storage(repository->world->memory);
}

char *repository_path(const struct repository *repository,
                      const char *kind,
                      uint64_t number)
{
    return g_strdup_printf("%s/%s-%06" G_GUINT64_FORMAT, repository->folder,
                           kind, number);
}

char *repository_data_path(const struct repository *repository,
                           uint64_t number,
                           unsigned int disk)
{
    return g_strdup_printf("%s/data-%06" G_GUINT64_FORMAT "-%u",
                           repository->folder, number, disk);
}

char *repository_label(const struct repository *repository, uint64_t number)
{
    return g_strdup_printf("repo%u-%06" G_GUINT64_FORMAT, repository->index,
                           number);
}

/*
 * Looking.
 */

static bool co_read_manifest(struct repository *repository,
                             const char *name,
                             GArray *to)
{
    g_autofree char *path = g_strdup_printf("%s/%s", repository->folder, name);
    struct storage_file *file = NULL;
    struct manifest manifest = { .magic = 0 };
    int ret = co_storage_open(storage_of(repository), path, 0, &file, NULL);

    if (ret == 0) {
        ret = co_storage_read(file, 0, &manifest, sizeof(manifest));
        co_storage_close(&file);
    }
    if (world_is_dead(repository->world)) {
        return false;
    }
    if (ret < 0 || manifest.magic != MAGIC) {
        world_fail(repository->world, "%s is not whole", path);
        return false;
    }
    g_array_append_val(to, manifest);
    return true;
}

bool co_repository_scan(struct repository *repository,
                        struct repository_scan *ret_scan)
{
    g_autoptr(GPtrArray) names = NULL;
    bool ok;

    *ret_scan = (struct repository_scan){
        .points = g_array_new(FALSE, FALSE, sizeof(struct manifest)),
        .prepared = g_array_new(FALSE, FALSE, sizeof(struct manifest)),
        .started = g_array_new(FALSE, FALSE, sizeof(uint64_t)),
    };
    ok = co_storage_list(storage_of(repository), repository->folder, &names) ==
         0;
    for (guint i = 0; ok && i < names->len; i++) {
        const char *name = g_ptr_array_index(names, i);
        uint64_t number;

        if (strstr(name, ".tmp") != NULL) {
            continue;
        }
        if (sscanf(name, "point-%" G_GUINT64_FORMAT, &number) == 1) {
            ret_scan->newest = MAX(ret_scan->newest, number);
            ok = co_read_manifest(repository, name, ret_scan->points);
        } else if (sscanf(name, "prepared-%" G_GUINT64_FORMAT, &number) == 1) {
            ok = co_read_manifest(repository, name, ret_scan->prepared);
        } else if (sscanf(name, "started-%" G_GUINT64_FORMAT, &number) == 1) {
            g_array_append_val(ret_scan->started, number);
        }
    }
    return ok;
}

void repository_scan_release(struct repository_scan *scan)
{
    g_array_unref(scan->points);
    g_array_unref(scan->prepared);
    g_array_unref(scan->started);
}

const struct manifest *repository_newest(const struct repository_scan *scan,
                                         unsigned int disk)
{
    for (guint i = scan->points->len; i-- > 0;) {
        const struct manifest *manifest =
            &g_array_index(scan->points, struct manifest, i);

        if (manifest->members[disk].is_in) {
            return manifest;
        }
    }
    return NULL;
}

/*
 * Writing.
 */

bool co_repository_sync(struct repository *repository)
{
    return co_storage_sync_directory(storage_of(repository),
                                     repository->folder) == 0;
}

static bool co_create(struct repository *repository,
                      const char *path,
                      struct storage_file **ret_file)
{
    struct storage *storage = storage_of(repository);
    int ret = co_storage_unlink(storage, path); /* a dead attempt's */

    return (ret == 0 || ret == -ENOENT) &&
           co_storage_open(storage, path, STORAGE_CREATE, ret_file, NULL) == 0;
}

bool co_repository_write(struct repository *repository,
                         const char *kind,
                         const struct manifest *manifest)
{
    g_autofree char *path = repository_path(repository, kind, manifest->number);
    g_autofree char *temporary = g_strdup_printf("%s.tmp", path);
    struct manifest whole = *manifest;
    struct storage_file *file = NULL;
    bool ok;

    whole.magic = MAGIC;
    ok = co_create(repository, temporary, &file) &&
         co_storage_write(file, 0, &whole, sizeof(whole)) == 0 &&
         co_storage_sync(file) == 0;
    co_storage_close(&file);
    return ok &&
           co_storage_rename(storage_of(repository), temporary, path) == 0 &&
           co_repository_sync(repository);
}

static bool co_unlink(struct repository *repository, const char *path)
{
    int ret = co_storage_unlink(storage_of(repository), path);

    return ret == 0 || ret == -ENOENT;
}

bool co_repository_publish(struct repository *repository, uint64_t number)
{
    g_autofree char *from = repository_path(repository, "prepared", number);
    g_autofree char *to = repository_path(repository, "point", number);
    g_autofree char *started = repository_path(repository, "started", number);

    return co_storage_rename(storage_of(repository), from, to) == 0 &&
           co_repository_sync(repository) && co_unlink(repository, started);
}

bool co_repository_drop_start(struct repository *repository, uint64_t number)
{
    g_autofree char *started = repository_path(repository, "started", number);

    return co_unlink(repository, started);
}

static bool co_discard_data(struct repository *repository, uint64_t number)
{
    bool ok = true;

    for (unsigned int i = 0; ok && i < DISKS; i++) {
        g_autofree char *path = repository_data_path(repository, number, i);

        ok = co_unlink(repository, path);
    }
    return ok;
}

bool co_repository_discard(struct repository *repository, uint64_t number)
{
    g_autofree char *prepared = repository_path(repository, "prepared", number);
    g_autofree char *started = repository_path(repository, "started", number);

    return co_discard_data(repository, number) &&
           co_unlink(repository, prepared) && co_unlink(repository, started) &&
           co_repository_sync(repository);
}

static bool co_copy(struct repository *repository,
                    const char *path,
                    struct storage_file *to)
{
    struct storage_file *from = NULL;
    g_autofree void *data = NULL;
    uint64_t bytes;
    bool ok =
        co_storage_open(storage_of(repository), path, 0, &from, NULL) == 0 &&
        co_storage_read_all(from, DISK_BYTES_MAX, &data, &bytes) == 0 &&
        co_storage_write(to, 0, data, bytes) == 0;

    co_storage_close(&from);
    return ok;
}

bool co_repository_make_data(struct repository *repository,
                             const char *path,
                             const char *parent_path,
                             uint64_t size_bytes)
{
    struct storage_file *file = NULL;
    bool ok = co_create(repository, path, &file) &&
              (parent_path == NULL || co_copy(repository, parent_path, file)) &&
              co_storage_truncate(file, size_bytes) == 0;

    co_storage_close(&file);
    return ok;
}

static bool is_needed(const struct repository_scan *scan,
                      const struct manifest *manifest)
{
    for (unsigned int i = 0; i < DISKS; i++) {
        if (manifest->members[i].is_in &&
            repository_newest(scan, i) == manifest) {
            return true;
        }
    }
    return false;
}

bool co_repository_prune(struct repository *repository,
                         const struct repository_scan *scan)
{
    bool ok = true;

    for (guint i = 0; ok && i + POINTS_KEPT < scan->points->len; i++) {
        const struct manifest *manifest =
            &g_array_index(scan->points, struct manifest, i);
        g_autofree char *path =
            repository_path(repository, "point", manifest->number);

        if (!is_needed(scan, manifest)) {
            world_fate(repository->world, &manifest->txid)->pruned = true;
            ok = co_unlink(repository, path) &&
                 co_repository_sync(repository) &&
                 co_discard_data(repository, manifest->number);
        }
    }
    return ok;
}
