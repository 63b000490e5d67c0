/* SPDX-License-Identifier: BSD-3-Clause */
/* What a job copies, told to clients that keep raw increments. */
#include <errno.h>

#include "backup/backup_priv.h"
#include "base/bytes.h"
#include "base/error.h"
#include "loop/coroutine.h"

/* The run of whole clusters that the job copies at or after `start`. */
static bool next_run(struct backup *backup,
                     uint64_t start,
                     uint64_t *ret_offset,
                     uint64_t *ret_end)
{
    uint64_t size_bytes = block_size(backup->source);
    uint64_t cluster = backup->cluster_bytes;
    uint64_t offset, bytes;
    struct bitmap *bits;

    if (start >= size_bytes) {
        return false;
    }
    if (backup->options.sync != BACKUP_SYNC_BITMAP) {
        *ret_offset = start;
        *ret_end = size_bytes;
        return true;
    }
    bits = dirty_bitmap_bits(backup->bitmap);
    if (!bitmap_next_set(bits, start, UINT64_MAX, &offset, &bytes)) {
        return false;
    }
    *ret_offset = max_u64(start, round_down(offset, cluster));
    *ret_end = min_u64(round_up(offset + bytes, cluster), size_bytes);
    /* Runs that share a cluster, or touch once rounded, are one. */
    while (*ret_end < size_bytes &&
           bitmap_next_set(bits, *ret_end, UINT64_MAX, &offset, &bytes) &&
           round_down(offset, cluster) <= *ret_end) {
        *ret_end = min_u64(round_up(offset + bytes, cluster), size_bytes);
    }
    return true;
}

static struct json_value *list_runs(struct backup *backup,
                                    uint64_t start,
                                    uint64_t limit,
                                    uint64_t *ret_next)
{
    struct json_value *extents = json_list_new();
    uint64_t offset, end;

    *ret_next = UINT64_MAX;
    start = round_down(start, backup->cluster_bytes);
    while (next_run(backup, start, &offset, &end)) {
        struct json_value *extent;

        if (json_list_length(extents) >= limit) {
            *ret_next = offset;
            break;
        }
        extent = json_dict_new();
        json_dict_set_uint(extent, "offset", offset);
        json_dict_set_uint(extent, "length", end - offset);
        json_list_append(extents, extent);
        start = end;
    }
    return extents;
}

int co_backup_extents(struct job *job,
                      uint64_t start,
                      uint64_t limit,
                      struct json_value **ret_extents,
                      uint64_t *ret_next,
                      GError **err)
{
    struct backup *backup = job_opaque(job);
    struct loop *main = loop_current();
    bool stands;

    backup->queries++;
    co_move(block_home(backup->source));
    stands =
        backup->options.sync != BACKUP_SYNC_BITMAP || backup->bitmap != NULL;
    if (stands) {
        *ret_extents = list_runs(backup, start, limit, ret_next);
    }
    co_move(main);
    backup->queries--;
    co_queue_wake_all(&backup->query_ended);
    if (!stands) {
        return error_set(err, -EPERM,
                         "The backup of node '%s' has just been finalized",
                         block_name(backup->source));
    }
    return 0;
}
