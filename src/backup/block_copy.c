/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Each transfer is a small coroutine over one task: read, look for zeroes,
 * write. The source's state of a cluster that nobody has claimed cannot have
 * changed since the instant, since whoever changes it must save it first; so
 * an extent learned from the source stays true for every remaining cluster.
 */
#include "backup/block_copy.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/list.h"
#include "block/driver.h"
#include "block/request.h"
#include "loop/co_lock.h"

/* Runs at least this long are worth asking the source for holes. */
#define ASK_STATUS_BYTES BLOCK_COPY_CHUNK_BYTES
/* Zeroes are written in pieces of at most this size. */
#define ZERO_RUN_BYTES GIB
/* Buffers kept for the next transfer. */
#define SPARE_BUFFERS_MAX 32

struct block_copy {
    struct block_node *source; /* borrowed */
    struct block_node *target; /* borrowed */
    uint64_t size_bytes;
    uint64_t cluster_bytes;
    struct block_copy_events events;
    struct bitmap *remaining;

    /* Source ranges being read: a guest's write to them has to wait. */
    struct range_lock reading;
    struct list spare; /* idle tasks with their buffers */
    size_t spare_count;
    unsigned int tasks;             /* all transfers under way */
    uint64_t in_flight_bytes;       /* memory of background transfers */
    uint64_t saved_bytes;           /* memory of foreground transfers */
    struct co_queue transfer_ended; /* a transfer ended, or stop */

    /* The extent of the source last asked about. */
    uint64_t extent_start;
    uint64_t extent_end;
    bool extent_is_zero;

    bool stopped;
    int error; /* the first one */
    enum block_copy_side error_side;
    uint64_t error_offset;
};

struct copy_task {
    struct list link;
    struct block_copy *copy;
    uint64_t offset;
    uint64_t bytes;
    bool foreground;
    bool is_zero; /* known without reading */
    uint8_t *buffer;
    size_t buffer_bytes;
};

struct block_copy *block_copy_new(struct block_node *source,
                                  struct block_node *target,
                                  uint64_t cluster_bytes,
                                  const struct block_copy_events *events,
                                  GError **err)
{
    g_autoptr(block_copy) copy = g_new0(struct block_copy, 1);

    copy->source = source;
    copy->target = target;
    copy->size_bytes = block_size(source);
    copy->cluster_bytes = cluster_bytes;
    copy->events = *events;
    range_lock_init(&copy->reading);
    list_init(&copy->spare);
    co_queue_init(&copy->transfer_ended);
    copy->remaining = bitmap_new(copy->size_bytes, cluster_bytes, err);
    if (copy->remaining == NULL) {
        return NULL;
    }
    return g_steal_pointer(&copy);
}

static void task_free(struct copy_task *task)
{
    g_aligned_free(task->buffer);
    g_free(task);
}

void block_copy_free(struct block_copy *copy)
{
    struct list *link;

    if (copy == NULL) {
        return;
    }
    g_assert(copy->tasks == 0);
    while ((link = list_take_first(&copy->spare)) != NULL) {
        task_free(LIST_ENTRY(link, struct copy_task, link));
    }
    bitmap_free(copy->remaining);
    g_free(copy);
}

struct bitmap *block_copy_remaining(struct block_copy *copy)
{
    return copy->remaining;
}

uint64_t block_copy_remaining_bytes(const struct block_copy *copy)
{
    uint64_t bytes = bitmap_count(copy->remaining) * copy->cluster_bytes;
    uint64_t tail = copy->size_bytes & (copy->cluster_bytes - 1);

    if (tail != 0 && bitmap_get(copy->remaining, copy->size_bytes - 1)) {
        bytes -= copy->cluster_bytes - tail;
    }
    return bytes;
}

int block_copy_error(const struct block_copy *copy,
                     enum block_copy_side *ret_side,
                     uint64_t *ret_offset)
{
    if (copy->error != 0) {
        *ret_side = copy->error_side;
        *ret_offset = copy->error_offset;
    }
    return copy->error;
}

void block_copy_stop(struct block_copy *copy)
{
    copy->stopped = true;
    co_queue_wake_all(&copy->transfer_ended);
}

void co_block_copy_settle(struct block_copy *copy)
{
    while (copy->tasks > 0) {
        co_queue_wait(&copy->transfer_ended);
    }
}

bool block_copy_is_over(const struct block_copy *copy)
{
    return copy->stopped || copy->error != 0;
}

static void fail(struct block_copy *copy,
                 enum block_copy_side side,
                 uint64_t offset,
                 int error,
                 bool foreground)
{
    if (copy->error == 0) {
        copy->error = error;
        copy->error_side = side;
        copy->error_offset = offset;
        copy->events.failed(copy->events.opaque, side, foreground);
    }
    co_queue_wake_all(&copy->transfer_ended);
}

/* --- Transfers ---------------------------------------------------------- */

/* A task over [offset, offset + bytes), claimed. Its buffer has the size of a
 * whole chunk in the background and of what is needed, rounded up to clusters,
 * in the foreground; spare ones serve both where they are large enough. */
static struct copy_task *task_begin(struct block_copy *copy,
                                    uint64_t offset,
                                    uint64_t bytes,
                                    bool foreground,
                                    bool is_zero)
{
    struct copy_task *task = NULL;
    size_t need = is_zero ? 0 : round_up(bytes, copy->cluster_bytes);

    LIST_FOREACH(link, &copy->spare) {
        struct copy_task *spare = LIST_ENTRY(link, struct copy_task, link);

        if (spare->buffer_bytes >= need) {
            task = spare;
            list_remove(&task->link);
            copy->spare_count--;
            break;
        }
    }
    if (task == NULL) {
        task = g_new0(struct copy_task, 1);
        list_init(&task->link);
        task->copy = copy;
        task->buffer = need > 0 ? g_aligned_alloc(1, need, 4096) : NULL;
        task->buffer_bytes = need;
    }
    task->offset = offset;
    task->bytes = bytes;
    task->foreground = foreground;
    task->is_zero = is_zero;

    bitmap_clear(copy->remaining, offset, bytes);
    copy->tasks++;
    if (foreground) {
        copy->saved_bytes += bytes;
    } else if (!is_zero) {
        copy->in_flight_bytes += bytes;
    }
    return task;
}

/* The transfer is over, in whichever way; the task is for the next one. */
static void task_release(struct copy_task *task)
{
    struct block_copy *copy = task->copy;

    copy->tasks--;
    if (task->foreground) {
        copy->saved_bytes -= task->bytes;
    } else if (!task->is_zero) {
        copy->in_flight_bytes -= task->bytes;
    }
    if (copy->spare_count < SPARE_BUFFERS_MAX) {
        list_prepend(&copy->spare, &task->link);
        copy->spare_count++;
    } else {
        task_free(task);
    }
    co_queue_wake_all(&copy->transfer_ended);
}

static void task_end(struct copy_task *task, enum block_copy_side side, int ret)
{
    struct block_copy *copy = task->copy;

    if (ret < 0) {
        bitmap_set(copy->remaining, task->offset, task->bytes);
        fail(copy, side, task->offset, ret, task->foreground);
    } else {
        copy->events.copied(copy->events.opaque, task->bytes);
    }
    task_release(task);
}

/* Is what has been read the old content? Once the copy is over nobody waits for
 * a read any more, and it may have met a guest's write: then the clusters
 * remain to be copied, though nothing has failed. */
static bool task_has_read(struct copy_task *task, int ret)
{
    struct block_copy *copy = task->copy;

    if (ret < 0) {
        task_end(task, BLOCK_COPY_SOURCE, ret);
        return false;
    }
    if (block_copy_is_over(copy)) {
        bitmap_set(copy->remaining, task->offset, task->bytes);
        task_release(task);
        return false;
    }
    return true;
}

/* Reads the old content; guests may overwrite it once this returns. */
static int co_task_read(struct copy_task *task)
{
    struct block_copy *copy = task->copy;
    struct range_hold hold;
    int ret;

    co_range_lock(&copy->reading, &hold, task->offset, task->bytes);
    if (task->foreground) {
        /* Part of the guest's write, which has passed the gates. */
        const struct iovec iov = { task->buffer, task->bytes };

        ret = co_block_child_preadv(copy->source, task->offset, task->bytes,
                                    &iov, 1);
    } else {
        ret = co_block_pread(copy->source, task->offset, task->bytes,
                             task->buffer);
    }
    range_unlock(&copy->reading, &hold);
    return ret;
}

static bool is_all_zero(const uint8_t *buffer, size_t bytes)
{
    return buffer[0] == 0 && memcmp(buffer, buffer + 1, bytes - 1) == 0;
}

/* Makes a range of the target read as zeroes. What does so already is left
 * alone: a new target stays sparse, whatever it thinks of unmapping. */
static int co_zero_target(struct block_node *target,
                          uint64_t offset,
                          uint64_t end)
{
    while (offset < end) {
        struct block_extent extent;
        int ret = co_block_status(target, offset, end - offset, &extent);

        if (ret < 0) {
            extent = (struct block_extent){ .bytes = end - offset };
        }
        if ((extent.status & BLOCK_STATUS_ZERO) == 0) {
            ret = co_block_write_zeroes(target, offset, extent.bytes,
                                        BLOCK_MAY_UNMAP);
            if (ret < 0) {
                return ret;
            }
        }
        offset += extent.bytes;
    }
    return 0;
}

static int co_task_write(struct copy_task *task)
{
    struct block_node *target = task->copy->target;

    if (task->is_zero || is_all_zero(task->buffer, task->bytes)) {
        return co_zero_target(target, task->offset, task->offset + task->bytes);
    }
    return co_block_pwrite(target, task->offset, task->bytes, task->buffer, 0);
}

static void co_run_write(void *opaque)
{
    struct copy_task *task = opaque;

    task_end(task, BLOCK_COPY_TARGET, co_task_write(task));
}

static void co_run_transfer(void *opaque)
{
    struct copy_task *task = opaque;

    if (task->is_zero || task_has_read(task, co_task_read(task))) {
        co_run_write(task);
    }
}

/* --- Background --------------------------------------------------------- */

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
    uint64_t end = offset + run;
    bool known = offset >= copy->extent_start && offset < copy->extent_end;

    *ret_is_zero = false;
    if (known && copy->extent_is_zero) {
        uint64_t zero_end = min_u64(copy->extent_end, end);

        if (zero_end < copy->size_bytes) {
            zero_end = round_down(zero_end, copy->cluster_bytes);
        }
        if (zero_end > offset) {
            *ret_is_zero = true;
            return zero_end - offset;
        }
        end = min_u64(end, offset + copy->cluster_bytes);
    } else if (known) {
        end = min_u64(end, round_up(copy->extent_end, copy->cluster_bytes));
    }
    return min_u64(end - offset,
                   max_u64(BLOCK_COPY_CHUNK_BYTES, copy->cluster_bytes));
}

uint64_t co_block_copy_step(struct block_copy *copy, uint64_t *cursor)
{
    uint64_t offset;
    uint64_t run;
    uint64_t bytes;
    bool is_zero;

    while (!block_copy_is_over(copy) &&
           (copy->tasks >= BLOCK_COPY_TASKS_MAX ||
            copy->in_flight_bytes >= BLOCK_COPY_IN_FLIGHT_BYTES)) {
        co_queue_wait(&copy->transfer_ended);
    }
    if (block_copy_is_over(copy) ||
        !bitmap_next_set(copy->remaining, *cursor, ZERO_RUN_BYTES, &offset,
                         &run)) {
        return 0;
    }
    if (run >= ASK_STATUS_BYTES) {
        co_learn_extent(copy, offset, run);
        /* Guests may have been served meanwhile: look again. */
        if (block_copy_is_over(copy) ||
            !bitmap_next_set(copy->remaining, offset, ZERO_RUN_BYTES, &offset,
                             &run)) {
            return 0;
        }
    }
    bytes = transfer_bytes(copy, offset, run, &is_zero);
    *cursor = offset + bytes;
    co_enter(co_run_transfer, task_begin(copy, offset, bytes, false, is_zero));
    return bytes;
}

/* --- Foreground --------------------------------------------------------- */

static bool first_remaining(const struct block_copy *copy,
                            uint64_t offset,
                            uint64_t end,
                            uint64_t *ret_offset,
                            uint64_t *ret_bytes)
{
    uint64_t chunk = max_u64(BLOCK_COPY_CHUNK_BYTES, copy->cluster_bytes);

    return bitmap_next_set(copy->remaining, offset, chunk, ret_offset,
                           ret_bytes) &&
           *ret_offset < end;
}

/* The clusters that a range touches. */
static void cover(const struct block_copy *copy,
                  uint64_t offset,
                  uint64_t bytes,
                  uint64_t *ret_start,
                  uint64_t *ret_end)
{
    *ret_start = round_down(offset, copy->cluster_bytes);
    *ret_end = min_u64(round_up(offset + bytes, copy->cluster_bytes),
                       copy->size_bytes);
}

bool block_copy_is_saved(const struct block_copy *copy,
                         uint64_t offset,
                         uint64_t bytes)
{
    uint64_t start, end;

    if (block_copy_is_over(copy)) {
        return true;
    }
    cover(copy, offset, bytes, &start, &end);
    for (uint64_t at = start; at < end; at += copy->cluster_bytes) {
        if (bitmap_get(copy->remaining, at)) {
            return false;
        }
    }
    return range_lock_is_free(&copy->reading, start, end - start);
}

/* Waits until the buffer takes `bytes` more; false: the copy is over. */
static bool co_wait_for_room(struct block_copy *copy,
                             uint64_t offset,
                             uint64_t bytes)
{
    uint64_t deadline_ns = loop_now_ns() + BLOCK_COPY_SAVE_WAIT_NS;

    while (!block_copy_is_over(copy) && copy->saved_bytes > 0 &&
           copy->saved_bytes + bytes > BLOCK_COPY_SAVED_BYTES_MAX) {
        if (!co_queue_wait_until(&copy->transfer_ended, deadline_ns)) {
            fail(copy, BLOCK_COPY_TARGET, offset, -ETIMEDOUT, true);
        }
    }
    return !block_copy_is_over(copy);
}

/* Saves the clusters of one run, as far as they are still to be saved once
 * there is room. */
static void co_save_run(struct block_copy *copy,
                        uint64_t offset,
                        uint64_t bytes)
{
    uint64_t end = min_u64(offset + bytes, copy->size_bytes);
    struct copy_task *task;

    if (!co_wait_for_room(copy, offset, bytes) ||
        !first_remaining(copy, offset, end, &offset, &bytes)) {
        return;
    }
    task = task_begin(copy, offset, min_u64(bytes, end - offset), true, false);
    if (task_has_read(task, co_task_read(task))) {
        co_enter(co_run_write, task);
    }
}

void co_block_copy_save(struct block_copy *copy,
                        uint64_t offset,
                        uint64_t bytes)
{
    uint64_t start, end, run_offset, run_bytes;
    struct range_hold hold;

    cover(copy, offset, bytes, &start, &end);
    while (!block_copy_is_over(copy) &&
           first_remaining(copy, start, end, &run_offset, &run_bytes)) {
        co_save_run(copy, run_offset, min_u64(run_bytes, end - run_offset));
    }
    /* What others have claimed may still be being read. */
    co_range_lock(&copy->reading, &hold, start, end - start);
    range_unlock(&copy->reading, &hold);
}
