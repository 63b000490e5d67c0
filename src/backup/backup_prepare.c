/* SPDX-License-Identifier: BSD-3-Clause */
/* Making a backup job, and its instant. */
#include <errno.h>
#include <inttypes.h>

#include "backup/backup_priv.h"
#include "base/bytes.h"
#include "base/error.h"
#include "block/request.h"

void backup_free(struct backup *backup)
{
    if (backup == NULL) {
        return;
    }
    block_copy_free(backup->copy);
    bitmap_free(backup->successor);
    g_free(backup);
}

static int check_pair(const struct backup_options *options, GError **err)
{
    uint64_t source_bytes = block_size(options->source);
    uint64_t target_bytes = block_size(options->target);
    const struct block_node *common =
        block_find_common(options->source, options->target);

    if (options->source == options->target) {
        return error_set(err, -EINVAL,
                         "Node '%s' cannot be backed up to itself",
                         block_name(options->source));
    }
    if (common != NULL) {
        return error_set(err, -EINVAL,
                         "Node '%s' cannot be backed up to node '%s': both "
                         "store their data in node '%s'",
                         block_name(options->source),
                         block_name(options->target), block_name(common));
    }
    if (source_bytes != target_bytes) {
        return error_set(err, -EINVAL,
                         "Target '%s' has %" PRIu64 " bytes and source '%s' "
                         "has %" PRIu64 ": a backup needs equal sizes",
                         block_name(options->target), target_bytes,
                         block_name(options->source), source_bytes);
    }
    return 0;
}

/* Before the job is made, so that clients hear nothing of one that cannot be:
 * `id` is borrowed until the users get the job's own. */
static int attach_users(struct backup *backup, const char *id, GError **err)
{
    int ret;

    backup->source_user = (struct block_user){
        .kind = "job",
        .id = id,
        .permissions = BLOCK_PERM_READ,
        .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .pinned = true,
    };
    backup->target_user = (struct block_user){
        .kind = "job",
        .id = id,
        .permissions = BLOCK_PERM_WRITE,
        .shared = BLOCK_PERM_READ,
        .pinned = true,
    };
    ret = block_attach(backup->source, &backup->source_user, err);
    if (ret < 0) {
        return ret;
    }
    ret = block_attach(backup->target, &backup->target_user, err);
    if (ret < 0) {
        block_detach(&backup->source_user);
    }
    return ret;
}

/* The unit of copying: a target that allocates larger units would fill the rest
 * of one with zeroes. */
static uint64_t choose_cluster(const struct backup_options *options)
{
    uint64_t cluster = max_u64(BLOCK_COPY_CLUSTER_BYTES_MIN,
                               block_limits(options->target)->cluster_bytes);

    return max_u64(cluster, options->cluster_bytes_min);
}

static int prepare_copy(struct backup *backup, GError **err)
{
    const struct backup_options *options = &backup->options;
    const struct block_copy_events events = {
        .copied = backup_on_copied,
        .failed = backup_on_failed,
        .opaque = backup,
    };
    struct block_copy_options copy_options = {
        .cluster_bytes = backup->cluster_bytes,
        .chunk_bytes = options->chunk_bytes,
        .tasks_max = options->tasks_max,
        .save_wait_ns = options->save_wait_ns,
        .guest_pays = options->break_guest_write,
    };

    if (copy_options.chunk_bytes == 0) {
        copy_options.chunk_bytes =
            max_u64(BLOCK_COPY_CHUNK_BYTES, backup->cluster_bytes);
    }
    if (copy_options.chunk_bytes < backup->cluster_bytes) {
        return error_set(err, -EINVAL,
                         "'max-chunk' must be 0 or at least the job's cluster "
                         "of %" PRIu64 " bytes",
                         backup->cluster_bytes);
    }
    copy_options.chunk_bytes =
        round_down(copy_options.chunk_bytes, backup->cluster_bytes);
    backup->copy = block_copy_new(backup->source, backup->target, &copy_options,
                                  &events, err);
    if (backup->copy == NULL) {
        return -ENOMEM;
    }
    copy_before_write_init(&backup->filter, backup->copy);
    return 0;
}

static int prepare_memory(struct backup *backup, GError **err)
{
    const struct backup_options *options = &backup->options;
    int ret = prepare_copy(backup, err);

    if (ret < 0 || !options->has_bitmap) {
        return ret;
    }
    backup->successor = bitmap_new(block_size(backup->source),
                                   options->bitmap_granularity_bytes, err);
    return backup->successor == NULL ? -ENOMEM : 0;
}

static struct backup *backup_new(const struct backup_options *options)
{
    struct backup *backup = g_new0(struct backup, 1);

    backup->source = options->source;
    backup->target = options->target;
    backup->options = *options;
    backup->options.job.id = NULL;
    backup->cluster_bytes = choose_cluster(options);
    co_queue_init(&backup->query_ended);
    return backup;
}

int co_backup_prepare(struct job_list *jobs,
                      const struct backup_options *options,
                      struct job **ret_job,
                      GError **err)
{
    struct backup *backup;
    int ret = check_pair(options, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_block_join(options->source, options->target, err);
    if (ret < 0) {
        return ret;
    }
    backup = backup_new(options);
    ret = prepare_memory(backup, err);
    if (ret < 0) {
        backup_free(backup);
        return ret;
    }
    ret = attach_users(backup, options->job.id, err);
    if (ret < 0) {
        backup_free(backup);
        return ret;
    }
    backup->job = job_new(jobs, &backup_job_ops, &options->job,
                          block_home(backup->source), backup, err);
    if (backup->job == NULL) {
        block_detach(&backup->source_user);
        block_detach(&backup->target_user);
        backup_free(backup);
        return -EINVAL;
    }
    backup->source_user.id = job_id(backup->job);
    backup->target_user.id = job_id(backup->job);
    backup->owns_target = options->owns_target;
    *ret_job = backup->job;
    return 0;
}

struct durable_part *backup_make_durable(struct job *job,
                                         const struct journal_id *txid)
{
    struct backup *backup = job_opaque(job);

    g_assert(!backup->committed);
    backup->txid = *txid;
    backup->part.co_quiesce = co_backup_quiesce_part;
    backup->part.settle = backup_settle_part;
    return &backup->part;
}

static enum tracker_mode tracker_mode(enum backup_bitmap_mode mode)
{
    switch (mode) {
    case BACKUP_BITMAP_NEVER: return TRACKER_NEVER;
    case BACKUP_BITMAP_ON_SUCCESS: return TRACKER_ON_SUCCESS;
    case BACKUP_BITMAP_ALWAYS: return TRACKER_ALWAYS;
    }
    g_assert_not_reached();
}

void backup_commit(struct job *job, struct dirty_bitmap *bitmap)
{
    struct backup *backup = job_opaque(job);
    struct bitmap *remaining = block_copy_remaining(backup->copy);

    g_assert(!backup->committed);
    g_assert((bitmap != NULL) == (backup->successor != NULL));
    if (bitmap != NULL) {
        dirty_bitmap_freeze(bitmap, &backup->successor, job_id(job));
        backup->bitmap = bitmap;
        if (!journal_id_is_none(&backup->txid)) {
            tracker_freeze(tracker_of(backup->source), bitmap, &backup->txid,
                           tracker_mode(backup->options.bitmap_mode));
        }
    }
    if (backup->options.sync == BACKUP_SYNC_BITMAP) {
        bitmap_merge(remaining, dirty_bitmap_bits(bitmap));
    } else {
        bitmap_set_all(remaining);
    }
    backup->total_bytes = block_copy_remaining_bytes(backup->copy);
    job_progress_set_total(job, backup->total_bytes);
    copy_before_write_install(&backup->filter, backup->source);
    backup->committed = true;
}
