/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of persistent bitmaps that are decided by one durable record: those of
 * a group of jobs, of one job, or of a transaction without jobs.
 *
 * One transaction command makes one cut, with one group for each thing that is
 * decided by itself:
 *
 *     cut = durable_cut_new(coordinator)
 *     prepare    durable_cut_add_group(), durable_group_add() for each bitmap
 *                co_durable_cut_begin(): last of all that is prepared
 *     instant    freeze and change bitmaps; tracker_freeze(), tracker_change()
 *                with durable_group_txid()
 *     after      co_durable_cut_end()
 *                with jobs: job_txn_set_decider(durable_group_decider())
 *                without: co_durable_group_decide()
 *
 * The group then makes the tracking files prepared, has the coordinator commit,
 * and settles: per node, in one step that nothing comes between, all its parts and
 * its tracker.
 *
 * Main thread; graph lock held up to co_durable_cut_end().
 */
#ifndef JOB_DURABLE_GROUP_H
#define JOB_DURABLE_GROUP_H

#include "bitmap/dirty_bitmap.h"
#include "job/job_txn.h"
#include "journal/group_commit.h"
#include "journal/tracker.h"

struct durable_cut;
struct durable_group;

/* The change of one bitmap. Embedded by its owner, alive until it is settled. */
struct durable_part {
    struct list link; /* the group's */
    /* Main thread: whatever must come to rest before the other; may wait. NULL:
     * nothing. */
    void (*co_quiesce)(struct durable_part *part);
    /* Home thread, does not yield: abdicate, reclaim or the like, in memory.
     * TRACKER_UNKNOWN: keep everything. */
    void (*settle)(struct durable_part *part, enum tracker_outcome outcome);
};

/* What the record says of it; strings are borrowed during the call. */
struct durable_change {
    struct block_node *node;     /* has a tracker */
    struct dirty_bitmap *bitmap; /* persistent, or about to be added */
    const char *job;             /* NULL: none */
    bool gets_base;
    bool keeps_base;
    bool is_added; /* by this change: the tracking file needs room */
};

/* `coordinator` NULL: adding a group fails with a sentence. */
struct durable_cut *durable_cut_new(struct coordinator *coordinator);
/* A group of the cut; NULL with err set. `client_id` NULL: none. */
struct durable_group *durable_cut_add_group(struct durable_cut *cut,
                                            const char *client_id,
                                            GError **err);
void durable_group_add(struct durable_cut *cut,
                       struct durable_group *group,
                       struct durable_part *part,
                       const struct durable_change *change);
const struct journal_id *durable_group_txid(const struct durable_group *group);

/* Trackers hold still; there is room; each group's BEGIN is durable. On failure
 * there is only co_durable_cut_discard() left. */
int co_durable_cut_begin(struct durable_cut *cut, GError **err);
/* After the instant. The groups live on: each has its decider from now, or is
 * decided at once. Frees the cut. */
void co_durable_cut_end(struct durable_cut **cut);
/* Instead, at any time: there was no instant. Frees the groups, too; no part is
 * settled. NULL is fine. */
void co_durable_cut_discard(struct durable_cut **cut);

/* Owned by the job transaction; frees the group at its end. */
struct job_txn_decider *durable_group_decider(struct durable_group *group);
/* Without jobs: prepares, decides, settles. A failure means that all parts were
 * settled as aborted, or (-EINPROGRESS: let go in doubt) as unknown. While it is in
 * doubt it waits; `doubt` is called once, and returns true. */
int co_durable_group_decide(struct durable_group *group,
                            group_doubt_fn doubt,
                            void *opaque,
                            GError **err);
/* After that: frees it. */
void co_durable_group_end(struct durable_group **group);

#endif
