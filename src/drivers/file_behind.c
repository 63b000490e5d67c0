/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Write-back of our own.
 *
 * The kernel lets written pages lie for many seconds; then a flush finds a
 * gigabyte to wait for, with the disk idle until now. What is marked as to be
 * flushed soon (BLOCK_FLUSHED_SOON) is sent on its way every 8 MiB, so that the
 * disk writes while the rest is still being copied. It only begins: waiting,
 * and whether it worked, stay with the flush.
 */
#include <fcntl.h>

#include "base/bytes.h"
#include "drivers/file_priv.h"

#define STEP_BYTES (8 * MIB)

static int run_sending(void *opaque)
{
    const struct file_state *state = opaque;

    (void)sync_file_range(state->fd, (off_t)state->behind.sent_start,
                          (off_t)state->behind.sent_bytes,
                          SYNC_FILE_RANGE_WRITE);
    return 0;
}

void file_behind_note(struct file_state *state, uint64_t offset, uint64_t bytes)
{
    struct file_behind *behind = &state->behind;
    uint64_t end = offset + bytes;

    if (behind->bytes == 0) {
        behind->start = offset;
        behind->end = end;
    }
    behind->start = min_u64(behind->start, offset);
    behind->end = max_u64(behind->end, end);
    behind->bytes += bytes;
    if (behind->bytes < STEP_BYTES || behind->under_way) {
        return;
    }
    behind->sent_start = behind->start;
    behind->sent_bytes = behind->end - behind->start;
    behind->bytes = 0;
    file_background_start(state, run_sending, &behind->under_way);
}
