/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * While the jobs are pending their targets no longer change. Here the files
 * become images and hashes, everything is synced, and last of all manifest.json
 * appears: from then on the point is prepared, and only the daemon's verdict is
 * missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/backup.h"
#include "cli/daemon_transactions.h"
#include "repo/chain.h"
#include "repo/content.h"
#include "repo/durable.h"
#include "repo/fd.h"

#define EXTENTS_PER_QUERY 4096

/* Appends one answer's extents; `*start` moves on, UINT64_MAX at the end. */
static int take_extents(const json_t *answer,
                        uint64_t disk_bytes,
                        GArray *extents,
                        uint64_t *start,
                        GError **err)
{
    const json_t *list = json_object_get(answer, "extents");
    const json_t *next = json_object_get(answer, "next");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t offset = json_integer_value(json_object_get(item, "offset"));
        json_int_t bytes = json_integer_value(json_object_get(item, "length"));
        struct increment_extent extent = { .offset = (uint64_t)offset,
                                           .bytes = (uint64_t)bytes };
        if (offset < 0 || bytes <= 0 || extent.offset >= disk_bytes) {
            return error_set(err, -EINVAL,
                             "the daemon told an extent that is not in the "
                             "disk");
        }
        /* The job counts in whole clusters; the disk may end within one. */
        extent.bytes = MIN(extent.bytes, disk_bytes - extent.offset);
        g_array_append_val(extents, extent);
    }
    if (next == NULL || json_is_null(next)) {
        *start = UINT64_MAX;
        return 0;
    }
    if (!json_is_integer(next) ||
        (uint64_t)json_integer_value(next) <= *start) {
        return error_set(err, -EINVAL,
                         "the daemon's list of extents does not advance");
    }
    *start = (uint64_t)json_integer_value(next);
    return 0;
}

static int query_extents(struct backup *backup,
                         const struct manifest_disk *disk,
                         GArray *extents,
                         GError **err)
{
    uint64_t start = 0;

    while (start != UINT64_MAX) {
        json_t *answer = NULL;
        int ret = qmp_command(backup->client, "x-cohort-query-backup-extents",
                              json_pack("{s:s, s:I, s:i}", "id", disk->job,
                                        "start", (json_int_t)start, "limit",
                                        EXTENTS_PER_QUERY),
                              &answer, err);
        if (ret < 0) {
            return ret;
        }
        ret = take_extents(answer, disk->size, extents, &start, err);
        json_decref(answer);
        if (ret < 0) {
            return ret;
        }
    }
    return increment_check_extents(
        (struct increment_extent *)(void *)extents->data, extents->len,
        disk->size, err);
}

static uint64_t total_bytes(const GArray *extents)
{
    uint64_t total = 0;

    for (guint i = 0; i < extents->len; i++) {
        total += g_array_index(extents, struct increment_extent, i).bytes;
    }
    return total;
}

static int seal_increment(struct backup *backup,
                          guint index,
                          int fd,
                          GError **err)
{
    struct manifest_disk *disk = backup->point->disks->pdata[index];
    const struct manifest *previous =
        repository_find(backup->repository, disk->previous);
    const struct manifest_disk *base = manifest_find_disk(previous, disk->node);
    g_autofree char *backing = chain_backing_name(previous, disk->node);
    GArray *extents =
        g_array_new(FALSE, FALSE, sizeof(struct increment_extent));

    backup->extents[index] = extents;
    int ret = query_extents(backup, disk, extents, err);
    if (ret < 0) {
        return ret;
    }
    disk->changed_bytes = total_bytes(extents);
    return increment_seal(
        fd, disk->size, (struct increment_extent *)(void *)extents->data,
        extents->len, backing, base->raw ? "raw" : "qcow2", err);
}

static int seal_full(struct manifest_disk *disk, int fd, GError **err)
{
    const struct increment_extent all = { .bytes = disk->size };
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return error_set_errno(err, -errno, "cannot look at the image");
    }
    disk->changed_bytes = MIN((uint64_t)status.st_blocks * 512, disk->size);
    return increment_seal(fd, disk->size, &all, disk->size > 0 ? 1 : 0, NULL,
                          NULL, err);
}

static bool watch_step(void *opaque,
                       const char *disk,
                       uint64_t done,
                       uint64_t total)
{
    struct backup *backup = opaque;

    progress_update(backup->progress, disk, "hash", done, total);
    return !interrupt_came(backup->interrupt);
}

static int seal_disk(struct backup *backup, guint index, GError **err)
{
    struct manifest_disk *disk = backup->point->disks->pdata[index];
    const struct content_watch watch = { .step = watch_step, .opaque = backup };
    const GArray *extents;
    g_autofree char *image = manifest_image_name(disk);
    auto_fd int fd =
        openat(backup->directory_fd, image, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot open '%s'", image);
    }
    int ret = disk->incremental ? seal_increment(backup, index, fd, err)
                                : seal_full(disk, fd, err);
    if (ret < 0) {
        return ret;
    }
    extents = backup->extents[index];
    return content_hash(
        backup->repository, backup->point, disk,
        extents == NULL
            ? NULL
            : (const struct increment_extent *)(void *)extents->data,
        extents == NULL ? 0 : extents->len, &watch, err);
}

/* By which ids the daemon will know the group, and what each bitmap becomes
 * relative to when it is committed. */
static int note_transaction(struct backup *backup, GError **err)
{
    struct manifest *point = backup->point;
    g_autoptr(GPtrArray) transactions = NULL;
    const struct daemon_transaction *own;

    if (!backup->features.keeps_records) {
        return 0;
    }
    int ret = daemon_transactions_query(backup->client, point->label,
                                        &transactions, err);
    if (ret < 0) {
        return ret;
    }
    own = daemon_transactions_find(transactions, point->label, NULL);
    if (own == NULL) {
        return 0; /* no bitmap of it outlives the daemon */
    }
    point->txid = g_strdup(own->txid);
    for (guint i = 0; i < point->disks->len; i++) {
        struct manifest_disk *disk = point->disks->pdata[i];
        const char *id = daemon_transaction_disk(own, disk->job);
        if (id != NULL) {
            manifest_base_set(&disk->base, own->txid, id);
        }
    }
    return 0;
}

int backup_seal(struct backup *backup, GError **err)
{
    for (guint i = 0; i < backup->point->disks->len; i++) {
        const struct manifest_disk *disk = backup->point->disks->pdata[i];
        int ret = seal_disk(backup, i, err);
        if (ret < 0) {
            g_prefix_error(err, "disk '%s': ", disk->node);
            return ret;
        }
    }
    int ret = note_transaction(backup, err);
    if (ret == 0) {
        ret = repository_write_manifest(backup->repository, backup->point,
                                        MANIFEST_FILE, err);
    }
    if (ret < 0) {
        return ret;
    }
    if (unlinkat(backup->directory_fd, STARTED_FILE, 0) < 0) {
        return error_set_errno(err, -errno, "cannot remove '%s'", STARTED_FILE);
    }
    return durable_sync(backup->directory_fd, backup->point->directory, err);
}
