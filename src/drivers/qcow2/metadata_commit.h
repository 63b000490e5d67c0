/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Metadata commits: what is dirty in memory reaches the file, in the order that
 * image.h draws.
 *
 * A commit takes, at one instant, copies of everything that is dirty; from then
 * on requests may change the originals again, which makes them dirty for the
 * next commit. It writes each touched block once, neighbours together. One
 * commit runs at a time; who asks meanwhile gets the next one, shared by all
 * that ask for it.
 *
 * A failed sync is final: commits fail from then on, and so do flushes.
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
/* Clusters that nothing will name once what is dirty now is durable: their
 * refcounts go down by one then. */
void qcow2_commit_free_later(struct qcow2_image *image,
                             uint64_t host_offset,
                             uint64_t bytes);

#endif
