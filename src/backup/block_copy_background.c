/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What to copy next. The source's state of a cluster that nobody has claimed
 * cannot have changed since the instant, since whoever changes it must save it
 * first; so an extent learned from the source stays true for every remaining
 * cluster, however long ago it was learned.
 */
#include "backup/block_copy_priv.h"
#include "base/bytes.h"
#include "block/request.h"

/* Runs at least this long are worth asking the source for holes. */
#define ASK_STATUS_BYTES BLOCK_COPY_CHUNK_BYTES
/* Zeroes are written in pieces of at most this size. */
#define ZERO_RUN_BYTES GIB

static bool may_start(const struct block_copy *copy)
{
    return !copy->held && !block_copy_is_over(copy);
}

static bool has_room(const struct block_copy *copy)
{
    return copy->tasks < copy->options.tasks_max &&
           copy->in_flight_bytes < BLOCK_COPY_IN_FLIGHT_BYTES;
}

/* Learns what the source holds at `offset`. A source that cannot tell has data
 * there. */
static void co_learn_extent(struct block_copy *copy,
                            uint64_t offset,
                            uint64_t bytes)
{
    struct block_extent extent;

    if (offset >= copy->extent_start && offset < copy->extent_end) {
        return;
    }
    if (co_block_status(copy->source, offset, bytes, &extent) < 0) {
        extent.bytes = bytes;
        extent.status = 0;
    }
    copy->extent_start = offset;
    copy->extent_end = offset + extent.bytes;
    copy->extent_is_zero = (extent.status & BLOCK_STATUS_ZERO) != 0;
}

/* How much of the run at `offset` one transfer takes, by what the extent there
 * says. Whole clusters, except at the disk's end. */
static uint64_t transfer_bytes(const struct block_copy *copy,
                               uint64_t offset,
                               uint64_t run,
                               bool *ret_is_zero)
{
    uint64_t cluster = copy->options.cluster_bytes;
    uint64_t end = offset + run;
    bool known = offset >= copy->extent_start && offset < copy->extent_end;

    *ret_is_zero = false;
    if (known && copy->extent_is_zero) {
        uint64_t zero_end = min_u64(copy->extent_end, end);

        if (zero_end < copy->size_bytes) {
            zero_end = round_down(zero_end, cluster);
        }
        if (zero_end > offset) {
            *ret_is_zero = true;
            return zero_end - offset;
        }
        end = min_u64(end, offset + cluster);
    } else if (known) {
        end = min_u64(end, round_up(copy->extent_end, cluster));
    }
    return min_u64(end - offset, copy->options.chunk_bytes);
}

static bool find_run(struct block_copy *copy,
                     uint64_t from,
                     uint64_t *ret_offset,
                     uint64_t *ret_bytes)
{
    return may_start(copy) &&
           bitmap_next_set(copy->remaining, from, ZERO_RUN_BYTES, ret_offset,
                           ret_bytes);
}

uint64_t co_block_copy_step(struct block_copy *copy, uint64_t *cursor)
{
    uint64_t offset;
    uint64_t run;
    uint64_t bytes;
    bool is_zero;

    while (may_start(copy) && !has_room(copy)) {
        co_queue_wait(&copy->changed);
    }
    *cursor = min_u64(*cursor, copy->retry_from);
    copy->retry_from = UINT64_MAX;
    if (!find_run(copy, *cursor, &offset, &run)) {
        return 0;
    }
    if (run >= ASK_STATUS_BYTES) {
        co_learn_extent(copy, offset, run);
        /* Guests may have been served meanwhile: look again. */
        if (!find_run(copy, offset, &offset, &run)) {
            return 0;
        }
    }
    bytes = transfer_bytes(copy, offset, run, &is_zero);
    *cursor = offset + bytes;
    co_enter(co_copy_task_transfer,
             copy_task_begin(copy, offset, bytes, false, is_zero));
    return bytes;
}
