/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine's state, and its transfers. Each transfer is a small coroutine over
 * one task: read, look for zeroes, write. A write that failed and is to be
 * retried waits, buffer in hand, until the copy goes on.
 */
#include "backup/block_copy.h"

#include <errno.h>
#include <string.h>

#include "backup/block_copy_priv.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/trace.h"
#include "block/driver.h"
#include "block/request.h"

/* Tasks kept, with their buffers, for the next transfers. */
#define SPARE_TASKS_MAX 32

struct block_copy *block_copy_new(struct block_node *source,
                                  struct block_node *target,
                                  const struct block_copy_options *options,
                                  const struct block_copy_events *events,
                                  GError **err)
{
    g_autoptr(block_copy) copy = g_new0(struct block_copy, 1);

    copy->source = source;
    copy->target = target;
    copy->size_bytes = block_size(source);
    copy->options = *options;
    copy->events = *events;
    copy->retry_from = UINT64_MAX;
    range_lock_init(&copy->reading);
    list_init(&copy->waiting);
    list_init(&copy->discarding);
    list_init(&copy->spare);
    co_queue_init(&copy->changed);
    copy->no_copy_range = !options->copy_range;
    copy->remaining = bitmap_new(copy->size_bytes, options->cluster_bytes, err);
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
    uint64_t cluster = copy->options.cluster_bytes;
    uint64_t bytes = bitmap_count(copy->remaining) * cluster;
    uint64_t tail = copy->size_bytes & (cluster - 1);

    if (tail != 0 && bitmap_get(copy->remaining, copy->size_bytes - 1)) {
        bytes -= cluster - tail;
    }
    return bytes;
}

/* --- State ---------------------------------------------------------------- */

bool block_copy_is_over(const struct block_copy *copy)
{
    return copy->stopped || copy->error != 0;
}

bool block_copy_is_done(const struct block_copy *copy)
{
    return copy->tasks == 0 && bitmap_count(copy->remaining) == 0;
}

bool block_copy_is_held(const struct block_copy *copy)
{
    return copy->held;
}

void block_copy_go_on(struct block_copy *copy)
{
    copy->held = false;
    co_queue_wake_all(&copy->changed);
}

void block_copy_stop(struct block_copy *copy)
{
    copy->stopped = true;
    co_queue_wake_all(&copy->changed);
}

void co_block_copy_wait(struct block_copy *copy)
{
    co_queue_wait(&copy->changed);
}

void co_block_copy_settle(struct block_copy *copy)
{
    while (copy->tasks > 0) {
        co_queue_wait(&copy->changed);
    }
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

static void set_error(struct block_copy *copy,
                      enum block_copy_side side,
                      uint64_t offset,
                      int error)
{
    if (copy->error == 0) {
        copy->error = error;
        copy->error_side = side;
        copy->error_offset = offset;
        if (copy->options.target_over_source) {
            block_set_read_error(copy->target, -EIO);
        }
    }
    co_queue_wake_all(&copy->changed);
}

void block_copy_break(struct block_copy *copy,
                      enum block_copy_side side,
                      uint64_t offset,
                      int error)
{
    if (copy->error == 0) {
        trace_copy_break(block_name(copy->source), block_name(copy->target),
                         side == BLOCK_COPY_SOURCE ? "source" : "target",
                         offset, error);
        (void)copy->events.failed(copy->events.opaque, side, error, true);
    }
    set_error(copy, side, offset, error);
}

/* A background transfer has failed. Returns whether it is to be retried. */
static bool is_retried(struct copy_task *task,
                       enum block_copy_side side,
                       int error)
{
    struct block_copy *copy = task->copy;

    if (block_copy_is_over(copy)) {
        return false;
    }
    if (!copy->events.failed(copy->events.opaque, side, error, false)) {
        set_error(copy, side, task->offset, error);
        return false;
    }
    copy->held = true;
    co_queue_wake_all(&copy->changed);
    return true;
}

/* --- Tasks ---------------------------------------------------------------- */

static struct copy_task *task_take(struct block_copy *copy, size_t need)
{
    struct copy_task *task;

    LIST_FOREACH(link, &copy->spare) {
        task = LIST_ENTRY(link, struct copy_task, link);
        if (task->buffer_bytes >= need) {
            list_remove(&task->link);
            copy->spare_count--;
            return task;
        }
    }
    task = g_new0(struct copy_task, 1);
    list_init(&task->link);
    list_init(&task->discard_link);
    task->copy = copy;
    task->buffer = need > 0 ? g_aligned_alloc(1, need, 4096) : NULL;
    task->buffer_bytes = need;
    return task;
}

struct copy_task *copy_task_begin(struct block_copy *copy,
                                  uint64_t offset,
                                  uint64_t bytes,
                                  bool foreground,
                                  bool is_zero)
{
    size_t need = is_zero ? 0 : round_up(bytes, copy->options.cluster_bytes);
    struct copy_task *task = task_take(copy, need);

    task->offset = offset;
    task->bytes = bytes;
    task->foreground = foreground;
    task->is_zero = is_zero;
    task->ret_result = NULL;
    task->holds = false;
    bitmap_clear(copy->remaining, offset, bytes);
    copy->tasks++;
    if (copy->options.is_inner) {
        block_background_begin(copy->target);
    }
    if (foreground) {
        copy->saved_bytes += bytes;
    } else if (!is_zero) {
        copy->in_flight_bytes += bytes;
    }
    return task;
}

/* Others may overwrite its range, or look whether they may. */
static void task_let_go(struct copy_task *task)
{
    if (task->holds) {
        range_unlock(&task->copy->reading, &task->hold);
        task->holds = false;
    }
}

/* The task's clusters are done, or remain. */
static void task_end(struct copy_task *task, int result)
{
    struct block_copy *copy = task->copy;

    copy->tasks--;
    if (copy->options.is_inner) {
        block_background_end(copy->target);
    }
    if (task->foreground) {
        copy->saved_bytes -= task->bytes;
    } else if (!task->is_zero) {
        copy->in_flight_bytes -= task->bytes;
    }
    if (result < 0) {
        bitmap_set(copy->remaining, task->offset, task->bytes);
        copy->retry_from = min_u64(copy->retry_from, task->offset);
    } else {
        copy->events.copied(copy->events.opaque, task->bytes);
    }
    task_let_go(task);
    if (task->ret_result != NULL) {
        *task->ret_result = result;
    }
    if (copy->spare_count < SPARE_TASKS_MAX) {
        list_prepend(&copy->spare, &task->link);
        copy->spare_count++;
    } else {
        task_free(task);
    }
    co_queue_wake_all(&copy->changed);
}

static int co_read(struct copy_task *task)
{
    struct block_copy *copy = task->copy;
    const struct iovec iov = { task->buffer, task->bytes };

    if (task->foreground) {
        /* Part of the guest's write, which has passed the gates. */
        return co_block_child_preadv(copy->source, task->offset, task->bytes,
                                     &iov, 1);
    }
    return co_block_preadv(copy->source, task->offset, task->bytes, &iov, 1);
}

/* Is the range held until it is on the target? */
static bool is_kept(const struct copy_task *task)
{
    const struct block_copy_options *options = &task->copy->options;

    return options->is_read ||
           (task->foreground ? options->guest_pays : options->discard_source);
}

static void co_task_hold(struct copy_task *task)
{
    list_append(&task->copy->waiting, &task->link);
    co_range_lock(&task->copy->reading, &task->hold, task->offset, task->bytes);
    list_remove(&task->link);
    task->holds = true;
}

/* A claimed cluster may be held by somebody who came before the claim. */
bool block_copy_is_unread(const struct block_copy *copy, uint64_t offset)
{
    if (bitmap_get(copy->remaining, offset)) {
        return true;
    }
    LIST_FOREACH(link, &copy->waiting) {
        const struct copy_task *task = LIST_ENTRY(link, struct copy_task, link);

        if (offset >= task->offset && offset - task->offset < task->bytes) {
            return true;
        }
    }
    return false;
}

int co_copy_task_read(struct copy_task *task)
{
    struct block_copy *copy = task->copy;
    uint64_t offset = task->offset;
    int ret;

    co_task_hold(task);
    ret = co_read(task);
    if (ret < 0) {
        if (!task->foreground) {
            (void)is_retried(task, BLOCK_COPY_SOURCE, ret);
        } else if (!copy->options.guest_pays) {
            block_copy_break(copy, BLOCK_COPY_SOURCE, offset, ret);
        }
    } else if (block_copy_is_over(copy)) {
        /* Nobody held guests off that read any more: what it gave may be newer
         * than the instant. Nothing has failed, but it is no copy. */
        ret = -ECANCELED;
    }
    if (ret < 0) {
        task_end(task, ret);
    } else if (!is_kept(task)) {
        task_let_go(task);
        co_queue_wake_all(&copy->changed); /* guests wait for the range */
    }
    return ret;
}

static bool is_all_zero(const uint8_t *buffer, size_t bytes)
{
    return buffer[0] == 0 && memcmp(buffer, buffer + 1, bytes - 1) == 0;
}

static int co_target_status(const struct block_copy *copy,
                            uint64_t offset,
                            uint64_t bytes,
                            struct block_extent *ret)
{
    return copy->options.is_inner
               ? co_block_child_status(copy->target, offset, bytes, ret)
               : co_block_status(copy->target, offset, bytes, ret);
}

static int co_target_zero(const struct block_copy *copy,
                          uint64_t offset,
                          uint64_t bytes)
{
    return copy->options.is_inner
               ? co_block_child_write_zeroes(copy->target, offset, bytes,
                                             BLOCK_MAY_UNMAP)
               : co_block_write_zeroes(copy->target, offset, bytes,
                                       BLOCK_MAY_UNMAP);
}

/* Writes a part of the task's buffer. */
static int co_target_write(const struct copy_task *task,
                           uint64_t start,
                           uint64_t bytes)
{
    struct block_node *target = task->copy->target;
    const struct iovec iov = { task->buffer + start, bytes };
    uint64_t offset = task->offset + start;
    unsigned int flags = BLOCK_FLUSHED_SOON |
                         (task->copy->options.compress ? BLOCK_COMPRESS : 0U);

    return task->copy->options.is_inner
               ? co_block_child_pwritev(target, offset, bytes, &iov, 1, flags)
               : co_block_pwritev(target, offset, bytes, &iov, 1, flags);
}

/* Makes a range of the target read as zeroes. What does so already is left
 * alone: a new target stays sparse, whatever it thinks of unmapping. Except for
 * what does so only because of what is, or will be, below it. */
static int co_zero_target(const struct block_copy *copy,
                          uint64_t offset,
                          uint64_t end)
{
    unsigned int enough =
        BLOCK_STATUS_ZERO |
        (copy->options.target_over_source || copy->options.target_is_layer
             ? BLOCK_STATUS_ALLOCATED
             : 0U);

    while (offset < end) {
        struct block_extent extent;
        int ret = co_target_status(copy, offset, end - offset, &extent);

        if (ret < 0) {
            extent = (struct block_extent){ .bytes = end - offset };
        }
        if ((extent.status & enough) != enough) {
            ret = co_target_zero(copy, offset, extent.bytes);
            if (ret < 0) {
                return ret;
            }
        }
        offset += extent.bytes;
    }
    return 0;
}

/* How far the clusters from `start` on are all zeroes, or all are not. A target
 * without clusters of its own gains nothing by being written in pieces. */
static uint64_t same_kind(const struct copy_task *task,
                          uint64_t start,
                          bool *ret_is_zero)
{
    const struct block_copy *copy = task->copy;
    uint64_t piece = block_limits(copy->target)->cluster_bytes == 0
                         ? task->bytes
                         : copy->options.cluster_bytes;
    uint64_t end = min_u64(start + piece, task->bytes);

    *ret_is_zero = is_all_zero(task->buffer + start, end - start);
    while (end < task->bytes) {
        uint64_t next = min_u64(end + piece, task->bytes);

        if (is_all_zero(task->buffer + end, next - end) != *ret_is_zero) {
            break;
        }
        end = next;
    }
    return end - start;
}

static int co_write(struct copy_task *task)
{
    int ret = 0;

    if (task->is_zero) {
        return co_zero_target(task->copy, task->offset,
                              task->offset + task->bytes);
    }
    for (uint64_t done = 0; ret == 0 && done < task->bytes;) {
        bool is_zero;
        uint64_t bytes = same_kind(task, done, &is_zero);
        uint64_t offset = task->offset + done;

        ret = is_zero ? co_zero_target(task->copy, offset, offset + bytes)
                      : co_target_write(task, done, bytes);
        done += bytes;
    }
    return ret;
}

/* The range is held, and what writes to it waits: not this. */
static void co_discard_source(struct copy_task *task)
{
    struct block_copy *copy = task->copy;

    task->discarder = co_self();
    list_append(&copy->discarding, &task->discard_link);
    /* A hint, which may fail. */
    (void)co_block_discard(copy->source, task->offset, task->bytes);
    list_remove(&task->discard_link);
}

/* Whose range is on the target. */
static void co_settle_task(struct copy_task *task)
{
    struct block_copy *copy = task->copy;

    if (copy->options.target_over_source) {
        co_block_wait_for_reads(copy->target);
    }
    if (copy->options.discard_source && !task->foreground && task->holds) {
        co_discard_source(task);
    }
}

void co_copy_task_write(void *opaque)
{
    struct copy_task *task = opaque;
    struct block_copy *copy = task->copy;
    int ret;

    while ((ret = co_write(task)) < 0) {
        if (task->foreground) {
            if (!copy->options.guest_pays) {
                block_copy_break(copy, BLOCK_COPY_TARGET, task->offset, ret);
            }
            break;
        }
        if (!is_retried(task, BLOCK_COPY_TARGET, ret)) {
            break;
        }
        while (copy->held && !block_copy_is_over(copy)) {
            co_queue_wait(&copy->changed);
        }
        if (block_copy_is_over(copy)) {
            break;
        }
    }
    if (ret == 0) {
        co_settle_task(task);
    }
    task_end(task, ret);
}

/* The kernel copies, if it can. The range is held, so the source does not change
 * under it. */
static int co_copy_range(struct copy_task *task)
{
    struct block_copy *copy = task->copy;
    uint64_t file_offset;
    int fd;
    int ret = block_try_map(copy->source, task->offset, task->bytes, &fd,
                            &file_offset);

    if (ret == 0) {
        ret = co_block_pwrite_from_file(copy->target, task->offset, task->bytes,
                                        fd, file_offset);
    }
    if (ret == 0 && block_copy_is_over(copy)) {
        ret = -ECANCELED; /* as what was read then */
    }
    return ret;
}

/* Returns whether it has been done, and the task has ended. */
static bool co_try_copy_range(struct copy_task *task)
{
    if (task->copy->no_copy_range) {
        return false;
    }
    co_task_hold(task);
    if (co_copy_range(task) < 0) {
        task->copy->no_copy_range = true;
        task_let_go(task);
        return false;
    }
    co_settle_task(task);
    task_end(task, 0);
    return true;
}

void co_copy_task_transfer(void *opaque)
{
    struct copy_task *task = opaque;

    if (task->is_zero) {
        if (is_kept(task)) {
            co_task_hold(task);
        }
        co_copy_task_write(task);
    } else if (!co_try_copy_range(task) && co_copy_task_read(task) == 0) {
        co_copy_task_write(task);
    }
}
