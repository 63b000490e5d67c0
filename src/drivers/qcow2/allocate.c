/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Finding free clusters.
 *
 * What became free lately is remembered and used first. Otherwise the search
 * begins at `next_free`, below which nothing else is free, so it goes through
 * the refcounts once and stays where the end is. A run lies within one slice of
 * refcounts. The file grows before its clusters are handed out.
 *
 * One search runs at a time; others wait for their turn. Counts that go down
 * meanwhile do no harm, and none but us makes a free cluster used.
 */
#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/refcount_entry.h"
#include "drivers/qcow2/refcount_priv.h"

#define FREED_RUNS_MAX 4096

void qcow2_refcounts_note_free(struct qcow2_refcounts *refcounts,
                               uint64_t cluster,
                               uint64_t clusters)
{
    struct qcow2_free_run run = { cluster, clusters };

    if ((refcounts->packed_offset >> refcounts->cluster_bits) - cluster <
        clusters) {
        refcounts->packed_offset = 0;
    }
    if (cluster >= refcounts->next_free) {
        return; /* the search will come by */
    }
    if (refcounts->freed->len > 0) {
        struct qcow2_free_run *last = &g_array_index(
            refcounts->freed, struct qcow2_free_run, refcounts->freed->len - 1);

        if (last->cluster + last->clusters == cluster) {
            last->clusters += clusters;
            return;
        }
    }
    if (refcounts->freed->len < FREED_RUNS_MAX) {
        g_array_append_val(refcounts->freed, run);
    } else {
        refcounts->next_free = cluster;
    }
}

/* How many clusters from `index` on are free, at most `clusters`. */
static uint64_t count_free(const struct qcow2_refcounts *refcounts,
                           const struct table_block *slice,
                           uint64_t index,
                           uint64_t clusters)
{
    uint64_t limit =
        min_u64(clusters, (UINT64_C(1) << refcounts->slice_bits) - index);
    uint64_t count = 0;

    while (count < limit && qcow2_refcount_load(slice->bytes, refcounts->order,
                                                index + count) == 0) {
        count++;
    }
    return count;
}

/* Counts free clusters 1. The slice that holds them is pinned. */
static int co_claim(struct qcow2_image *image,
                    struct table_block *slice,
                    uint64_t index,
                    uint64_t cluster,
                    struct qcow2_run *run)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t offset = cluster * image->cluster_bytes;
    uint64_t bytes = run->clusters * image->cluster_bytes;
    int ret;

    if ((offset + bytes) >> QCOW2_OFFSET_BITS_MAX != 0) {
        return -EFBIG;
    }
    if (cluster_set_meets(image->metadata, offset, bytes)) {
        return co_qcow2_mark_corrupt(image,
                                     "a table at offset 0x%" G_GINT64_MODIFIER
                                     "x"
                                     " or behind is counted as free",
                                     offset);
    }
    ret = co_qcow2_grow_file(image, offset + bytes);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < run->clusters; i++) {
        qcow2_refcount_store(slice->bytes, refcounts->order, index + i, 1);
    }
    table_cache_mark_dirty(refcounts->slices, slice);
    run->host_offset = offset;
    run->reads_zero = offset >= refcounts->high_offset;
    refcounts->high_offset = max_u64(refcounts->high_offset, offset + bytes);
    return 0;
}

/* From what was freed lately. 1: there is nothing. */
static int co_allocate_freed(struct qcow2_image *image,
                             uint64_t clusters,
                             struct qcow2_run *run)
{
    struct qcow2_refcounts *refcounts = image->refcounts;

    while (refcounts->freed->len > 0) {
        guint last = refcounts->freed->len - 1;
        struct qcow2_free_run freed =
            g_array_index(refcounts->freed, struct qcow2_free_run, last);
        struct table_block *slice;
        uint64_t index;
        int ret;

        /* Taken off the list, since more may join it while we wait. */
        g_array_set_size(refcounts->freed, last);
        ret =
            co_qcow2_refcount_slice(image, freed.cluster, true, &slice, &index);
        if (ret < 0) {
            return ret;
        }
        if (ret > 0) {
            continue;
        }
        run->clusters = count_free(refcounts, slice, index,
                                   min_u64(clusters, freed.clusters));
        ret = run->clusters == 0
                  ? 1
                  : co_claim(image, slice, index, freed.cluster, run);
        table_cache_put(refcounts->slices, slice);
        if (ret == 0 && run->clusters < freed.clusters) {
            qcow2_refcounts_note_free(refcounts, freed.cluster + run->clusters,
                                      freed.clusters - run->clusters);
        }
        if (ret <= 0) {
            return ret;
        }
    }
    return 1;
}

/* The lowest free ones. */
static int co_allocate_next(struct qcow2_image *image,
                            uint64_t clusters,
                            struct qcow2_run *run)
{
    struct qcow2_refcounts *refcounts = image->refcounts;

    for (;;) {
        uint64_t cluster = refcounts->next_free;
        uint64_t slice_end;
        struct table_block *slice;
        uint64_t index;
        int ret = co_qcow2_refcount_slice(image, cluster, true, &slice, &index);

        if (ret > 0) {
            ret = co_qcow2_refcount_block_add(image, cluster);
            if (ret == 0) {
                continue;
            }
        }
        if (ret < 0) {
            return ret;
        }
        slice_end = cluster - index + (UINT64_C(1) << refcounts->slice_bits);
        while (cluster < slice_end &&
               qcow2_refcount_load(slice->bytes, refcounts->order, index) !=
                   0) {
            cluster++;
            index++;
        }
        ret = 1;
        if (cluster < slice_end) {
            run->clusters = count_free(refcounts, slice, index, clusters);
            ret = co_claim(image, slice, index, cluster, run);
            slice_end = cluster + run->clusters;
        }
        table_cache_put(refcounts->slices, slice);
        if (ret < 0) {
            return ret;
        }
        refcounts->next_free = slice_end;
        if (ret == 0) {
            return 0;
        }
    }
}

int co_qcow2_allocate(struct qcow2_image *image,
                      uint64_t clusters,
                      struct qcow2_run *ret_run)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    struct qcow2_run run;
    int ret;

    g_assert(clusters > 0);
    if (image->corrupt) {
        return -EIO;
    }
    co_mutex_lock(&refcounts->allocating);
    ret = co_allocate_freed(image, clusters, &run);
    if (ret > 0) {
        ret = co_allocate_next(image, clusters, &run);
    }
    co_mutex_unlock(&refcounts->allocating);
    if (ret == 0) {
        *ret_run = run;
    }
    return ret;
}

/* A refcount block for a cluster of a range that is to stay free: elsewhere, if
 * the table has room for it. */
static int co_add_block_elsewhere(struct qcow2_image *image, uint64_t cluster)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    struct qcow2_run place;
    int ret;

    if (cluster >> refcounts->block_bits >= refcounts->table_count) {
        return co_qcow2_refcount_block_add(image, cluster);
    }
    ret = co_allocate_freed(image, 1, &place);
    if (ret > 0) {
        ret = co_allocate_next(image, 1, &place);
    }
    if (ret < 0) {
        return ret;
    }
    ret = co_qcow2_refcount_block_place(image, cluster, &place);
    if (ret < 0) {
        (void)co_qcow2_refcount_decrease(image, place.host_offset, 1);
    }
    return ret;
}

/* Looks whether all of a range is free. 0: it is, and all of it has refcount
 * blocks; 1: try at `*ret_next`. */
static int co_check_range(struct qcow2_image *image,
                          uint64_t first,
                          uint64_t clusters,
                          uint64_t *ret_next)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t done = 0;

    while (done < clusters) {
        struct table_block *slice;
        uint64_t limit;
        uint64_t index;
        uint64_t count;
        int ret =
            co_qcow2_refcount_slice(image, first + done, true, &slice, &index);

        if (ret > 0) {
            ret = done == 0 ? co_qcow2_refcount_block_add(image, first)
                            : co_add_block_elsewhere(image, first + done);
            *ret_next = first;
            return ret < 0 ? ret : 1;
        }
        if (ret < 0) {
            return ret;
        }
        limit = min_u64(clusters - done,
                        (UINT64_C(1) << refcounts->slice_bits) - index);
        count = count_free(refcounts, slice, index, limit);
        table_cache_put(refcounts->slices, slice);
        done += count;
        if (count < limit) {
            *ret_next = first + done + 1;
            return 1;
        }
    }
    return 0;
}

/* Counts all of a range 1 that is free. */
static int co_claim_range(struct qcow2_image *image,
                          uint64_t first,
                          uint64_t clusters)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < clusters) {
        struct qcow2_run run = { 0 };
        struct table_block *slice;
        uint64_t index;

        ret =
            co_qcow2_refcount_slice(image, first + done, true, &slice, &index);
        if (ret != 0) {
            break;
        }
        run.clusters = count_free(refcounts, slice, index, clusters - done);
        ret = run.clusters == 0
                  ? -EIO
                  : co_claim(image, slice, index, first + done, &run);
        table_cache_put(refcounts->slices, slice);
        done += ret == 0 ? run.clusters : 0;
    }
    if (ret != 0) {
        (void)co_qcow2_refcount_decrease(image, first * image->cluster_bytes,
                                         done);
        return ret < 0 ? ret : -EIO;
    }
    return 0;
}

int co_qcow2_allocate_contiguous(struct qcow2_image *image,
                                 uint64_t clusters,
                                 struct qcow2_run *ret_run)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t first;
    int ret;

    co_mutex_lock(&refcounts->allocating);
    first =
        max_u64(divide_round_up(refcounts->high_offset, image->cluster_bytes),
                refcounts->next_free);
    do {
        ret = co_check_range(image, first, clusters, &first);
    } while (ret > 0);
    if (ret == 0) {
        ret = co_claim_range(image, first, clusters);
    }
    co_mutex_unlock(&refcounts->allocating);
    if (ret == 0) {
        *ret_run = (struct qcow2_run){
            .host_offset = first * image->cluster_bytes,
            .clusters = clusters,
        };
    }
    return ret;
}

/* Where the packed data goes on, if it fits into what is left of its cluster and
 * that can be counted once more. 1: it does not. */
static int co_pack_next(struct qcow2_image *image,
                        uint64_t bytes,
                        uint64_t *ret_host_offset)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    uint64_t offset = refcounts->packed_offset;
    uint64_t left = image->cluster_bytes - (offset & image->cluster_mask);
    struct table_block *slice;
    uint64_t index;
    uint64_t count;
    int ret;

    if (offset == 0 || left < bytes) {
        return 1;
    }
    ret = co_qcow2_refcount_slice(image, offset / image->cluster_bytes, true,
                                  &slice, &index);
    if (ret != 0) {
        return ret;
    }
    count = qcow2_refcount_load(slice->bytes, refcounts->order, index);
    /* We may have waited: somebody may have packed, or all of it been freed. */
    ret = refcounts->packed_offset != offset || count == refcounts->count_max;
    if (ret == 0) {
        qcow2_refcount_store(slice->bytes, refcounts->order, index, count + 1);
        table_cache_mark_dirty(refcounts->slices, slice);
        refcounts->packed_offset = left == bytes ? 0 : offset + bytes;
        *ret_host_offset = offset;
    }
    table_cache_put(refcounts->slices, slice);
    return ret;
}

int co_qcow2_allocate_packed(struct qcow2_image *image,
                             uint64_t bytes,
                             uint64_t *ret_host_offset)
{
    struct qcow2_refcounts *refcounts = image->refcounts;
    unsigned int offset_bits =
        MIN(QCOW2_OFFSET_BITS_MAX, 62 - (image->header->cluster_bits - 8));
    struct qcow2_run run;
    int ret = co_pack_next(image, bytes, ret_host_offset);

    if (ret <= 0) {
        return ret;
    }
    ret = co_qcow2_allocate(image, 1, &run);
    if (ret < 0) {
        return ret;
    }
    if ((run.host_offset + image->cluster_bytes) >> offset_bits != 0) {
        (void)co_qcow2_give_back(image, run.host_offset, 1);
        return -EFBIG;
    }
    if (bytes < image->cluster_bytes) {
        refcounts->packed_offset = run.host_offset + bytes;
    }
    *ret_host_offset = run.host_offset;
    return 0;
}
