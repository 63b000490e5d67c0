/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copy-before-write: the hook that makes guests' writes wait until what they
 * overwrite is saved by a copy engine.
 *
 * If saving cannot be done the copy breaks (block_copy_error()) and writes pass
 * from then on; or, if the copy was made so that the guest pays, the write fails.
 */
#ifndef BACKUP_COPY_BEFORE_WRITE_H
#define BACKUP_COPY_BEFORE_WRITE_H

#include "backup/block_copy.h"
#include "block/hook.h"
#include "loop/co_lock.h"

/* Embedded by the job. */
struct copy_before_write {
    struct block_hook hook;
    struct block_copy *copy; /* borrowed */
    bool installed;
    unsigned int writes_inside; /* requests that wait in the hook */
    struct co_queue left;       /* one of them has left */
};

void copy_before_write_init(struct copy_before_write *filter,
                            struct block_copy *copy);

/* Home thread, or main thread while `source` is fenced: from now on nothing of
 * the remaining clusters is overwritten unsaved. */
void copy_before_write_install(struct copy_before_write *filter,
                               struct block_node *source);

/* Home thread, the copy is over: returns when no request is in the hook any
 * more, and none comes again. */
void co_copy_before_write_settle(struct copy_before_write *filter);

/* Takes the hook out. After settling; harmless when not installed. */
void copy_before_write_remove(struct copy_before_write *filter);

#endif
