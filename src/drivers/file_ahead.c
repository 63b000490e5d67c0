/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Read-ahead of our own.
 *
 * The kernel's is switched off (POSIX_FADV_RANDOM), since it fills the page
 * cache with large folios, in which small writes are dear. Once reads follow
 * each other, about in order, the next 4 MiB are asked for, and so on whenever
 * less than that is left, one asking at a time.
 */
#include <fcntl.h>

#include "base/bytes.h"
#include "drivers/file_priv.h"

/* Reads of a stream may come this much out of order (a queue of requests). */
#define STREAM_SLACK_BYTES (1 * MIB)
#define STREAM_START_BYTES (256 * KIB)
#define STEP_BYTES         (4 * MIB)

static int run_asking(void *opaque)
{
    const struct file_state *state = opaque;

    (void)posix_fadvise(state->fd, (off_t)state->ahead.asked_offset,
                        (off_t)STEP_BYTES, POSIX_FADV_WILLNEED);
    return 0;
}

void file_ahead_note(struct file_state *state, uint64_t offset, uint64_t bytes)
{
    struct file_ahead *ahead = &state->ahead;
    uint64_t end = offset + bytes;

    if (offset + STREAM_SLACK_BYTES < ahead->next ||
        offset > ahead->next + STREAM_SLACK_BYTES) {
        ahead->next = end;
        ahead->run = bytes;
        ahead->horizon = end;
        return;
    }
    ahead->next = max_u64(ahead->next, end);
    ahead->run += bytes;
    if (ahead->run < STREAM_START_BYTES || ahead->under_way ||
        ahead->next + STEP_BYTES < ahead->horizon ||
        ahead->horizon >= state->size_bytes) {
        return;
    }
    ahead->asked_offset = max_u64(ahead->horizon, ahead->next);
    ahead->horizon = ahead->asked_offset + STEP_BYTES;
    file_background_start(state, run_asking, &ahead->under_way);
}
