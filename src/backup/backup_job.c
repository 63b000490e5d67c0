/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where each step runs:
 *
 *     co_backup_prepare   main thread    users, one home, memory
 *     backup_commit       main, fenced   freeze, mark clusters, hook
 *     co_run              home thread    background copy
 *     co_prepare          home thread    flush target, then source
 *     co_commit, co_abort home thread    what becomes of the bitmap
 *     co_clean            home, main     hook out, users out, memory
 *
 * The source is flushed too: the backup may hold a guest's write that the
 * guest has not flushed. Were it lost from the disk by a power cut later, the
 * bitmap would be clean over a difference.
 */
#include "backup/backup_job.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "backup/block_copy.h"
#include "backup/copy_before_write.h"
#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "block/request.h"

struct backup {
    struct job *job;
    struct block_node *source;
    struct block_node *target;
    struct block_user source_user;
    struct block_user target_user;
    enum backup_sync sync;
    enum backup_bitmap_mode bitmap_mode;
    bool owns_target;
    bool committed; /* the instant has been */

    struct block_copy *copy;
    struct copy_before_write filter;
    struct bitmap *successor;    /* until the instant */
    struct dirty_bitmap *bitmap; /* frozen from then on; NULL: none */
    uint64_t cluster_bytes;
    uint64_t speed_allows_ns; /* background waits until then */

    unsigned int queries; /* co_backup_extents() under way; main thread */
    struct co_queue query_ended;
};

static void free_backup(struct backup *backup)
{
    block_copy_free(backup->copy);
    bitmap_free(backup->successor);
    g_free(backup);
}

/* --- Events of the engine, home thread ----------------------------------- */

static void on_copied(void *opaque, uint64_t bytes)
{
    struct backup *backup = opaque;

    job_progress_add_done(backup->job, bytes);
}

static void on_failed(void *opaque, enum block_copy_side side, bool foreground)
{
    struct backup *backup = opaque;

    if (!foreground) {
        job_report_error(backup->job,
                         side == BLOCK_COPY_SOURCE ? "read" : "write",
                         "report");
    }
    job_wake(backup->job);
}

/* --- The work, home thread ------------------------------------------------ */

/* Keeps the background copy to the job's speed. A change of speed forgives what
 * the old one would still have to wait for. */
static void co_keep_to_speed(struct backup *backup, uint64_t bytes)
{
    uint64_t speed = job_speed(backup->job);

    if (speed == 0) {
        return;
    }
    backup->speed_allows_ns = max_u64(backup->speed_allows_ns, loop_now_ns()) +
                              (uint64_t)((double)bytes * 1e9 / (double)speed);
    while (loop_now_ns() < backup->speed_allows_ns &&
           !block_copy_is_over(backup->copy) &&
           !co_job_pause_point(backup->job)) {
        co_job_sleep_until(backup->job, backup->speed_allows_ns);
    }
}

static void set_speed(struct job *job, uint64_t bytes_per_second)
{
    struct backup *backup = job_opaque(job);

    (void)bytes_per_second; /* asked for at each step */
    backup->speed_allows_ns = 0;
}

static int report_failure(struct backup *backup, GError **err)
{
    enum block_copy_side side;
    uint64_t offset;
    int error = block_copy_error(backup->copy, &side, &offset);

    if (error == -ETIMEDOUT) {
        return error_set(
            err, error,
            "Backup of node '%s' is broken: its target '%s' took nothing for "
            "%u seconds while guests were writing",
            block_name(backup->source), block_name(backup->target),
            (unsigned int)(BLOCK_COPY_SAVE_WAIT_NS / 1000000000));
    }
    if (side == BLOCK_COPY_SOURCE) {
        return error_set_errno(err, error,
                               "Cannot read node '%s' at offset %" PRIu64,
                               block_name(backup->source), offset);
    }
    return error_set_errno(err, error,
                           "Cannot write node '%s' at offset %" PRIu64,
                           block_name(backup->target), offset);
}

static int co_backup_run(struct job *job, GError **err)
{
    struct backup *backup = job_opaque(job);
    enum block_copy_side side;
    uint64_t cursor = 0;
    uint64_t offset;
    uint64_t bytes;

    while (!co_job_pause_point(job) &&
           (bytes = co_block_copy_step(backup->copy, &cursor)) > 0) {
        co_keep_to_speed(backup, bytes);
    }
    co_block_copy_settle(backup->copy);
    if (block_copy_error(backup->copy, &side, &offset) < 0) {
        return report_failure(backup, err);
    }
    return job_is_cancelled(job) ? -ECANCELED : 0;
}

static void cancel_backup(struct job *job)
{
    struct backup *backup = job_opaque(job);

    block_copy_stop(backup->copy);
}

/* --- The group's verdict, main thread ------------------------------------ */

static int co_backup_flush(struct job *job, GError **err)
{
    struct backup *backup = job_opaque(job);
    struct loop *main = loop_current();
    struct block_node *failed = NULL;
    int ret;

    co_move(block_home(backup->source));
    ret = co_block_flush(backup->target);
    if (ret < 0) {
        failed = backup->target;
    } else {
        ret = co_block_flush(backup->source);
        failed = backup->source;
    }
    co_move(main);
    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot flush node '%s'",
                               block_name(failed));
    }
    return 0;
}

/* Ends the freeze. `always` keeps what was copied out of the bitmap, even when
 * the job failed; the other modes lose nothing on failure. */
static void thaw_bitmap(struct backup *backup, bool success)
{
    struct dirty_bitmap *bitmap = backup->bitmap;

    if (bitmap == NULL) {
        return;
    }
    switch (backup->bitmap_mode) {
    case BACKUP_BITMAP_NEVER: dirty_bitmap_reclaim(bitmap); break;
    case BACKUP_BITMAP_ON_SUCCESS:
        if (success) {
            dirty_bitmap_abdicate(bitmap);
        } else {
            dirty_bitmap_reclaim(bitmap);
        }
        break;
    case BACKUP_BITMAP_ALWAYS:
        dirty_bitmap_abdicate(bitmap);
        if (!success) {
            bitmap_merge(dirty_bitmap_bits(bitmap),
                         block_copy_remaining(backup->copy));
        }
        break;
    }
    backup->bitmap = NULL;
}

/* First everything that may take time; then, under the graph's lock, what a
 * transaction that is at its instant must not see half done. */
static void co_backup_end(struct backup *backup, bool success)
{
    struct block_graph *graph = block_graph_of(backup->source);
    struct loop *home = block_home(backup->source);
    struct loop *main = loop_current();

    if (!backup->committed) {
        return;
    }
    co_move(home);
    block_copy_stop(backup->copy);
    co_block_copy_settle(backup->copy);
    co_copy_before_write_settle(&backup->filter);
    co_move(main);

    co_block_graph_lock(graph);
    co_move(home);
    thaw_bitmap(backup, success);
    copy_before_write_remove(&backup->filter);
    co_move(main);
    block_graph_unlock(graph);
}

static void co_backup_commit(struct job *job)
{
    co_backup_end(job_opaque(job), true);
}

static void co_backup_abort(struct job *job)
{
    co_backup_end(job_opaque(job), false);
}

/* A job that never reached the instant is cleaned by the transaction that made
 * it, which holds the graph's lock already. */
static void co_delete_target(struct backup *backup)
{
    struct block_graph *graph = block_graph_of(backup->target);
    g_autofree char *name = g_strdup(block_name(backup->target));
    g_autoptr(GError) err = NULL;

    if (backup->committed) {
        co_block_graph_lock(graph);
    }
    if (co_block_del(graph, name, &err) < 0) {
        g_warning("Cannot close backup target '%s': %s", name, err->message);
    }
    if (backup->committed) {
        block_graph_unlock(graph);
    }
}

static void co_backup_clean(struct job *job)
{
    struct backup *backup = job_opaque(job);

    while (backup->queries > 0) {
        co_queue_wait(&backup->query_ended);
    }
    block_detach(&backup->source_user);
    block_detach(&backup->target_user);
    if (backup->owns_target) {
        co_delete_target(backup);
    }
    free_backup(backup);
}

static const struct job_ops backup_job_ops = {
    .type = "backup",
    .is_block_job = true,
    .co_run = co_backup_run,
    .co_prepare = co_backup_flush,
    .co_commit = co_backup_commit,
    .co_abort = co_backup_abort,
    .co_clean = co_backup_clean,
    .cancel = cancel_backup,
    .set_speed = set_speed,
};

bool job_is_backup(const struct job *job)
{
    return strcmp(job_type(job), backup_job_ops.type) == 0;
}

/* --- Making it ------------------------------------------------------------ */

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

static int attach_users(struct backup *backup, GError **err)
{
    int ret;

    backup->source_user = (struct block_user){
        .kind = "job",
        .id = job_id(backup->job),
        .permissions = BLOCK_PERM_READ,
        .shared = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .pinned = true,
    };
    backup->target_user = (struct block_user){
        .kind = "job",
        .id = job_id(backup->job),
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

static int prepare_memory(struct backup *backup,
                          const struct backup_options *options,
                          GError **err)
{
    const struct block_copy_events events = {
        .copied = on_copied,
        .failed = on_failed,
        .opaque = backup,
    };

    backup->cluster_bytes =
        max_u64(BLOCK_COPY_CLUSTER_BYTES_MIN,
                block_limits(backup->target)->cluster_bytes);
    backup->copy = block_copy_new(backup->source, backup->target,
                                  backup->cluster_bytes, &events, err);
    if (backup->copy == NULL) {
        return -ENOMEM;
    }
    copy_before_write_init(&backup->filter, backup->copy);
    if (options->has_bitmap) {
        backup->successor = bitmap_new(block_size(backup->source),
                                       options->bitmap_granularity_bytes, err);
        if (backup->successor == NULL) {
            return -ENOMEM;
        }
    }
    return 0;
}

int co_backup_prepare(struct job_list *jobs,
                      const struct backup_options *options,
                      struct job **ret_job,
                      GError **err)
{
    struct backup *backup;
    int ret;

    ret = check_pair(options, err);
    if (ret < 0) {
        return ret;
    }
    ret = co_block_join(options->source, options->target, err);
    if (ret < 0) {
        return ret;
    }
    backup = g_new0(struct backup, 1);
    backup->source = options->source;
    backup->target = options->target;
    backup->sync = options->sync;
    backup->bitmap_mode = options->bitmap_mode;
    co_queue_init(&backup->query_ended);
    ret = prepare_memory(backup, options, err);
    if (ret < 0) {
        free_backup(backup);
        return ret;
    }
    backup->job = job_new(jobs, &backup_job_ops, &options->job,
                          block_home(backup->source), backup, err);
    if (backup->job == NULL) {
        free_backup(backup);
        return -EINVAL;
    }
    ret = attach_users(backup, err);
    if (ret < 0) {
        co_job_discard(backup->job);
        return ret;
    }
    backup->owns_target = options->owns_target;
    *ret_job = backup->job;
    return 0;
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
    }
    if (backup->sync == BACKUP_SYNC_FULL) {
        bitmap_set_all(remaining);
    } else {
        bitmap_merge(remaining, dirty_bitmap_bits(bitmap));
    }
    job_progress_set_total(job, block_copy_remaining_bytes(backup->copy));
    copy_before_write_install(&backup->filter, backup->source);
    backup->committed = true;
}

/* --- What it copies ------------------------------------------------------- */

/* The run of whole clusters that the job copies at or after `start`. */
static bool next_run(struct backup *backup,
                     uint64_t start,
                     uint64_t *ret_offset,
                     uint64_t *ret_end)
{
    uint64_t size_bytes = block_size(backup->source);
    uint64_t cluster = backup->cluster_bytes;
    uint64_t offset, bytes;
    struct bitmap *bits;

    if (start >= size_bytes) {
        return false;
    }
    if (backup->sync == BACKUP_SYNC_FULL) {
        *ret_offset = start;
        *ret_end = size_bytes;
        return true;
    }
    bits = dirty_bitmap_bits(backup->bitmap);
    if (!bitmap_next_set(bits, start, UINT64_MAX, &offset, &bytes)) {
        return false;
    }
    *ret_offset = max_u64(start, round_down(offset, cluster));
    *ret_end = min_u64(round_up(offset + bytes, cluster), size_bytes);
    /* Runs that share a cluster, or touch once rounded, are one. */
    while (*ret_end < size_bytes &&
           bitmap_next_set(bits, *ret_end, UINT64_MAX, &offset, &bytes) &&
           round_down(offset, cluster) <= *ret_end) {
        *ret_end = min_u64(round_up(offset + bytes, cluster), size_bytes);
    }
    return true;
}

static struct json_value *list_runs(struct backup *backup,
                                    uint64_t start,
                                    uint64_t limit,
                                    uint64_t *ret_next)
{
    struct json_value *extents = json_list_new();
    uint64_t offset, end;

    *ret_next = UINT64_MAX;
    start = round_down(start, backup->cluster_bytes);
    while (next_run(backup, start, &offset, &end)) {
        struct json_value *extent;

        if (json_list_length(extents) >= limit) {
            *ret_next = offset;
            break;
        }
        extent = json_dict_new();
        json_dict_set_uint(extent, "offset", offset);
        json_dict_set_uint(extent, "length", end - offset);
        json_list_append(extents, extent);
        start = end;
    }
    return extents;
}

int co_backup_extents(struct job *job,
                      uint64_t start,
                      uint64_t limit,
                      struct json_value **ret_extents,
                      uint64_t *ret_next,
                      GError **err)
{
    struct backup *backup = job_opaque(job);
    struct loop *main = loop_current();
    bool stands;

    backup->queries++;
    co_move(block_home(backup->source));
    stands = backup->sync == BACKUP_SYNC_FULL || backup->bitmap != NULL;
    if (stands) {
        *ret_extents = list_runs(backup, start, limit, ret_next);
    }
    co_move(main);
    backup->queries--;
    co_queue_wake_all(&backup->query_ended);
    if (!stands) {
        return error_set(err, -EPERM,
                         "The backup of node '%s' has just been finalized",
                         block_name(backup->source));
    }
    return 0;
}
