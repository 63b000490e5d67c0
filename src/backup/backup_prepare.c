/* SPDX-License-Identifier: BSD-3-Clause */
/* Making a backup job, and its instant. */
#include <errno.h>
#include <inttypes.h>

#include "backup/backup_priv.h"
#include "backup/filter_drivers.h"
#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/request.h"

static int check_filter(const struct block_node *node, GError **err)
{
    if (!filter_node_is(node)) {
        return 0;
    }
    return error_set(err, -EINVAL,
                     "Node '%s' is the filter of a backup job and goes with "
                     "it: name node '%s' instead",
                     block_name(node), block_name(block_child(node, "file")));
}

static int check_pair(const struct backup_options *options, GError **err)
{
    uint64_t source_bytes = block_size(options->source);
    uint64_t target_bytes = block_size(options->target);
    const struct block_node *common =
        block_find_written(options->source, options->target);

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
    if (options->compress &&
        (block_driver_of(options->target)->write_flags & BLOCK_COMPRESS) == 0) {
        return error_set(err, -ENOTSUP,
                         "'compress' needs a target that can be written "
                         "compressed; '%s', of driver '%s', cannot",
                         block_name(options->target),
                         block_driver_of(options->target)->name);
    }
    return 0;
}

/* Does what is written to the source show in the target? */
static bool is_target_over_source(const struct backup_options *options)
{
    return block_find_written(options->target, options->source) != NULL;
}

/* Before the job is made, so that clients hear nothing of one that cannot be:
 * `id` is borrowed until the users get the job's own. */
static int attach_users(struct backup *backup, const char *id, GError **err)
{
    int ret;

    backup->source_user = (struct block_user){
        .kind = "job",
        .id = id,
        .permissions = BLOCK_PERM_READ |
                       (backup->options.discard_source ? BLOCK_PERM_WRITE : 0U),
        .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .pinned = true,
        /* What is below a snapshot changes, and it minds that itself. */
        .backing_may_change = true,
    };
    backup->target_user = (struct block_user){
        .kind = "job",
        .id = id,
        .permissions = BLOCK_PERM_WRITE,
        .shared = BLOCK_PERM_READ,
        .pinned = true,
        .backing_may_change = is_target_over_source(&backup->options),
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

static bool has_backing(const struct block_node *node)
{
    while (node != NULL && block_child(node, "backing") == NULL) {
        node = block_child(node, "file");
    }
    return node != NULL;
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
        .compress = options->compress,
        /* Nothing lies below a full copy, unless it does already. */
        .target_is_layer =
            options->sync != BACKUP_SYNC_FULL || has_backing(options->target),
        .is_read = is_target_over_source(options),
        .target_over_source = is_target_over_source(options),
        .discard_source = options->discard_source,
        .copy_range = options->copy_range && !options->compress,
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

/* Puts the filter above the source, for later. */
static int co_add_filter(struct backup *backup, const char *id, GError **err)
{
    g_autoptr(json_value) options =
        filter_node_options(backup->options.filter_name, backup->source);
    int ret = co_block_add(block_graph_of(backup->source), options, true,
                           &backup->filter_node, err);

    if (ret < 0) {
        g_prefix_error(err, "Cannot add the job's filter: ");
        return ret;
    }
    ret = block_replacement_prepare(backup->source, backup->filter_node,
                                    BLOCK_REPLACE_BY_FILTER,
                                    &backup->replacement, err);
    if (ret < 0) {
        return ret;
    }
    backup->filter_user = (struct block_user){
        .kind = "job",
        .id = id,
        .shared = BLOCK_PERM_ALL,
        .on_replace = BLOCK_USER_STAYS,
    };
    return block_attach(backup->filter_node, &backup->filter_user, err);
}

/* What others read of the target counts from before the instant on. */
static void co_watch_target(struct backup *backup)
{
    struct loop *main = loop_current();

    co_move(block_home(backup->target));
    block_watch_reads(backup->target);
    co_move(main);
    backup->watches_target = true;
}

static int co_prepare_nodes(struct backup *backup, const char *id, GError **err)
{
    int ret = attach_users(backup, id, err);

    if (ret == 0 && backup->options.filter_name != NULL) {
        ret = co_add_filter(backup, id, err);
    }
    if (ret == 0 && is_target_over_source(&backup->options)) {
        co_watch_target(backup);
    }
    return ret;
}

int co_backup_prepare(struct job_list *jobs,
                      const struct backup_options *options,
                      struct job **ret_job,
                      GError **err)
{
    struct backup *backup;
    int ret = check_pair(options, err);

    if (ret == 0) {
        ret = check_filter(options->source, err);
    }
    if (ret == 0) {
        ret = check_filter(options->target, err);
    }
    if (ret == 0) {
        ret = co_block_join(options->source, options->target, err);
    }
    if (ret < 0) {
        return ret;
    }
    backup = backup_new(options);
    ret = prepare_memory(backup, err);
    if (ret == 0) {
        ret = co_prepare_nodes(backup, options->job.id, err);
    }
    if (ret == 0) {
        backup->job = job_new(jobs, &backup_job_ops, &options->job,
                              block_home(backup->source), backup, err);
        ret = backup->job == NULL ? -EINVAL : 0;
    }
    if (ret < 0) {
        co_backup_release(backup);
        return ret;
    }
    backup->source_user.id = job_id(backup->job);
    backup->target_user.id = job_id(backup->job);
    backup->filter_user.id = job_id(backup->job);
    backup->owns_target = options->owns_target;
    *ret_job = backup->job;
    return 0;
}

const GPtrArray *backup_nodes_to_drain(const struct job *job)
{
    const struct backup *backup = job_opaque(job);

    return backup->replacement == NULL
               ? NULL
               : block_replacement_nodes(backup->replacement);
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
    if (backup->replacement != NULL) {
        block_replacement_commit(g_steal_pointer(&backup->replacement));
    }
    backup->committed = true;
}
