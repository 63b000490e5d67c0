/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The happy path:
 *
 *     start    the partial directory, started.json, empty target files
 *     attach   target nodes, and a bitmap for each disk that goes full, one that
 *              outlives the daemon if that can be
 *     cut      freeze, the grouped transaction, thaw: the instant
 *     copy     until every job is pending
 *     seal     (backup_seal.c) extents, images, hashes, manifest.json: prepared
 *     commit   job-finalize, until every job has concluded
 *     publish  bitmaps in memory get their new names, the directory its own
 *     settle   the daemon's leftovers go, its record of the group is acknowledged
 *
 * Whatever fails, settle() is what cleans up, exactly as it would for the next
 * run had this one been killed there.
 */
#include "cli/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/daemon_jobs.h"
#include "cli/daemon_transactions.h"
#include "cli/quiesce.h"
#include "cli/settle.h"
#include "repo/durable.h"
#include "repo/fd.h"

#define BITMAP_GRANULARITY 65536
/* How long a finalized group may take to flush its targets. */
#define CONCLUDE_US INT64_C(600000000)

char *backup_image_path(const struct backup *backup,
                        const struct manifest_disk *disk)
{
    g_autofree char *image = manifest_image_name(disk);

    return g_build_filename(backup->repository->path, backup->point->directory,
                            image, NULL);
}

static char *target_name(const struct backup *backup, guint index)
{
    return g_strdup_printf("%st%u", backup->repository->prefix, index);
}

static int create_target(struct backup *backup,
                         const struct manifest_disk *disk,
                         GError **err)
{
    g_autofree char *image = manifest_image_name(disk);
    auto_fd int fd =
        openat(backup->directory_fd, image,
               O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);

    if (fd < 0 || ftruncate(fd, (off_t)disk->size) < 0) {
        return error_set_errno(err, -errno, "cannot create '%s/%s'",
                               backup->point->directory, image);
    }
    return 0;
}

static int start(struct backup *backup, GError **err)
{
    struct manifest *point = backup->point;
    int ret;

    if (mkdirat(backup->repository->fd, point->directory, 0777) < 0) {
        return error_set_errno(err, -errno, "cannot make '%s/%s'",
                               backup->repository->path, point->directory);
    }
    backup->directory_fd =
        durable_open_directory(backup->repository->fd, point->directory, err);
    if (backup->directory_fd < 0) {
        return backup->directory_fd;
    }
    for (guint i = 0; i < point->disks->len; i++) {
        ret = create_target(backup, point->disks->pdata[i], err);
        if (ret < 0) {
            return ret;
        }
    }
    ret =
        repository_write_manifest(backup->repository, point, STARTED_FILE, err);
    if (ret < 0) {
        return ret;
    }
    return durable_sync(backup->repository->fd, backup->repository->path, err);
}

static int add_bitmap(struct backup *backup,
                      const struct manifest_disk *disk,
                      bool is_persistent,
                      GError **err)
{
    return qmp_command(backup->client, "block-dirty-bitmap-add",
                       json_pack("{s:s, s:s, s:i, s:b}", "node", disk->node,
                                 "name", disk->bitmap, "granularity",
                                 BITMAP_GRANULARITY, "persistent",
                                 (int)is_persistent),
                       NULL, err);
}

/* One that outlives the daemon, if it can be. */
static int record_changes(struct backup *backup,
                          const struct manifest_disk *disk,
                          GError **err)
{
    g_autoptr(GError) why = NULL;
    int ret;

    if (!backup->features.keeps_records) {
        return add_bitmap(backup, disk, false, err);
    }
    ret = add_bitmap(backup, disk, true, &why);
    if (ret == -EREMOTEIO) {
        progress_say(backup->progress,
                     "disk '%s': its record of changes will be kept in memory "
                     "only, and be lost when the daemon ends (%s)",
                     disk->node, why->message);
        /* Is it the disk, or can the daemon keep no records at all? */
        daemon_features_clear(&backup->features);
        ret = daemon_features_query(backup->client, &backup->features, err);
        return ret < 0 ? ret : add_bitmap(backup, disk, false, err);
    }
    if (ret < 0) {
        g_propagate_error(err, g_steal_pointer(&why));
    }
    return ret;
}

static int attach(struct backup *backup, GError **err)
{
    for (guint i = 0; i < backup->point->disks->len; i++) {
        const struct manifest_disk *disk = backup->point->disks->pdata[i];
        g_autofree char *path = backup_image_path(backup, disk);
        g_autofree char *target = target_name(backup, i);
        int ret = qmp_command(backup->client, "blockdev-add",
                              json_pack("{s:s, s:s, s:s, s:s}", "driver",
                                        "file", "node-name", target, "filename",
                                        path, "discard", "unmap"),
                              NULL, err);
        if (ret == 0 && !disk->incremental) {
            ret = record_changes(backup, disk, err);
        }
        if (ret < 0) {
            g_prefix_error(err, "disk '%s': ", disk->node);
            return ret;
        }
    }
    return 0;
}

/* A full backup consumes its bitmap too: that way it is emptied, and relative to
 * this point, at the instant and only if the group succeeds. An increment
 * demands that its bitmap is relative to the point before. */
static json_t *backup_action(const struct backup *backup, guint index)
{
    const struct manifest_disk *disk = backup->point->disks->pdata[index];
    g_autofree char *target = target_name(backup, index);
    json_t *action = json_pack(
        "{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b}}", "type",
        "blockdev-backup", "data", "job-id", disk->job, "device", disk->node,
        "target", target, "sync", disk->incremental ? "incremental" : "full",
        "bitmap", disk->incremental ? disk->previous_bitmap : disk->bitmap,
        "bitmap-mode", "on-success", "auto-finalize", 0, "auto-dismiss", 0);

    g_assert(action != NULL);
    if (disk->previous_base.txid != NULL) {
        json_t *base = json_pack("{s:s, s:s}", "txid", disk->previous_base.txid,
                                 "disk", disk->previous_base.disk);
        g_assert(base != NULL &&
                 json_object_set_new(json_object_get(action, "data"),
                                     "x-cohort-base", base) == 0);
    }
    return action;
}

static char *timestamp(void)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();

    return g_date_time_format_iso8601(now);
}

static int send_transaction(struct backup *backup, bool is_frozen, GError **err)
{
    json_t *actions = json_array();
    json_t *arguments;
    int ret;

    for (guint i = 0; i < backup->point->disks->len; i++) {
        g_assert(json_array_append_new(actions, backup_action(backup, i)) == 0);
    }
    arguments = json_pack("{s:o, s:{s:s}}", "actions", actions, "properties",
                          "completion-mode", "grouped");
    g_assert(arguments != NULL);
    if (backup->features.keeps_records) {
        json_t *properties = json_object_get(arguments, "properties");
        g_assert(json_object_set_new(properties, "x-cohort-transaction-id",
                                     json_string(backup->point->label)) == 0);
    }
    g_free(backup->point->not_before);
    backup->point->not_before = timestamp();
    if (is_frozen) {
        ret = qmp_command_within(backup->client,
                                 backup->options->freeze_timeout_ms,
                                 "transaction", arguments, NULL, err);
    } else {
        ret = qmp_command(backup->client, "transaction", arguments, NULL, err);
    }
    g_free(backup->point->not_after);
    backup->point->not_after = timestamp();
    return ret;
}

static int cut(struct backup *backup, GError **err)
{
    const struct backup_options *options = backup->options;
    struct quiesce *quiesce = NULL;
    g_autoptr(GError) why = NULL;
    int ret;

    if (options->freeze_command == NULL && options->thaw_command == NULL) {
        return send_transaction(backup, false, err);
    }
    ret = quiesce_begin(options->freeze_command, options->thaw_command,
                        options->freeze_timeout_ms, backup->interrupt, &quiesce,
                        err);
    if (ret < 0) {
        return ret;
    }
    ret = send_transaction(backup, true, err);
    int thaw = quiesce_end(quiesce, &why);
    backup->thaw_failed = thaw == -EIO;
    if (thaw < 0) {
        progress_say(backup->progress, "%s", why->message);
    }
    if (ret == 0 && thaw == -ETIME) {
        ret = error_set(err, thaw, "the backup would not be quiescent");
    }
    return ret;
}

/* The error of a disk whose job failed by itself, rather than because another
 * one did. */
static int explain_failure(const struct backup *backup,
                           const GPtrArray *jobs,
                           GError **err)
{
    const struct manifest_disk *culprit = NULL;
    const char *words = NULL;

    for (guint i = 0; i < backup->point->disks->len; i++) {
        const struct manifest_disk *disk = backup->point->disks->pdata[i];
        const struct daemon_job *job = daemon_jobs_find(jobs, disk->job);
        if (job == NULL || job->error == NULL) {
            continue;
        }
        if (culprit == NULL || strcmp(words, g_strerror(ECANCELED)) == 0) {
            culprit = disk;
            words = job->error;
        }
    }
    if (culprit == NULL) {
        return error_set(err, -EIO,
                         "a backup job vanished before it was pending");
    }
    return error_set(err, -EIO, "the backup of disk '%s' failed: %s",
                     culprit->node, words);
}

static int fail_group(struct backup *backup, GError **err)
{
    g_autoptr(GPtrArray) jobs = NULL;
    int ret;

    qmp_client_ignore_interrupt(backup->client);
    ret = daemon_jobs_end_all(backup->client, backup->point->label, &jobs, err);
    return ret < 0 ? ret : explain_failure(backup, jobs, err);
}

static void show_copying(struct backup *backup, const GPtrArray *jobs)
{
    for (guint i = 0; i < backup->point->disks->len; i++) {
        const struct manifest_disk *disk = backup->point->disks->pdata[i];
        const struct daemon_job *job = daemon_jobs_find(jobs, disk->job);
        if (job != NULL) {
            progress_update(backup->progress, disk->node, "copy", job->current,
                            job->total);
        }
    }
}

/* Has any of them ended, or begun to end? */
static bool group_is_ending(const GPtrArray *jobs)
{
    for (guint i = 0; i < jobs->len; i++) {
        const struct daemon_job *job = jobs->pdata[i];
        if (g_strcmp0(job->status, "aborting") == 0 ||
            g_strcmp0(job->status, "concluded") == 0) {
            return true;
        }
    }
    return false;
}

static int copy(struct backup *backup, GError **err)
{
    for (;;) {
        g_autoptr(GPtrArray) jobs = NULL;
        int ret =
            daemon_jobs_query(backup->client, backup->point->label, &jobs, err);
        if (ret < 0) {
            return ret;
        }
        show_copying(backup, jobs);
        if (jobs->len != backup->point->disks->len || group_is_ending(jobs)) {
            return fail_group(backup, err);
        }
        if (daemon_jobs_all(jobs, "pending")) {
            return 0;
        }
        ret = daemon_jobs_pause(backup->client, err);
        if (ret < 0) {
            return ret;
        }
    }
}

/* A commit that the daemon cannot write down is neither done nor undone: that
 * takes as long as it takes, and is said. */
static int watch_doubt(struct backup *backup, bool *said, GError **err)
{
    g_autoptr(GPtrArray) transactions = NULL;
    const struct daemon_transaction *own;

    if (backup->point->txid == NULL || *said) {
        return 0;
    }
    int ret = daemon_transactions_query(backup->client, backup->point->label,
                                        &transactions, err);
    if (ret < 0) {
        return ret;
    }
    own = daemon_transactions_find(transactions, backup->point->label,
                                   backup->point->txid);
    if (own != NULL && own->outcome == DAEMON_OUTCOME_IN_DOUBT) {
        progress_say(backup->progress,
                     "the daemon is in doubt whether the backup is committed "
                     "(%s): waiting, ten minutes at most",
                     own->reason == NULL ? "no reason told" : own->reason);
        *said = true;
    }
    return 0;
}

/* From here on a signal no longer turns the group around. */
static int commit(struct backup *backup, GError **err)
{
    const struct manifest_disk *first = backup->point->disks->pdata[0];
    int64_t deadline_us = g_get_monotonic_time() + CONCLUDE_US;
    bool said = false;

    qmp_client_ignore_interrupt(backup->client);
    int ret = qmp_command(backup->client, "job-finalize",
                          json_pack("{s:s}", "id", first->job), NULL, err);
    while (ret == 0) {
        g_autoptr(GPtrArray) jobs = NULL;
        ret =
            daemon_jobs_query(backup->client, backup->point->label, &jobs, err);
        if (ret == 0 && daemon_jobs_all(jobs, "concluded")) {
            for (guint i = 0; i < jobs->len; i++) {
                const struct daemon_job *job = jobs->pdata[i];
                if (job->error != NULL) {
                    return explain_failure(backup, jobs, err);
                }
            }
            return 0;
        }
        if (ret == 0 && g_get_monotonic_time() > deadline_us) {
            ret = error_set(err, -ETIMEDOUT,
                            "the daemon has not finished the group in ten "
                            "minutes");
        }
        if (ret == 0) {
            ret = watch_doubt(backup, &said, err);
        }
        if (ret == 0) {
            ret = daemon_jobs_pause(backup->client, err);
        }
    }
    return ret;
}

static int publish(struct backup *backup, GError **err)
{
    g_autoptr(GError) why = NULL;

    if (settle_rename_bitmaps(backup->client, backup->point, &why) < 0) {
        progress_say(backup->progress,
                     "the next backup will be full: cannot name its bitmaps "
                     "(%s)",
                     why->message);
    }
    return repository_publish(backup->repository, &backup->point, err);
}

static int make_point(struct backup *backup, GError **err)
{
    int ret = start(backup, err);

    ret = ret < 0 ? ret : attach(backup, err);
    ret = ret < 0 ? ret : cut(backup, err);
    ret = ret < 0 ? ret : copy(backup, err);
    ret = ret < 0 ? ret : backup_seal(backup, err);
    ret = ret < 0 ? ret : commit(backup, err);
    return ret < 0 ? ret : publish(backup, err);
}

static void say(void *opaque, enum settle_news news, const char *sentence)
{
    /* That nothing of a failed run is left goes without saying. */
    if (news != SETTLE_DISCARDED) {
        progress_say(opaque, "%s", sentence);
    }
}

/* Cleans up. Whether the point was published is up to the repository. */
static void clean_up(struct backup *backup)
{
    g_autoptr(GError) why = NULL;

    qmp_client_ignore_interrupt(backup->client);
    if (settle(backup->repository, backup->client, &backup->features, say,
               backup->progress, &why) < 0) {
        progress_say(backup->progress, "%s; the next run tries again",
                     why->message);
    }
}

int backup_run(struct backup *backup,
               struct manifest **point,
               const struct manifest **ret_published,
               GError **err)
{
    g_autoptr(GError) why = NULL;
    g_autofree char *id = g_strdup((*point)->point);
    guint disk_count = (*point)->disks->len;

    backup->point = g_steal_pointer(point);
    backup->directory_fd = -1;
    backup->thaw_failed = false;
    backup->extents = g_new0(GArray *, disk_count);
    int ret = make_point(backup, &why);
    clean_up(backup);
    fd_cleanup(&backup->directory_fd);
    for (guint i = 0; i < disk_count; i++) {
        g_clear_pointer(&backup->extents[i], g_array_unref);
    }
    g_clear_pointer(&backup->extents, g_free);
    g_clear_pointer(&backup->point, manifest_free);
    *ret_published = repository_find(backup->repository, id);
    if (*ret_published != NULL) {
        return 0; /* perhaps by the clean-up, after a lost answer */
    }
    if (ret == 0) {
        return error_set(err, -EIO, "point %s is not there", id);
    }
    g_propagate_error(err, g_steal_pointer(&why));
    return ret;
}
