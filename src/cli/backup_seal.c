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
#include "repo/packed_image.h"

#define EXTENTS_PER_QUERY 4096
#define PACKED_FILE       ".packed"

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

/* What becomes of one job's file. */
struct sealing {
    struct backup *backup;
    const struct manifest_disk *disk;
    const char *image; /* its name */
    int fd;
    const struct increment_extent *extents;
    size_t extent_count;
    const char *backing_name; /* NULL: none */
    const char *backing_format;
};

static bool pack_step(void *opaque, uint64_t done, uint64_t total)
{
    const struct sealing *sealing = opaque;
    struct backup *backup = sealing->backup;

    progress_update(backup->progress, sealing->disk->node, "compress", done,
                    total);
    return !interrupt_came(backup->interrupt);
}

/* A new file takes the place of the one that the daemon has open. */
static int pack(struct sealing *sealing, GError **err)
{
    int directory_fd = sealing->backup->directory_fd;
    const struct packed_image_source source = {
        .fd = sealing->fd,
        .disk_bytes = sealing->disk->size,
        .extents = sealing->extents,
        .extent_count = sealing->extent_count,
        .backing_name = sealing->backing_name,
        .backing_format = sealing->backing_format,
        .step = pack_step,
        .opaque = sealing,
    };
    auto_fd int fd =
        openat(directory_fd, PACKED_FILE,
               O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);

    if (fd < 0) {
        return error_set_errno(err, -errno, "cannot create '%s'", PACKED_FILE);
    }
    int ret = packed_image_write(fd, &source, err);
    if (ret == 0 &&
        renameat(directory_fd, PACKED_FILE, directory_fd, sealing->image) < 0) {
        ret = error_set_errno(err, -errno, "cannot rename '%s' to '%s'",
                              PACKED_FILE, sealing->image);
    }
    return ret;
}

static int make_image(struct sealing *sealing, GError **err)
{
    return sealing->backup->options->compress
               ? pack(sealing, err)
               : increment_seal(sealing->fd, sealing->disk->size,
                                sealing->extents, sealing->extent_count,
                                sealing->backing_name, sealing->backing_format,
                                err);
}

static int seal_increment(struct sealing *sealing,
                          struct manifest_disk *disk,
                          GArray *extents,
                          GError **err)
{
    struct backup *backup = sealing->backup;
    const struct manifest *previous =
        repository_find(backup->repository, disk->previous);
    const struct manifest_disk *base = manifest_find_disk(previous, disk->node);
    g_autofree char *backing = chain_backing_name(previous, disk->node);
    int ret = query_extents(backup, disk, extents, err);

    if (ret < 0) {
        return ret;
    }
    disk->changed_bytes = total_bytes(extents);
    sealing->extents = (struct increment_extent *)(void *)extents->data;
    sealing->extent_count = extents->len;
    sealing->backing_name = backing;
    sealing->backing_format = base->raw ? "raw" : "qcow2";
    return make_image(sealing, err);
}

static int seal_full(struct sealing *sealing,
                     struct manifest_disk *disk,
                     GError **err)
{
    const struct increment_extent all = { .bytes = disk->size };
    struct stat status;

    if (fstat(sealing->fd, &status) < 0) {
        return error_set_errno(err, -errno, "cannot look at the image");
    }
    disk->changed_bytes = MIN((uint64_t)status.st_blocks * 512, disk->size);
    sealing->extents = &all;
    sealing->extent_count = disk->size > 0 ? 1 : 0;
    return make_image(sealing, err);
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
    struct sealing sealing = {
        .backup = backup, .disk = disk, .image = image, .fd = fd
    };
    if (disk->incremental) {
        backup->extents[index] =
            g_array_new(FALSE, FALSE, sizeof(struct increment_extent));
    }
    extents = backup->extents[index];
    int ret = disk->incremental
                  ? seal_increment(&sealing, disk, backup->extents[index], err)
                  : seal_full(&sealing, disk, err);
    if (ret < 0) {
        return ret;
    }
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
