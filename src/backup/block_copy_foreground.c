/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Saving what a guest is about to overwrite. The happy path: nothing of the
 * range remains, which one look at the bitmap tells. Otherwise each remaining
 * run is claimed and read here, with the guest waiting, and written behind its
 * back.
 */
#include <errno.h>

#include "backup/block_copy_priv.h"
#include "base/bytes.h"

/* The clusters that a range touches. */
static void cover(const struct block_copy *copy,
                  uint64_t offset,
                  uint64_t bytes,
                  uint64_t *ret_start,
                  uint64_t *ret_end)
{
    uint64_t cluster = copy->options.cluster_bytes;

    *ret_start = round_down(offset, cluster);
    *ret_end = min_u64(round_up(offset + bytes, cluster), copy->size_bytes);
}

static bool is_own_discard(const struct block_copy *copy)
{
    LIST_FOREACH(link, &copy->discarding) {
        if (LIST_ENTRY(link, struct copy_task, discard_link)->discarder ==
            co_self()) {
            return true;
        }
    }
    return false;
}

bool block_copy_is_saved(const struct block_copy *copy,
                         uint64_t offset,
                         uint64_t bytes)
{
    uint64_t start, end;

    if (block_copy_is_over(copy) || is_own_discard(copy)) {
        return true;
    }
    cover(copy, offset, bytes, &start, &end);
    for (uint64_t at = start; at < end; at += copy->options.cluster_bytes) {
        if (bitmap_get(copy->remaining, at)) {
            return false;
        }
    }
    return range_lock_is_free(&copy->reading, start, end - start);
}

static bool first_remaining(const struct block_copy *copy,
                            uint64_t offset,
                            uint64_t end,
                            uint64_t *ret_offset,
                            uint64_t *ret_bytes)
{
    if (!bitmap_next_set(copy->remaining, offset, copy->options.chunk_bytes,
                         ret_offset, ret_bytes) ||
        *ret_offset >= end) {
        return false;
    }
    *ret_bytes = min_u64(*ret_bytes, end - *ret_offset);
    return true;
}

static uint64_t deadline_from_now(const struct block_copy *copy)
{
    uint64_t wait_ns = copy->options.save_wait_ns;

    return wait_ns == UINT64_MAX ? UINT64_MAX : loop_now_ns() + wait_ns;
}

/* Waits until the buffer takes `bytes` more. */
static int co_wait_for_room(struct block_copy *copy,
                            uint64_t offset,
                            uint64_t bytes)
{
    uint64_t deadline_ns = deadline_from_now(copy);

    while (!block_copy_is_over(copy) && copy->saved_bytes > 0 &&
           copy->saved_bytes + bytes > BLOCK_COPY_SAVED_BYTES_MAX) {
        if (co_queue_wait_until(&copy->changed, deadline_ns)) {
            continue;
        }
        if (copy->options.guest_pays) {
            return -ETIMEDOUT;
        }
        block_copy_break(copy, BLOCK_COPY_TARGET, offset, -ETIMEDOUT);
    }
    return 0;
}

/* The guest pays: waits for the target. The write itself goes on after the
 * deadline, with the task's own memory. */
static int co_write_and_wait(struct copy_task *task)
{
    struct block_copy *copy = task->copy;
    uint64_t deadline_ns = deadline_from_now(copy);
    int result = 1;

    task->ret_result = &result;
    co_enter(co_copy_task_write, task);
    while (result > 0 && !block_copy_is_over(copy)) {
        if (!co_queue_wait_until(&copy->changed, deadline_ns) && result > 0) {
            task->ret_result = NULL;
            return -ETIMEDOUT;
        }
    }
    if (result > 0) {
        task->ret_result = NULL;
        return 0;
    }
    return result;
}

/* Saves what remains of a run once there is room. */
static int co_save_run(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    struct copy_task *task;
    int ret = co_wait_for_room(copy, offset, bytes);

    if (ret < 0 || block_copy_is_over(copy) ||
        !first_remaining(copy, offset, end, &offset, &bytes)) {
        return ret;
    }
    task = copy_task_begin(copy, offset, bytes, true, false);
    ret = co_copy_task_read(task);
    if (ret < 0) {
        return copy->options.guest_pays ? ret : 0;
    }
    if (copy->options.guest_pays) {
        return co_write_and_wait(task);
    }
    co_enter(co_copy_task_write, task);
    return 0;
}

/* Is a range held by others until it is on the target? Else only while it is
 * read, from the guest's own disk. */
static bool waits_for_target(const struct block_copy *copy)
{
    const struct block_copy_options *options = &copy->options;

    return options->guest_pays || options->is_read || options->discard_source ||
           options->copy_range;
}

int co_block_copy_save(struct block_copy *copy, uint64_t offset, uint64_t bytes)
{
    uint64_t deadline_ns =
        waits_for_target(copy) ? deadline_from_now(copy) : UINT64_MAX;
    uint64_t start, end, run_offset, run_bytes;

    cover(copy, offset, bytes, &start, &end);
    while (!block_copy_is_saved(copy, offset, bytes)) {
        int ret;

        if (first_remaining(copy, start, end, &run_offset, &run_bytes)) {
            ret = co_save_run(copy, run_offset, run_bytes);
            /* Nobody pays for a copy that is over. */
            if (ret < 0 && !block_copy_is_over(copy)) {
                return ret;
            }
            continue;
        }
        /* Others are reading it; they may fail, so look again after. Not with
         * a hold of our own: another guest that waits would take it for a read,
         * and each would wait for the other over and over. */
        if (co_queue_wait_until(&copy->changed, deadline_ns)) {
            continue;
        }
        if (copy->options.guest_pays) {
            return -ETIMEDOUT;
        }
        block_copy_break(copy, BLOCK_COPY_TARGET, start, -ETIMEDOUT);
    }
    return 0;
}
