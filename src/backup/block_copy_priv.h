/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the copy engine, for the files of this folder. */
#ifndef BACKUP_BLOCK_COPY_PRIV_H
#define BACKUP_BLOCK_COPY_PRIV_H

#include "backup/block_copy.h"
#include "base/list.h"
#include "loop/co_lock.h"

struct block_copy {
    struct block_node *source; /* borrowed */
    struct block_node *target; /* borrowed */
    uint64_t size_bytes;
    struct block_copy_options options;
    struct block_copy_events events;
    struct bitmap *remaining;

    /* Source ranges being read, and those saved by a guest that pays until they
     * are on the target: a guest's write to them has to wait. */
    struct range_lock reading;
    struct list waiting; /* copy_task.link: those that wait for their range, and
                               have not read it */
    struct list discarding; /* copy_task.discard_link: those that do */
    struct list spare;      /* idle tasks with their buffers */
    size_t spare_count;
    unsigned int tasks;       /* all transfers under way */
    uint64_t in_flight_bytes; /* memory of background transfers */
    uint64_t saved_bytes;     /* memory of foreground transfers */
    struct co_queue changed;  /* a transfer ended, or any of what follows */

    /* The extent of the source last asked about. */
    uint64_t extent_start;
    uint64_t extent_end;
    bool extent_is_zero;

    uint64_t retry_from; /* the lowest cluster that came back; UINT64_MAX */
    bool held;
    bool stopped;
    int error; /* the first one */
    enum block_copy_side error_side;
    uint64_t error_offset;
    bool no_copy_range; /* it has failed once */
};

/* One transfer. From a pool; its buffer stays with it. */
struct copy_task {
    struct list link; /* block_copy.spare, or .waiting */
    struct block_copy *copy;
    uint64_t offset;
    uint64_t bytes;
    bool foreground;
    bool is_zero; /* known without reading */
    struct list discard_link;
    const struct coroutine *discarder; /* while it discards from the source */
    struct range_hold hold;            /* block_copy.reading */
    bool holds;
    uint8_t *buffer;
    size_t buffer_bytes;
    int *ret_result; /* who waits for the end; NULL: nobody */
};

/* Claims [offset, offset + bytes). */
struct copy_task *copy_task_begin(struct block_copy *copy,
                                  uint64_t offset,
                                  uint64_t bytes,
                                  bool foreground,
                                  bool is_zero);
/* Reads the old content; guests may overwrite it once this returns 0, or, when
 * a guest pays for it, once it is on the target: should writing fail, the source
 * is all there is. On failure the task has ended, and its clusters remain. */
int co_copy_task_read(struct copy_task *task);
/* Coroutine bodies: write and end; read, write and end. `opaque` is the task. */
void co_copy_task_write(void *opaque);
void co_copy_task_transfer(void *opaque);

/* Is the cluster at `offset` as it was, in the source alone? For who holds it. */
bool block_copy_is_unread(const struct block_copy *copy, uint64_t offset);

/* The copy breaks, for what happened in the foreground. */
void block_copy_break(struct block_copy *copy,
                      enum block_copy_side side,
                      uint64_t offset,
                      int error);

#endif
