/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A write to clusters that have no place of their own yet, or whose place holds
 * no data yet.
 *
 *     find a run of neighbouring clusters of one kind, within one slice
 *     allocate their places, if they need new ones         (a run of the file)
 *     read the fill, if it is not known to be zeroes
 *     write fill, data, fill                               (one write)
 *     change the entries; free, later, the places that were left
 *
 * The entries change in memory after the data is written, and reach the file in
 * a commit after the data is durable. If anything fails before, what was
 * allocated is given back and nothing has changed.
 */
#include "drivers/qcow2/allocating_write.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/bytes.h"
#include "drivers/qcow2/fill.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/refcount.h"

/* Zeroes are written with the data up to this length, else by themselves. */
#define ZERO_BYTES (64 * KIB)

static const uint8_t zeroes[ZERO_BYTES] __attribute__((aligned(4096)));

struct allocating_write {
    struct qcow2_image *image;
    struct qcow2_slice slice;
    uint64_t offset; /* of the data: [offset, end) */
    uint64_t end;
    uint64_t start; /* of the first cluster */
    uint64_t clusters;
    bool in_place; /* the host clusters stay */
    uint64_t host_offset;
    bool host_is_zero; /* new and never written to */
    struct qcow2_entry first;
    struct qcow2_entry last;
    struct qcow2_fill head;
    struct qcow2_fill tail;
    unsigned int flags; /* of the data, as of co_qcow2_write_data() */
};

static bool keeps_place(const struct qcow2_image *image,
                        const struct qcow2_entry *entry)
{
    return !entry->compressed && entry->copied &&
           qcow2_entry_has_place(image, entry);
}

/* Finds how far the clusters are of one kind: all keep their places, in a row,
 * or all need new ones. */
static int co_find_run(struct allocating_write *write)
{
    struct qcow2_image *image = write->image;
    uint64_t end = min_u64(write->end, write->slice.end);
    uint64_t place;
    int ret =
        co_qcow2_slice_load(image, &write->slice, write->start, &write->first);

    if (ret < 0) {
        return ret;
    }
    write->in_place = keeps_place(image, &write->first);
    write->host_offset = write->first.host_offset;
    write->last = write->first;
    write->clusters = 1;
    place = write->first.host_offset;
    for (uint64_t at = write->start + image->cluster_bytes; at < end;
         at += image->cluster_bytes) {
        struct qcow2_entry entry;

        place += image->cluster_bytes;
        ret = co_qcow2_slice_load(image, &write->slice, at, &entry);
        if (ret < 0) {
            return ret;
        }
        if (keeps_place(image, &entry) != write->in_place ||
            (write->in_place && entry.host_offset != place)) {
            break;
        }
        write->clusters++;
    }
    return 0;
}

/* Cuts the write to the clusters that it has. */
static int co_fit(struct allocating_write *write)
{
    struct qcow2_image *image = write->image;
    uint64_t limit = write->start + write->clusters * image->cluster_bytes;

    write->end = min_u64(write->end, limit);
    return co_qcow2_slice_load(image, &write->slice,
                               limit - image->cluster_bytes, &write->last);
}

static int co_find_place(struct allocating_write *write)
{
    struct qcow2_image *image = write->image;
    struct qcow2_run run;
    int ret;

    if (write->in_place) {
        return 0;
    }
    if (image->external_data) {
        write->host_offset = write->start;
        return 0;
    }
    ret = co_qcow2_allocate(image, write->clusters, &run);
    if (ret < 0) {
        return ret;
    }
    write->clusters = run.clusters;
    write->host_offset = run.host_offset;
    write->host_is_zero = run.reads_zero;
    return 0;
}

static void set_fills(struct allocating_write *write)
{
    struct qcow2_image *image = write->image;
    uint64_t start =
        qcow2_fill_start(image, &write->first, write->offset, write->in_place);
    uint64_t end =
        qcow2_fill_end(image, &write->last, write->end, write->in_place);

    /* A data file ends with the disk. */
    if (image->external_data) {
        end = max_u64(write->end, min_u64(end, block_size(image->node)));
    }
    qcow2_fill_set(image, &write->first, start, write->offset, &write->head);
    qcow2_fill_set(image, &write->last, write->end, end, &write->tail);
}

static uint64_t host_of(const struct allocating_write *write, uint64_t offset)
{
    return write->host_offset + (offset - write->start);
}

/* How the fill goes out: a vector of it, or none. */
static int co_prepare_fill(struct allocating_write *write,
                           const struct qcow2_fill *fill,
                           struct iovec *ret_iov)
{
    /* The cast is iovec's: nobody writes to the buffer of a write. */
    union {
        const void *from;
        void *base;
    } cast = { .from = zeroes };

    *ret_iov = (struct iovec){ fill->content, fill->bytes };
    if (!fill->is_zero) {
        return 0;
    }
    ret_iov->iov_base = cast.base;
    if (write->host_is_zero || fill->bytes > ZERO_BYTES) {
        ret_iov->iov_len = 0;
    }
    if (write->host_is_zero || fill->bytes <= ZERO_BYTES) {
        return 0;
    }
    return co_qcow2_zero_data(write->image, host_of(write, fill->offset),
                              fill->bytes, 0);
}

/* Fill, data and fill, in one write if the vectors are not too many. */
static int co_write_parts(struct allocating_write *write,
                          const struct iovec *head,
                          const struct iovec *tail,
                          const struct vector_cursor *cursor)
{
    struct qcow2_image *image = write->image;
    uint64_t at = host_of(write, write->offset) - head->iov_len;
    uint64_t bytes =
        head->iov_len + (write->end - write->offset) + tail->iov_len;
    struct iovec inline_iov[VECTOR_CURSOR_INLINE + 2];
    g_autofree struct iovec *long_iov = NULL;
    struct iovec *iov = inline_iov;
    int count = 0;

    if (head->iov_len + tail->iov_len == 0) {
        return co_qcow2_write_data(image, at, bytes, cursor->piece,
                                   cursor->piece_count, write->flags);
    }
    if (cursor->piece_count > VECTOR_CURSOR_INLINE) {
        long_iov = g_new(struct iovec, (size_t)cursor->piece_count + 2);
        iov = long_iov;
    }
    if (head->iov_len > 0) {
        iov[count++] = *head;
    }
    memcpy(iov + count, cursor->piece,
           (size_t)cursor->piece_count * sizeof(*iov));
    count += cursor->piece_count;
    if (tail->iov_len > 0) {
        iov[count++] = *tail;
    }
    for (int done = 0; done < count;) {
        int part = MIN(count - done, IOV_MAX);
        uint64_t part_bytes = 0;
        int ret;

        for (int i = 0; i < part; i++) {
            part_bytes += iov[done + i].iov_len;
        }
        ret = co_qcow2_write_data(image, at, part_bytes, iov + done, part,
                                  write->flags);
        if (ret < 0) {
            return ret;
        }
        at += part_bytes;
        done += part;
    }
    return 0;
}

static int co_write_content(struct allocating_write *write,
                            struct vector_cursor *cursor)
{
    struct iovec head;
    struct iovec tail;
    int ret = co_qcow2_fill_read(write->image, &write->head, &write->tail);

    if (ret == 0) {
        ret = co_prepare_fill(write, &write->head, &head);
    }
    if (ret == 0) {
        ret = co_prepare_fill(write, &write->tail, &tail);
    }
    if (ret == 0) {
        vector_cursor_take(cursor, write->end - write->offset);
        ret = co_write_parts(write, &head, &tail, cursor);
    }
    return ret;
}

/* The parts of the cluster at `cluster` that are data now. */
static uint32_t written_parts(const struct allocating_write *write,
                              uint64_t cluster)
{
    const struct qcow2_image *image = write->image;
    uint64_t start = max_u64(cluster, write->head.offset);
    uint64_t end = min_u64(cluster + image->cluster_bytes,
                           write->tail.offset + write->tail.bytes);
    uint64_t first = (start - cluster) / image->subcluster_bytes;
    uint64_t count =
        divide_round_up(end - cluster, image->subcluster_bytes) - first;

    return (uint32_t)(((UINT64_C(1) << count) - 1) << first);
}

static void change_entry(struct allocating_write *write,
                         uint64_t cluster,
                         const struct qcow2_entry *old)
{
    struct qcow2_image *image = write->image;
    struct qcow2_entry entry = {
        .copied = true,
        .host_offset = host_of(write, cluster),
    };

    if (image->has_subclusters) {
        uint32_t written = written_parts(write, cluster);

        entry.subclusters_zero = old->subclusters_zero & ~written;
        entry.subclusters_allocated =
            (write->in_place ? old->subclusters_allocated : 0) | written;
    }
    if (!write->in_place) {
        qcow2_entry_free_place(image, old, false);
    } else if (old->zero == entry.zero &&
               old->subclusters_zero == entry.subclusters_zero &&
               old->subclusters_allocated == entry.subclusters_allocated) {
        return;
    }
    qcow2_slice_store(image, &write->slice, cluster, &entry);
}

/* Nothing in here waits: the entries are valid, as they were. */
static int co_change_entries(struct allocating_write *write)
{
    struct qcow2_image *image = write->image;

    for (uint64_t i = 0; i < write->clusters; i++) {
        uint64_t cluster = write->start + i * image->cluster_bytes;
        struct qcow2_entry old;
        int ret = co_qcow2_slice_load(image, &write->slice, cluster, &old);

        if (ret < 0) {
            return ret;
        }
        change_entry(write, cluster, &old);
    }
    return 0;
}

static int co_write_run(struct allocating_write *write,
                        struct vector_cursor *cursor)
{
    int ret = co_find_run(write);

    if (ret == 0) {
        ret = co_find_place(write);
    }
    if (ret < 0) {
        return ret;
    }
    ret = co_fit(write);
    if (ret == 0) {
        set_fills(write);
        ret = co_write_content(write, cursor);
    }
    if (ret == 0) {
        return co_change_entries(write);
    }
    if (!write->in_place && !write->image->external_data) {
        (void)co_qcow2_give_back(write->image, write->host_offset,
                                 write->clusters);
    }
    return ret;
}

int co_qcow2_write_allocating(struct qcow2_image *image,
                              uint64_t offset,
                              uint64_t bytes,
                              struct vector_cursor *cursor,
                              unsigned int flags,
                              uint64_t *ret_bytes)
{
    struct allocating_write write = {
        .image = image,
        .offset = offset,
        .end = offset + bytes,
        .start = round_down(offset, image->cluster_bytes),
        .flags = flags,
    };
    int ret = co_qcow2_slice_for_change(image, offset, &write.slice);

    if (ret < 0) {
        return ret;
    }
    ret = co_write_run(&write, cursor);
    qcow2_fill_release(&write.head);
    qcow2_fill_release(&write.tail);
    qcow2_slice_put(image, &write.slice);
    if (ret == 0) {
        *ret_bytes = write.end - offset;
    }
    return ret;
}
