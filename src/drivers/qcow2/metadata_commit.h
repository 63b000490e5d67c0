/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata commits: what is dirty in memory reaches the file, in the order that
 * image.h draws.
 *
 * A commit takes, at one instant, copies of everything that is dirty; from then
 * on requests may change the originals again, which makes them dirty for the
 * next commit. It writes each touched block once, neighbours together. One
 * commit runs at a time; who asks meanwhile gets the next one, shared by all
 * that ask for it. Some seconds after something became dirty a commit runs of
 * its own accord, so that little is lost if the process is killed.
 *
 * A failed write leaves things dirty, for the next commit to try again. A failed
 * sync is final: commits fail from then on, and so do flushes.
 */
#ifndef DRIVERS_QCOW2_METADATA_COMMIT_H
#define DRIVERS_QCOW2_METADATA_COMMIT_H

#include "drivers/qcow2/image.h"

struct qcow2_commit *qcow2_commit_new(struct qcow2_image *image);
void qcow2_commit_free(struct qcow2_commit *commit);

/* All that was changed before the call, data and metadata, is durable when it
 * returns 0. Cheap when nothing but data has changed: one sync. */
int co_qcow2_commit(struct qcow2_image *image);

/* An L1 entry has changed in memory. */
void qcow2_commit_l1_dirty(struct qcow2_image *image, uint32_t index);
/* So has an entry of the refcount table. */
void qcow2_commit_refcount_table_dirty(struct qcow2_image *image,
                                       uint64_t index);
/* Something else has: a commit will come. For the caches and free_later.c. */
void qcow2_commit_dirtied(struct qcow2_image *image);

/* Keeps commits from running, for who moves a table: everything up to now is
 * durable when it returns 0. The caller must not allocate, nor wait for anyone
 * who does, before it lets commits run again. On failure it holds nothing. */
int co_qcow2_commit_and_hold(struct qcow2_image *image);
void qcow2_commit_release(struct qcow2_image *image);
/* A write or sync in between has gone wrong such that nobody knows what the file
 * holds: as a failed sync. */
void qcow2_commit_fail(struct qcow2_image *image, int error);
/* 0, or why commits fail for good. */
int qcow2_commit_failure(const struct qcow2_image *image);

/* The commit of its own accord: none begins (the node may change its home), and
 * may again. For block_driver.drained, undrained. */
void qcow2_commit_pause(struct qcow2_image *image);
void qcow2_commit_resume(struct qcow2_image *image);
/* Waits until none is running. */
void co_qcow2_commit_settle(struct qcow2_image *image);

#endif
