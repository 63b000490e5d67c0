/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Zeroing and discarding: changes of L2 entries, hardly of data.
 *
 * Whole clusters (and subclusters) get their zero flag. Where the request may
 * unmap, their places are freed, else they stay for later writes. What covers a
 * part of one is written as zeroes, unless it reads as zeroes anyway. Version 2
 * has no such flag: a cluster can only be dropped there, if no backing file
 * would show through, or be overwritten.
 *
 * A data file that stands for itself ("raw") gets the zeroes instead: as long as
 * the entry says "data", a crash cannot part what the two show.
 */
#include "drivers/qcow2/zero.h"

#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/l2_table.h"

#define ZERO_BYTES   (64 * KIB)
#define ZERO_VECTORS 32
/* Much of this never waits, and others want to run, too. */
#define SLICES_AT_A_TIME 16

static const uint8_t zeroes[ZERO_BYTES] __attribute__((aligned(4096)));

struct zeroing {
    struct qcow2_image *image;
    bool unmaps;     /* places are freed */
    bool is_discard; /* content afterwards is up to us */
    bool drops;      /* clusters become unallocated, whatever shows through */
    uint64_t limit;  /* where the last cluster's data ends */
};

/* What to do with one cluster. */
enum verdict {
    VERDICT_KEEP,   /* it is as it shall be */
    VERDICT_CHANGE, /* the new entry does it */
    VERDICT_WRITE,  /* zeroes have to be written */
};

/* Would an unallocated cluster read as zeroes for good? A backing file that is
 * only named, and not used now, counts as well. */
static bool unallocated_is_zero(const struct qcow2_image *image)
{
    return image->backing == NULL && image->header->backing_file == NULL;
}

static int co_write_zero_data(struct qcow2_image *image,
                              uint64_t offset,
                              uint64_t bytes)
{
    union {
        const void *from;
        void *base;
    } cast = { .from = zeroes };
    struct iovec iov[ZERO_VECTORS];

    while (bytes > 0) {
        uint64_t chunk = 0;
        int count = 0;
        int ret;

        while (count < ZERO_VECTORS && chunk < bytes) {
            uint64_t part = min_u64(ZERO_BYTES, bytes - chunk);

            iov[count++] = (struct iovec){ cast.base, part };
            chunk += part;
        }
        ret = co_qcow2_pwritev(image->node, offset, chunk, iov, count, 0);
        if (ret < 0) {
            return ret;
        }
        offset += chunk;
        bytes -= chunk;
    }
    return 0;
}

/* A part of a cluster or subcluster. */
static int co_zero_part(struct qcow2_image *image,
                        uint64_t offset,
                        uint64_t bytes)
{
    while (bytes > 0) {
        struct qcow2_mapping mapping;
        int ret = co_qcow2_mapping(image, offset, bytes, &mapping);

        if (ret < 0) {
            return ret;
        }
        if (mapping.kind != QCOW2_MAPPING_ZERO &&
            mapping.kind != QCOW2_MAPPING_ZERO_ALLOCATED &&
            !(mapping.kind == QCOW2_MAPPING_UNALLOCATED &&
              unallocated_is_zero(image))) {
            ret = co_write_zero_data(image, offset, mapping.bytes);
        }
        if (ret < 0) {
            return ret;
        }
        offset += mapping.bytes;
        bytes -= mapping.bytes;
    }
    return 0;
}

static bool same_entry(const struct qcow2_entry *a, const struct qcow2_entry *b)
{
    return a->compressed == b->compressed && a->copied == b->copied &&
           a->zero == b->zero && a->host_offset == b->host_offset &&
           a->subclusters_allocated == b->subclusters_allocated &&
           a->subclusters_zero == b->subclusters_zero;
}

static enum verdict judge_drop(const struct qcow2_entry *old,
                               struct qcow2_entry *ret_entry)
{
    *ret_entry = (struct qcow2_entry){ 0 };
    return same_entry(old, ret_entry) ? VERDICT_KEEP : VERDICT_CHANGE;
}

static enum verdict judge_v2(const struct zeroing *zeroing,
                             const struct qcow2_entry *old,
                             struct qcow2_entry *ret_entry)
{
    bool has_place = old->compressed || old->host_offset != 0;

    if (!unallocated_is_zero(zeroing->image)) {
        return zeroing->is_discard ? VERDICT_KEEP : VERDICT_WRITE;
    }
    *ret_entry = (struct qcow2_entry){ 0 };
    return has_place ? VERDICT_CHANGE : VERDICT_KEEP;
}

/* `parts`: which subclusters; all of them where there are none. */
static enum verdict judge(const struct zeroing *zeroing,
                          const struct qcow2_entry *old,
                          uint32_t parts,
                          struct qcow2_entry *ret_entry)
{
    const struct qcow2_image *image = zeroing->image;
    bool has_place = !old->compressed && qcow2_entry_has_place(image, old);
    bool is_whole = parts == UINT32_MAX;
    bool keeps_place;

    if (zeroing->drops) {
        return judge_drop(old, ret_entry);
    }
    if (image->data_is_raw) {
        return VERDICT_KEEP; /* the data file says it all */
    }
    if (image->header->version < 3) {
        return judge_v2(zeroing, old, ret_entry);
    }
    if (!is_whole && old->compressed) {
        return VERDICT_WRITE;
    }
    if (zeroing->is_discard && !has_place && !old->compressed) {
        return VERDICT_KEEP;
    }
    keeps_place = has_place && (!is_whole || (old->copied && !zeroing->unmaps));
    *ret_entry = (struct qcow2_entry){ 0 };
    if (keeps_place) {
        ret_entry->copied = old->copied;
        ret_entry->host_offset = old->host_offset;
    }
    if (image->has_subclusters) {
        ret_entry->subclusters_zero = old->subclusters_zero | parts;
        ret_entry->subclusters_allocated = old->subclusters_allocated & ~parts;
    } else {
        ret_entry->zero = true;
    }
    return same_entry(old, ret_entry) ? VERDICT_KEEP : VERDICT_CHANGE;
}

/* The subclusters of the cluster that [offset, end) covers. */
static uint32_t covered_parts(const struct qcow2_image *image,
                              uint64_t cluster,
                              uint64_t offset,
                              uint64_t end)
{
    uint64_t start = max_u64(offset, cluster) - cluster;
    uint64_t stop = min_u64(end - cluster, image->cluster_bytes);
    uint64_t first = start / image->subcluster_bytes;
    uint64_t count = divide_round_up(stop, image->subcluster_bytes) - first;

    if (!image->has_subclusters) {
        return UINT32_MAX;
    }
    return (uint32_t)(((UINT64_C(1) << count) - 1) << first);
}

static int co_zero_cluster(const struct zeroing *zeroing,
                           const struct qcow2_slice *slice,
                           uint64_t cluster,
                           uint32_t parts,
                           bool *ret_write)
{
    struct qcow2_image *image = zeroing->image;
    struct qcow2_entry old;
    struct qcow2_entry entry;
    int ret = co_qcow2_slice_load(image, slice, cluster, &old);

    *ret_write = false;
    if (ret < 0) {
        return ret;
    }
    switch (judge(zeroing, &old, parts, &entry)) {
    case VERDICT_KEEP: break;
    case VERDICT_WRITE: *ret_write = true; break;
    case VERDICT_CHANGE:
        if (entry.host_offset != old.host_offset) {
            qcow2_entry_free_place(image, &old, zeroing->unmaps);
        }
        qcow2_slice_store(image, slice, cluster, &entry);
        break;
    }
    return 0;
}

/* What entries cannot say and is left to be written; empty: nothing. */
struct stretch {
    uint64_t offset;
    uint64_t end;
};

/* The clusters of [offset, end), within one slice and held, up to the first that
 * has to be written as data. */
static int co_zero_held(const struct zeroing *zeroing,
                        uint64_t offset,
                        uint64_t end,
                        struct stretch *ret_left)
{
    struct qcow2_image *image = zeroing->image;
    uint64_t cluster = round_down(offset, image->cluster_bytes);
    struct qcow2_slice slice;
    int ret = co_qcow2_slice_for_change(image, offset, &slice);

    *ret_left = (struct stretch){ end, end };
    if (ret < 0) {
        return ret;
    }
    for (; ret == 0 && cluster < end; cluster += image->cluster_bytes) {
        bool write;

        ret =
            co_zero_cluster(zeroing, &slice, cluster,
                            covered_parts(image, cluster, offset, end), &write);
        if (write) {
            *ret_left = (struct stretch){
                max_u64(offset, cluster),
                min_u64(end, cluster + image->cluster_bytes),
            };
            break;
        }
    }
    qcow2_slice_put(image, &slice);
    return ret;
}

/* No table, and nothing would change with one. A zero flag is a change also
 * where nothing lies below: something may later, when the image, a backup, is
 * put over the one before it. */
static bool is_bare(const struct zeroing *zeroing, uint64_t offset)
{
    const struct qcow2_image *image = zeroing->image;
    uint64_t entry =
        image->l1[offset >> (image->header->cluster_bits + image->l2_bits)];

    return (entry & QCOW2_L1_OFFSET_MASK) == 0 &&
           (zeroing->is_discard || zeroing->drops ||
            (image->header->version < 3 && unallocated_is_zero(image)));
}

/* Data that is kept elsewhere is dealt with there. */
static int co_zero_data_file(const struct zeroing *zeroing,
                             uint64_t offset,
                             uint64_t end)
{
    struct qcow2_image *image = zeroing->image;
    uint64_t there = block_size(image->data);

    if (zeroing->drops) {
        return 0; /* it is cut off */
    }
    if (image->data_is_raw) {
        return co_qcow2_zero_data(image, offset, end - offset,
                                  zeroing->unmaps ? BLOCK_MAY_UNMAP : 0);
    }
    if (zeroing->unmaps && offset < there && image->pass_discard_request) {
        return co_block_child_discard(image->data, offset,
                                      min_u64(end, there) - offset);
    }
    return 0;
}

/* The entries of [offset, end), and what hangs on them. */
static int co_zero_entries(const struct zeroing *zeroing,
                           uint64_t offset,
                           uint64_t end,
                           struct stretch *ret_left)
{
    struct qcow2_image *image = zeroing->image;
    uint64_t start = round_down(offset, image->cluster_bytes);
    struct range_hold hold;
    int ret = 0;

    *ret_left = (struct stretch){ end, end };
    co_range_lock(&image->ranges, &hold, start,
                  round_up(end, image->cluster_bytes) - start);
    if (!is_bare(zeroing, offset)) {
        ret = co_zero_held(zeroing, offset, end, ret_left);
    }
    if (ret == 0 && image->external_data) {
        ret = co_zero_data_file(zeroing, offset, min_u64(end, zeroing->limit));
    }
    range_unlock(&image->ranges, &hold);
    return ret;
}

/* [offset, end) within one slice, in whole subclusters. */
static int co_zero_in_slice(const struct zeroing *zeroing,
                            uint64_t offset,
                            uint64_t end)
{
    struct qcow2_image *image = zeroing->image;
    int ret = 0;

    while (ret == 0 && offset < end) {
        struct stretch left;

        ret = co_zero_entries(zeroing, offset, end, &left);
        if (ret == 0 && left.offset < left.end) {
            ret = co_zero_part(image, left.offset,
                               min_u64(left.end, zeroing->limit) - left.offset);
        }
        offset = left.end;
    }
    return ret;
}

/* [offset, end) in whole subclusters. */
static int co_zero_range(const struct zeroing *zeroing,
                         uint64_t offset,
                         uint64_t end)
{
    struct qcow2_image *image = zeroing->image;
    uint64_t slice_bytes = image->cluster_bytes << image->slice_bits;
    unsigned int slices = 0;
    int ret = 0;

    while (ret == 0 && offset < end) {
        uint64_t stop =
            min_u64(end, round_down(offset, slice_bytes) + slice_bytes);

        ret = co_zero_in_slice(zeroing, offset, stop);
        offset = stop;
        slices++;
        if (slices % SLICES_AT_A_TIME == 0) {
            co_reschedule();
        }
    }
    return ret;
}

/* The end of the last whole unit, where the end of the disk ends one. */
static uint64_t end_of_whole(const struct qcow2_image *image,
                             uint64_t end,
                             uint64_t unit)
{
    return end == block_size(image->node) ? round_up(end, unit)
                                          : round_down(end, unit);
}

/* The whole subclusters of a range first, since they alone can be refused. */
static int co_zero_all(const struct zeroing *zeroing,
                       uint64_t offset,
                       uint64_t stop,
                       uint64_t end)
{
    struct qcow2_image *image = zeroing->image;
    uint64_t start = round_up(offset, image->subcluster_bytes);
    int ret;

    if (start >= stop) {
        return co_zero_part(image, offset, end - offset);
    }
    ret = co_zero_range(zeroing, start, stop);
    if (ret == 0 && offset < start) {
        ret = co_zero_part(image, offset, start - offset);
    }
    if (ret == 0 && stop < end) {
        ret = co_zero_part(image, stop, end - stop);
    }
    return ret;
}

int co_qcow2_write_zeroes(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          unsigned int flags)
{
    struct qcow2_image *image = block_state(node);
    const struct zeroing zeroing = {
        .image = image,
        .unmaps = (flags & BLOCK_MAY_UNMAP) != 0,
        .limit = block_size(node),
    };

    if (image->corrupt || (image->untouched && co_qcow2_touch(image) < 0)) {
        return -EIO;
    }
    if ((flags & BLOCK_FAST_ZERO) != 0 &&
        (image->header->version < 3 || image->data_is_raw)) {
        return -ENOTSUP;
    }
    return co_zero_all(
        &zeroing, offset,
        end_of_whole(image, offset + bytes, image->subcluster_bytes),
        offset + bytes);
}

int co_qcow2_zero_behind_end(struct qcow2_image *image,
                             uint64_t offset,
                             uint64_t end)
{
    const struct zeroing zeroing = {
        .image = image,
        .unmaps = true,
        .limit = end,
    };

    return co_zero_all(&zeroing, offset,
                       round_down(end, image->subcluster_bytes), end);
}

int co_qcow2_drop(struct qcow2_image *image, uint64_t offset, uint64_t end)
{
    const struct zeroing zeroing = {
        .image = image,
        .unmaps = true,
        .drops = true,
        .limit = end,
    };

    return co_zero_range(&zeroing, offset, end);
}

int co_qcow2_discard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    struct qcow2_image *image = block_state(node);
    const struct zeroing zeroing = {
        .image = image,
        .unmaps = !image->discard_no_unref,
        .is_discard = true,
        .limit = block_size(node),
    };
    uint64_t start = round_up(offset, image->cluster_bytes);
    uint64_t stop = end_of_whole(image, offset + bytes, image->cluster_bytes);

    if (image->corrupt || (image->untouched && co_qcow2_touch(image) < 0)) {
        return -EIO;
    }
    return start < stop ? co_zero_range(&zeroing, start, stop) : 0;
}
