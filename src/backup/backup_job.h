/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The backup job: copies a source node, as it was at one instant, to a target.
 *
 * Made in two steps, so that a transaction can set the instant: _prepare does
 * all that may fail or take time; _commit, while the source is fenced, freezes
 * the bitmap and puts the copy-before-write hook in place, and from then on the
 * backup shows the source as of that moment. The job is started after that.
 *
 * Main thread.
 */
#ifndef BACKUP_BACKUP_JOB_H
#define BACKUP_BACKUP_JOB_H

#include "base/schema.h"
#include "bitmap/dirty_bitmap.h"
#include "block/node.h"
#include "job/durable_group.h"
#include "job/job.h"

enum backup_sync {
    BACKUP_SYNC_FULL,
    BACKUP_SYNC_TOP,    /* what the source's own layer holds */
    BACKUP_SYNC_NONE,   /* only what guests overwrite; until cancelled */
    BACKUP_SYNC_BITMAP, /* and `incremental`, which is bitmap + on-success */
};

enum backup_bitmap_mode {
    BACKUP_BITMAP_ON_SUCCESS,
    BACKUP_BITMAP_NEVER,
    BACKUP_BITMAP_ALWAYS,
};

/* What the background copy does about an error. */
enum backup_error_policy {
    BACKUP_ERROR_REPORT, /* the job fails */
    BACKUP_ERROR_IGNORE, /* tries again, until it works */
    BACKUP_ERROR_ENOSPC, /* stops when space is short, else reports */
    BACKUP_ERROR_STOP,   /* pauses the job; resuming tries again */
};

struct backup_options {
    struct job_options job;
    struct block_node *source;
    struct block_node *target;
    enum backup_sync sync;
    bool has_bitmap;
    enum backup_bitmap_mode bitmap_mode;
    /* Bitmap's granularity at the instant; the bitmap itself may be one that
     * the same transaction is about to add, so it is named at commit. */
    uint64_t bitmap_granularity_bytes;
    /* The target was opened for this job alone (drive-backup): delete the node
     * when the job ends. */
    bool owns_target;
    /* Put a node of this name above the source, in its place for all who use
     * it, as long as the job lives. NULL: none. Borrowed. */
    const char *filter_name;

    enum backup_error_policy on_source_error;
    enum backup_error_policy on_target_error;
    /* A guest's write whose old content cannot be saved fails, and the backup
     * goes on; otherwise the other way round. */
    bool break_guest_write;
    uint64_t save_wait_ns;  /* how long such a write waits; UINT64_MAX: ever */
    unsigned int tasks_max; /* at least 1 */
    uint64_t chunk_bytes;   /* 0: the default; else at least a cluster */
    uint64_t cluster_bytes_min; /* 0, or a power of two */
    bool compress;              /* the target's driver must be able to */
    bool discard_source;        /* what has been copied */
    bool copy_range;            /* let the kernel copy, where it can */
};

/* A job in state created, holding source and target. */
int co_backup_prepare(struct job_list *jobs,
                      const struct backup_options *options,
                      struct job **ret_job,
                      GError **err);

/* The nodes that are to be drained for the instant, borrowed until then; the
 * source is to be fenced in any case. NULL: none. */
const GPtrArray *backup_nodes_to_drain(const struct job *job);

/* The job's bitmap is persistent, and what becomes of it is decided by a record:
 * with this part, which settles it. Between _prepare and _commit. */
struct durable_part *backup_make_durable(struct job *job,
                                         const struct journal_id *txid);

/* The instant. Source fenced. `bitmap` NULL if !has_bitmap. */
void backup_commit(struct job *job, struct dirty_bitmap *bitmap);

/* What a job that is `pending` has copied, for clients that keep raw
 * increments: runs of whole clusters at or after `start`, at most `limit` of
 * them, as a new list of {offset, length}; `*ret_next` is where to go on,
 * UINT64_MAX at the end. Fails if the job has been finalized meanwhile. */
int co_backup_extents(struct job *job,
                      uint64_t start,
                      uint64_t limit,
                      struct json_value **ret_extents,
                      uint64_t *ret_next,
                      GError **err);

/* Is `job` a backup job? */
bool job_is_backup(const struct job *job);

#endif
