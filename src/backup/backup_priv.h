/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of a backup job, for the files of this folder. */
#ifndef BACKUP_BACKUP_PRIV_H
#define BACKUP_BACKUP_PRIV_H

#include "backup/backup_job.h"
#include "backup/block_copy.h"
#include "backup/copy_before_write.h"
#include "block/replace.h"
#include "loop/co_lock.h"

struct backup {
    struct job *job;
    struct block_node *source;
    struct block_node *target;
    struct block_user source_user;
    struct block_user target_user;
    struct backup_options options; /* of the request; job.id is not valid */
    bool owns_target;
    struct block_node *filter_node; /* above the source; NULL: none */
    struct block_user filter_user;
    struct block_replacement
        *replacement;    /* by the filter; until the instant */
    bool watches_target; /* its reads */
    bool committed;      /* the instant has been */

    struct block_copy *copy;
    struct copy_before_write filter;
    struct bitmap *successor;    /* until the instant */
    struct dirty_bitmap *bitmap; /* frozen from then on; NULL: none */
    struct durable_part part;    /* settles the bitmap if there is a txid */
    struct journal_id txid;      /* none: the bitmap does not survive a crash */
    uint64_t cluster_bytes;
    uint64_t total_bytes;     /* what progress counts up to */
    uint64_t speed_allows_ns; /* background waits until then */

    unsigned int queries; /* co_backup_extents() under way; main thread */
    struct co_queue query_ended;
};

extern const struct job_ops backup_job_ops;

/* Of struct durable_part. */
void co_backup_quiesce_part(struct durable_part *part);
void backup_settle_part(struct durable_part *part,
                        enum tracker_outcome outcome);

/* The copy engine's events, home thread; `opaque` is the backup. */
void backup_on_copied(void *opaque, uint64_t bytes);
bool backup_on_failed(void *opaque,
                      enum block_copy_side side,
                      int error,
                      bool foreground);

/* Undoes all that prepare has done with nodes, and frees it. In a coroutine of
 * the main thread; with the graph's lock held if it is not committed. */
void co_backup_release(struct backup *backup);

#endif
