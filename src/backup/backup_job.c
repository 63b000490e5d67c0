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

#include "backup/backup_priv.h"
#include "base/bytes.h"
#include "base/error.h"
#include "block/request.h"

/* What failed is tried again after so long; policy `ignore` would spin. */
#define RETRY_PAUSE_NS UINT64_C(100000000)

/* --- Events of the engine, home thread ----------------------------------- */

void backup_on_copied(void *opaque, uint64_t bytes)
{
    struct backup *backup = opaque;

    job_progress_add_done(backup->job, bytes);
}

static const char *action_name(enum backup_error_policy policy, int error)
{
    switch (policy) {
    case BACKUP_ERROR_IGNORE: return "ignore";
    case BACKUP_ERROR_STOP: return "stop";
    case BACKUP_ERROR_ENOSPC: return error == -ENOSPC ? "stop" : "report";
    case BACKUP_ERROR_REPORT: return "report";
    }
    g_assert_not_reached();
}

bool backup_on_failed(void *opaque,
                      enum block_copy_side side,
                      int error,
                      bool foreground)
{
    struct backup *backup = opaque;
    bool is_read = side == BLOCK_COPY_SOURCE;
    const char *action = action_name(is_read ? backup->options.on_source_error
                                             : backup->options.on_target_error,
                                     error);

    if (foreground) {
        job_wake(backup->job);
        return false;
    }
    job_report_error(backup->job, is_read ? "read" : "write", action);
    if (strcmp(action, "stop") == 0) {
        job_stop_on_error(backup->job, error);
    }
    job_wake(backup->job);
    return strcmp(action, "report") != 0;
}

/* --- The work, home thread ------------------------------------------------ */

/* Keeps the background copy to the job's speed. A change of speed forgives what
 * the old one would still have to wait for; after the last piece there is
 * nothing to wait for. */
static void co_keep_to_speed(struct backup *backup, uint64_t bytes)
{
    uint64_t speed = job_speed(backup->job);

    if (speed == 0 || block_copy_remaining_bytes(backup->copy) == 0) {
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

/* Takes what remains of a range out of the job. What guests had saved is done,
 * and counts. */
static void drop_range(struct backup *backup, uint64_t offset, uint64_t bytes)
{
    uint64_t before = block_copy_remaining_bytes(backup->copy);

    bitmap_clear(block_copy_remaining(backup->copy), offset, bytes);
    backup->total_bytes -= before - block_copy_remaining_bytes(backup->copy);
}

/* sync=top: drops the clusters that the source's own layer has nothing of; one
 * of which it has a part is copied. Once the copy is over the source says what
 * guests have made of it since. */
static void co_drop_unallocated(struct backup *backup)
{
    uint64_t end = block_size(backup->source);
    uint64_t offset = 0;
    uint64_t run = 0; /* from here on nothing is allocated */
    struct block_extent extent;

    while (offset < end && !co_job_pause_point(backup->job) &&
           co_block_status(backup->source, offset, end - offset, &extent) ==
               0 &&
           !block_copy_is_over(backup->copy)) {
        if ((extent.status & BLOCK_STATUS_ALLOCATED) != 0) {
            drop_range(backup, run, offset - run);
            run = offset + extent.bytes;
        }
        offset += extent.bytes;
    }
    if (offset == end && !block_copy_is_over(backup->copy)) {
        drop_range(backup, run, end - run);
    }
    job_progress_set_total(backup->job, backup->total_bytes);
}

/* Copies until everything is on the target, or the copy or the job is over. */
static void co_copy_all(struct backup *backup)
{
    struct block_copy *copy = backup->copy;
    uint64_t cursor = 0;

    while (!co_job_pause_point(backup->job) && !block_copy_is_over(copy) &&
           !block_copy_is_done(copy)) {
        uint64_t bytes;

        if (block_copy_is_held(copy)) {
            co_job_sleep_until(backup->job, loop_now_ns() + RETRY_PAUSE_NS);
            if (!co_job_pause_point(backup->job)) {
                block_copy_go_on(copy);
            }
            continue;
        }
        bytes = co_block_copy_step(copy, &cursor);
        if (bytes > 0) {
            co_keep_to_speed(backup, bytes);
        } else if (!block_copy_is_done(copy) && !block_copy_is_over(copy) &&
                   !block_copy_is_held(copy)) {
            co_block_copy_wait(copy);
        }
    }
}

/* sync=none: guests' writes do all the copying, until the job is cancelled. */
static void co_wait_for_the_end(struct backup *backup)
{
    while (!co_job_pause_point(backup->job) &&
           !block_copy_is_over(backup->copy)) {
        co_job_sleep_until(backup->job, UINT64_MAX);
    }
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
            "%" PRIu64 " seconds while guests were writing",
            block_name(backup->source), block_name(backup->target),
            backup->options.save_wait_ns / UINT64_C(1000000000));
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
    uint64_t offset;

    if (backup->options.sync == BACKUP_SYNC_NONE) {
        co_wait_for_the_end(backup);
    } else {
        if (backup->options.sync == BACKUP_SYNC_TOP) {
            co_drop_unallocated(backup);
        }
        co_copy_all(backup);
    }
    if (job_is_cancelled(job)) {
        block_copy_stop(backup->copy);
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
    struct block_node *failed = backup->target;
    int ret;

    co_move(block_home(backup->source));
    ret = co_block_flush(backup->target);
    if (ret == 0) {
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
    switch (backup->options.bitmap_mode) {
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

/* Everything that may take time before the bitmap can be decided. */
static void co_quiesce(struct backup *backup)
{
    struct loop *main = loop_current();

    co_move(block_home(backup->source));
    block_copy_stop(backup->copy);
    co_block_copy_settle(backup->copy);
    co_copy_before_write_settle(&backup->filter);
    co_move(main);
}

void co_backup_quiesce_part(struct durable_part *part)
{
    co_quiesce(LIST_ENTRY(part, struct backup, part));
}

/* A bitmap that a record decides; in doubt for ever, it keeps everything. */
void backup_settle_part(struct durable_part *part, enum tracker_outcome outcome)
{
    struct backup *backup = LIST_ENTRY(part, struct backup, part);

    if (outcome == TRACKER_COMMITTED || outcome == TRACKER_ABORTED) {
        thaw_bitmap(backup, outcome == TRACKER_COMMITTED);
    } else {
        dirty_bitmap_reclaim(backup->bitmap);
        backup->bitmap = NULL;
    }
}

/* First everything that may take time; then, under the graph's lock, what a
 * transaction that is at its instant must not see half done. */
static void co_backup_end(struct backup *backup, bool success)
{
    struct block_graph *graph = block_graph_of(backup->source);
    struct loop *main = loop_current();

    if (!backup->committed) {
        return;
    }
    co_quiesce(backup);

    co_block_graph_lock(graph);
    co_move(block_home(backup->source));
    thaw_bitmap(backup, success); /* unless a record has decided it */
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

static void co_backup_clean(struct job *job)
{
    struct backup *backup = job_opaque(job);

    while (backup->queries > 0) {
        co_queue_wait(&backup->query_ended);
    }
    co_backup_release(backup);
}

const struct job_ops backup_job_ops = {
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
