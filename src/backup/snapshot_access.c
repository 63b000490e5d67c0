/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver snapshot-access: what the disk below a copy-before-write node held
 * when that was opened.
 *
 * A cluster that is still to be saved is read from the disk, with guests' writes
 * to it held off; one that has been saved is read from the target, and guests
 * need not wait for that. Holding the range tells which: nothing of it is on its
 * way then. What is outside of the node's bitmap, or of a snapshot that is
 * broken, cannot be read (-EACCES). Discarding gives up whole clusters: nobody
 * will read them again, and who does so just then is told after he has.
 */
#include <errno.h>
#include <string.h>

#include "backup/block_copy_priv.h"
#include "backup/cbw_node.h"
#include "base/bytes.h"
#include "base/error.h"

static struct cbw_node *cbw_of(struct block_node *node)
{
    return block_state(block_child(node, "file"));
}

static int co_access_open(struct block_node *node,
                          const struct json_value *options,
                          GError **err)
{
    struct block_node *file = block_child(node, "file");

    (void)options;
    if (block_driver_of(file) != &driver_copy_before_write ||
        block_child(file, "target") == NULL) {
        return error_set(err, -EINVAL,
                         "node '%s': '%s' is no copy-before-write node with a "
                         "target, so it keeps no snapshot",
                         block_name(node), block_name(file));
    }
    block_set_size(node, block_size(file));
    return 0;
}

/* A range of the snapshot that is all in one place. */
struct run {
    struct cbw_node *cbw;
    struct range_hold hold; /* while it is read from the disk */
    uint64_t offset;
    uint64_t bytes;
    struct block_node *place;
};

static bool is_alike(const struct cbw_node *cbw, uint64_t a, uint64_t b)
{
    return block_copy_is_unread(cbw->copy, a) ==
               block_copy_is_unread(cbw->copy, b) &&
           bitmap_get(cbw->access, a) == bitmap_get(cbw->access, b);
}

/* Can it be read, all of it? */
static int check_run(const struct run *run)
{
    const struct block_copy *copy = run->cbw->copy;
    uint64_t end = run->offset + run->bytes;

    if (block_copy_is_over(copy)) {
        return -EACCES;
    }
    for (uint64_t at = run->offset; at < end;
         at = round_down(at, copy->options.cluster_bytes) +
              copy->options.cluster_bytes) {
        if (!bitmap_get(run->cbw->access, at)) {
            return -EACCES;
        }
    }
    return 0;
}

static void let_go(struct cbw_node *cbw, struct range_hold *hold)
{
    range_unlock(&cbw->copy->reading, hold);
    co_queue_wake_all(&cbw->copy->changed); /* guests wait for the range */
}

/* Begins with the run at `offset`, within `bytes`. Ended by run_end(), even if
 * it fails. */
static int co_run_begin(struct run *run,
                        struct cbw_node *cbw,
                        uint64_t offset,
                        uint64_t bytes)
{
    uint64_t cluster = cbw->copy->options.cluster_bytes;
    uint64_t start = round_down(offset, cluster);
    uint64_t end =
        min_u64(offset + bytes, start + cbw->copy->options.chunk_bytes);
    uint64_t next = start + cluster;

    run->cbw = cbw;
    run->offset = offset;
    co_range_lock(&cbw->copy->reading, &run->hold, start, end - start);
    while (next < end && is_alike(cbw, offset, next)) {
        next += cluster;
    }
    run->bytes = min_u64(next, end) - offset;
    run->place =
        block_copy_is_unread(cbw->copy, offset) ? cbw->file : cbw->target;
    if (run->place == cbw->target) {
        let_go(cbw, &run->hold);
    }
    return check_run(run);
}

/* Guests may not have been held off, or the run been discarded, meanwhile. */
static int run_end(struct run *run, int ret)
{
    if (ret == 0) {
        ret = check_run(run);
    }
    if (run->place == run->cbw->file) {
        let_go(run->cbw, &run->hold);
    }
    return ret;
}

/* The vectors of `bytes` from `skip` on; `ret_parts` has room for all. */
static int slice(const struct iovec *iov,
                 int iov_count,
                 uint64_t skip,
                 uint64_t bytes,
                 struct iovec *ret_parts)
{
    int count = 0;

    for (int i = 0; i < iov_count && bytes > 0; i++) {
        uint64_t length = iov[i].iov_len;
        uint64_t part;

        if (skip >= length) {
            skip -= length;
            continue;
        }
        part = min_u64(length - skip, bytes);
        ret_parts[count++] =
            (struct iovec){ (uint8_t *)iov[i].iov_base + skip, part };
        bytes -= part;
        skip = 0;
    }
    return count;
}

static int co_access_preadv(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    g_autofree struct iovec *parts = g_new(struct iovec, (gsize)iov_count);
    struct cbw_node *cbw = cbw_of(node);
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < bytes) {
        struct run run;

        ret = co_run_begin(&run, cbw, offset + done, bytes - done);
        if (ret == 0) {
            ret = co_block_child_preadv(
                run.place, run.offset, run.bytes, parts,
                slice(iov, iov_count, done, run.bytes, parts));
        }
        done += run.bytes;
        ret = run_end(&run, ret);
    }
    return ret;
}

static int co_access_status(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            struct block_extent *ret_extent)
{
    struct run run;
    int ret = co_run_begin(&run, cbw_of(node), offset, bytes);

    if (ret == 0) {
        ret =
            co_block_child_status(run.place, run.offset, run.bytes, ret_extent);
    }
    return run_end(&run, ret);
}

static int co_access_discard(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes)
{
    struct cbw_node *cbw = cbw_of(node);
    struct block_copy *copy = cbw->copy;
    uint64_t cluster = copy->options.cluster_bytes;
    uint64_t start = round_up(offset, cluster);
    uint64_t end = offset + bytes;
    struct range_hold hold;

    end = end == block_size(node) ? end : round_down(end, cluster);
    if (start >= end) {
        return 0;
    }
    co_range_lock(&copy->reading, &hold, start, end - start);
    bitmap_clear(copy->remaining, start, end - start);
    bitmap_clear(cbw->access, start, end - start);
    (void)co_block_child_discard(cbw->target, start, end - start); /* a hint */
    let_go(cbw, &hold);
    return 0;
}

/* The node is open for writing only so that a job can discard. */
static int co_access_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count,
                             unsigned int flags)
{
    (void)node;
    (void)offset;
    (void)bytes;
    (void)iov;
    (void)iov_count;
    (void)flags;
    return -EPERM;
}

static int co_access_write_zeroes(struct block_node *node,
                                  uint64_t offset,
                                  uint64_t bytes,
                                  unsigned int flags)
{
    (void)node;
    (void)offset;
    (void)bytes;
    (void)flags;
    return -EPERM;
}

static void co_access_info(struct block_node *node, struct json_value *image)
{
    co_block_child_info(block_child(node, "file"), image);
}

static const struct block_child_role children[] = {
    { .name = "file", .required = true, .read_only = true },
    { .name = NULL },
};

const struct block_driver driver_snapshot_access = {
    .name = "snapshot-access",
    .doc = "What the disk below a copy-before-write node held when that was "
           "opened.",
    .children = children,
    .co_open = co_access_open,
    .co_preadv = co_access_preadv,
    .co_pwritev = co_access_pwritev,
    .co_write_zeroes = co_access_write_zeroes,
    .co_discard = co_access_discard,
    .co_status = co_access_status,
    .co_info = co_access_info,
};
