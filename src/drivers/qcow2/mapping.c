/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a guest offset to how it is stored: L1 entry, slice of the L2 table,
 * entry; and on along the slice as far as the next entries continue it.
 *
 * Nothing in the tables is believed. An entry with bits that are reserved, an
 * offset that is not a cluster's, a cluster in the header or wholly behind the
 * end of the file, a data file's cluster in another place than its own: the
 * image is corrupt, and the request fails.
 */
#include "drivers/qcow2/image.h"

#include <errno.h>

#include "base/bytes.h"
#include "drivers/qcow2/entry.h"

static uint64_t slice_guest_bytes(const struct qcow2_image *image)
{
    return image->cluster_bytes << image->slice_bits;
}

/* Where in the file the slice for a guest offset is; 0: there is no L2 table.
 * False: the L1 entry is invalid. */
static bool find_slice(const struct qcow2_image *image,
                       uint64_t offset,
                       uint64_t *ret_slice)
{
    uint64_t cluster = offset >> image->header->cluster_bits;
    uint64_t l1_entry = image->l1[cluster >> image->l2_bits];
    uint64_t table = l1_entry & QCOW2_L1_OFFSET_MASK;
    uint64_t slice_in_table = cluster & ((UINT64_C(1) << image->l2_bits) - 1);

    if ((l1_entry & QCOW2_L1_RESERVED) != 0 ||
        (table & image->cluster_mask) != 0) {
        return false;
    }
    if (table == 0) {
        *ret_slice = 0;
        return true;
    }
    /* A table of a writable image may still be on its way into the file. */
    if (!image->writable && table >= block_size(image->file)) {
        return false;
    }
    slice_in_table >>= image->slice_bits;
    *ret_slice =
        table + (slice_in_table << image->slice_bits) * image->l2_entry_bytes;
    return true;
}

/* Is a cluster's place one where its content can be? With an external data file
 * it has one place only, and the file may be shorter. */
static bool data_place_is_valid(const struct qcow2_image *image,
                                uint64_t host_cluster,
                                uint64_t guest)
{
    if (image->external_data) {
        return host_cluster == (guest & ~image->cluster_mask);
    }
    return (host_cluster & image->cluster_mask) == 0 && host_cluster != 0;
}

static bool is_behind_the_end(const struct qcow2_image *image,
                              uint64_t host_cluster)
{
    return !image->external_data &&
           host_cluster >=
               round_up(block_size(image->file), image->cluster_bytes);
}

static bool compressed_piece(const struct qcow2_image *image,
                             const struct qcow2_entry *entry,
                             struct qcow2_mapping *ret)
{
    if (image->external_data || entry->host_offset < image->cluster_bytes ||
        entry->host_offset >= block_size(image->file)) {
        return false;
    }
    ret->kind = QCOW2_MAPPING_COMPRESSED;
    ret->owned = false;
    ret->host_offset = entry->host_offset;
    ret->compressed_bytes = entry->compressed_bytes;
    return true;
}

/* How many subclusters from the first bit on are set in `mask`. */
static unsigned int run_of_ones(uint32_t mask)
{
    return mask == UINT32_MAX ? QCOW2_SUBCLUSTERS
                              : (unsigned int)__builtin_ctz(~mask);
}

/* Kind and length of what begins at byte `in_cluster`. */
static void subcluster_piece(const struct qcow2_image *image,
                             const struct qcow2_entry *entry,
                             bool has_host,
                             uint64_t in_cluster,
                             struct qcow2_mapping *ret)
{
    unsigned int first = (unsigned int)(in_cluster / image->subcluster_bytes);
    uint32_t allocated = entry->subclusters_allocated >> first;
    uint32_t zero = entry->subclusters_zero >> first;
    unsigned int run;

    if ((allocated & 1) != 0) {
        ret->kind = QCOW2_MAPPING_DATA;
        run = run_of_ones(allocated);
    } else if ((zero & 1) != 0) {
        ret->kind =
            has_host ? QCOW2_MAPPING_ZERO_ALLOCATED : QCOW2_MAPPING_ZERO;
        run = run_of_ones(zero);
    } else {
        ret->kind = has_host ? QCOW2_MAPPING_UNALLOCATED_HOST
                             : QCOW2_MAPPING_UNALLOCATED;
        run = run_of_ones(~(allocated | zero));
    }
    run = MIN(run, QCOW2_SUBCLUSTERS - first);
    ret->bytes = (first + run) * image->subcluster_bytes - in_cluster;
}

static bool standard_piece(const struct qcow2_image *image,
                           const struct qcow2_entry *entry,
                           uint64_t guest,
                           struct qcow2_mapping *ret)
{
    uint64_t in_cluster = guest & image->cluster_mask;
    bool has_host =
        entry->host_offset != 0 || (image->external_data && entry->copied);

    if ((has_host && !data_place_is_valid(image, entry->host_offset, guest)) ||
        (!has_host && entry->subclusters_allocated != 0) ||
        (entry->zero && image->header->version < 3)) {
        return false;
    }
    ret->bytes = image->cluster_bytes - in_cluster;
    ret->owned = has_host && entry->copied;
    ret->host_offset = has_host ? entry->host_offset + in_cluster : 0;
    if (image->has_subclusters) {
        subcluster_piece(image, entry, has_host, in_cluster, ret);
    } else if (entry->zero) {
        ret->kind =
            has_host ? QCOW2_MAPPING_ZERO_ALLOCATED : QCOW2_MAPPING_ZERO;
    } else {
        ret->kind = has_host ? QCOW2_MAPPING_DATA : QCOW2_MAPPING_UNALLOCATED;
    }
    return ret->kind != QCOW2_MAPPING_DATA ||
           !is_behind_the_end(image, entry->host_offset);
}

/* What begins at guest byte `guest`, to the end of its cluster at most. False:
 * the entry is invalid. */
static bool piece_at(const struct qcow2_image *image,
                     const uint8_t *slice,
                     uint64_t guest,
                     struct qcow2_mapping *ret)
{
    uint64_t index = guest >> image->header->cluster_bits &
                     ((UINT64_C(1) << image->slice_bits) - 1);
    struct qcow2_entry entry;

    *ret = (struct qcow2_mapping){ 0 };
    if (!qcow2_entry_load(slice + index * image->l2_entry_bytes,
                          image->header->cluster_bits, image->has_subclusters,
                          &entry)) {
        return false;
    }
    if (entry.compressed) {
        ret->bytes = image->cluster_bytes - (guest & image->cluster_mask);
        return compressed_piece(image, &entry, ret);
    }
    return standard_piece(image, &entry, guest, ret);
}

static bool continues(const struct qcow2_mapping *mapping,
                      const struct qcow2_mapping *next)
{
    return next->kind == mapping->kind && next->owned == mapping->owned &&
           mapping->kind != QCOW2_MAPPING_COMPRESSED &&
           (mapping->host_offset == 0
                ? next->host_offset == 0
                : next->host_offset == mapping->host_offset + mapping->bytes);
}

/* As far as it is one thing. An invalid entry further on only ends it: that is
 * for who asks about that one. */
static bool walk(const struct qcow2_image *image,
                 const uint8_t *slice,
                 uint64_t offset,
                 uint64_t bytes,
                 struct qcow2_mapping *ret)
{
    uint64_t slice_left =
        slice_guest_bytes(image) - (offset & (slice_guest_bytes(image) - 1));
    struct qcow2_mapping next;

    if (!piece_at(image, slice, offset, ret)) {
        return false;
    }
    bytes = min_u64(bytes, slice_left);
    while (ret->bytes < bytes &&
           piece_at(image, slice, offset + ret->bytes, &next) &&
           continues(ret, &next)) {
        ret->bytes += next.bytes;
    }
    ret->bytes = min_u64(ret->bytes, bytes);
    return true;
}

static void no_table(const struct qcow2_image *image,
                     uint64_t offset,
                     uint64_t bytes,
                     struct qcow2_mapping *ret)
{
    uint64_t slice_bytes = slice_guest_bytes(image);

    *ret = (struct qcow2_mapping){
        .kind = QCOW2_MAPPING_UNALLOCATED,
        .bytes = min_u64(bytes, slice_bytes - (offset & (slice_bytes - 1))),
    };
}

/* What came of a look at the tables in memory. */
enum look {
    LOOK_FOUND,
    LOOK_MISSING, /* the slice is not in memory */
    LOOK_BAD_L1,
    LOOK_BAD_L2,
};

static enum look look(struct qcow2_image *image,
                      uint64_t offset,
                      uint64_t bytes,
                      uint64_t *ret_slice_offset,
                      struct qcow2_mapping *ret_mapping)
{
    struct table_block *slice;
    bool valid;

    if (!find_slice(image, offset, ret_slice_offset)) {
        return LOOK_BAD_L1;
    }
    if (*ret_slice_offset == 0) {
        no_table(image, offset, bytes, ret_mapping);
        return LOOK_FOUND;
    }
    slice = table_cache_find(image->l2_slices, *ret_slice_offset);
    if (slice == NULL) {
        return LOOK_MISSING;
    }
    valid = walk(image, slice->bytes, offset, bytes, ret_mapping);
    table_cache_put(image->l2_slices, slice);
    return valid ? LOOK_FOUND : LOOK_BAD_L2;
}

int qcow2_try_mapping(struct qcow2_image *image,
                      uint64_t offset,
                      uint64_t bytes,
                      struct qcow2_mapping *ret_mapping)
{
    uint64_t slice_offset;

    return look(image, offset, bytes, &slice_offset, ret_mapping) == LOOK_FOUND
               ? 0
               : -EAGAIN;
}

/* After each wait the tables are looked at anew: they may have got other
 * places. The slice that was waited for is the last that would go. */
int co_qcow2_mapping(struct qcow2_image *image,
                     uint64_t offset,
                     uint64_t bytes,
                     struct qcow2_mapping *ret_mapping)
{
    uint64_t slice_offset;
    struct table_block *slice;
    int ret;

    for (;;) {
        switch (look(image, offset, bytes, &slice_offset, ret_mapping)) {
        case LOOK_FOUND: return 0;
        case LOOK_MISSING: break;
        case LOOK_BAD_L1:
            return co_qcow2_mark_corrupt(
                image,
                "the L1 entry for guest offset %" G_GUINT64_FORMAT
                " is invalid",
                offset);
        case LOOK_BAD_L2:
            return co_qcow2_mark_corrupt(
                image,
                "the L2 entry for guest offset %" G_GUINT64_FORMAT
                " is invalid",
                offset);
        }
        ret = co_table_cache_get(image->l2_slices, slice_offset, &slice);
        if (ret < 0) {
            return ret;
        }
        table_cache_put(image->l2_slices, slice);
    }
}
