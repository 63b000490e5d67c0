/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A table is made or copied under the lock `l2_tables`; the L1 entry changes
 * there and nowhere else. A new table is zeroes in the file, or known to be
 * that, before the commit that writes the L1 entry; a copy is written in full.
 *
 * The table that was copied loses one use when the commit is done. What its
 * entries name is counted for both already (that is how a snapshot is made), and
 * they have no "copied" flags, so the entries are copied as they are.
 */
#include "drivers/qcow2/l2_table.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/free_later.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/refcount.h"

static uint32_t l1_index(const struct qcow2_image *image, uint64_t offset)
{
    return (uint32_t)(offset >> (image->header->cluster_bits + image->l2_bits));
}

/* Copies the old table's content to its new place. */
static int co_copy_table(struct qcow2_image *image, uint64_t from, uint64_t to)
{
    g_autofree uint8_t *bytes = g_try_malloc(image->cluster_bytes);
    uint32_t slice_bytes = table_cache_block_bytes(image->l2_slices);
    struct iovec iov = { bytes, image->cluster_bytes };

    if (bytes == NULL) {
        return -ENOMEM;
    }
    /* Nobody changes a table that is shared, so slice by slice will do. */
    for (uint64_t at = 0; at < image->cluster_bytes; at += slice_bytes) {
        struct table_block *block;
        int ret = co_table_cache_get(image->l2_slices, from + at, &block);

        if (ret < 0) {
            return ret;
        }
        memcpy(bytes + at, block->bytes, slice_bytes);
        table_cache_put(image->l2_slices, block);
    }
    return co_qcow2_write_new_metadata(image, to, image->cluster_bytes, &iov,
                                       1);
}

static int co_fill_table(struct qcow2_image *image,
                         uint64_t old_table,
                         const struct qcow2_run *run)
{
    if (old_table != 0) {
        return co_copy_table(image, old_table, run->host_offset);
    }
    if (run->reads_zero) {
        return 0;
    }
    return co_block_child_write_zeroes(image->file, run->host_offset,
                                       image->cluster_bytes, 0);
}

/* Under the lock. */
static int co_make_table(struct qcow2_image *image, uint32_t index)
{
    uint64_t old_entry = image->l1[index];
    uint64_t old_table = old_entry & QCOW2_L1_OFFSET_MASK;
    struct qcow2_run run;
    int ret;

    if (old_table != 0 && (old_entry & QCOW2_ENTRY_COPIED) != 0) {
        return 0; /* somebody was faster */
    }
    ret = co_qcow2_allocate(image, 1, &run);
    if (ret < 0) {
        return ret;
    }
    ret = co_fill_table(image, old_table, &run);
    if (ret < 0) {
        (void)co_qcow2_give_back(image, run.host_offset, 1);
        return ret;
    }
    /* What was cached of an earlier use of the cluster. */
    table_cache_forget(image->l2_slices, run.host_offset, image->cluster_bytes);
    image->l1[index] = run.host_offset | QCOW2_ENTRY_COPIED;
    cluster_set_add(image->metadata, run.host_offset, image->cluster_bytes);
    qcow2_commit_l1_dirty(image, index);
    if (old_table != 0) {
        cluster_set_remove(image->metadata, old_table, image->cluster_bytes);
        qcow2_free_later(image, old_table, image->cluster_bytes,
                         QCOW2_FREE_REPLACED);
    }
    return 0;
}

static int co_own_table(struct qcow2_image *image, uint32_t index)
{
    uint64_t entry = image->l1[index];
    int ret;

    if ((entry & QCOW2_L1_OFFSET_MASK) != 0 &&
        (entry & QCOW2_ENTRY_COPIED) != 0) {
        return 0;
    }
    co_mutex_lock(&image->l2_tables);
    ret = co_make_table(image, index);
    co_mutex_unlock(&image->l2_tables);
    return ret;
}

static int co_get_slice(struct qcow2_image *image,
                        uint64_t offset,
                        struct qcow2_slice *ret_slice)
{
    uint64_t table = image->l1[l1_index(image, offset)] & QCOW2_L1_OFFSET_MASK;
    uint64_t guest_bytes = image->cluster_bytes << image->slice_bits;
    uint64_t in_table = (offset >> image->header->cluster_bits) &
                        ((UINT64_C(1) << image->l2_bits) - 1);
    struct qcow2_slice slice = { .start = round_down(offset, guest_bytes) };
    int ret = 0;

    slice.end = slice.start + guest_bytes;
    if (table != 0) {
        uint64_t bytes = table_cache_block_bytes(image->l2_slices);

        ret = co_table_cache_get(
            image->l2_slices, table + (in_table >> image->slice_bits) * bytes,
            &slice.block);
    }
    if (ret == 0) {
        *ret_slice = slice;
    }
    return ret;
}

int co_qcow2_slice_for_change(struct qcow2_image *image,
                              uint64_t offset,
                              struct qcow2_slice *ret_slice)
{
    int ret = co_own_table(image, l1_index(image, offset));

    return ret < 0 ? ret : co_get_slice(image, offset, ret_slice);
}

int co_qcow2_slice_as_is(struct qcow2_image *image,
                         uint64_t offset,
                         struct qcow2_slice *ret_slice)
{
    return co_get_slice(image, offset, ret_slice);
}

void qcow2_slice_put(struct qcow2_image *image, struct qcow2_slice *slice)
{
    if (slice->block != NULL) {
        table_cache_put(image->l2_slices, slice->block);
        slice->block = NULL;
    }
}

static uint8_t *entry_bytes(const struct qcow2_image *image,
                            const struct qcow2_slice *slice,
                            uint64_t offset)
{
    uint64_t index = (offset - slice->start) >> image->header->cluster_bits;

    return slice->block->bytes + index * image->l2_entry_bytes;
}

bool qcow2_entry_has_place(const struct qcow2_image *image,
                           const struct qcow2_entry *entry)
{
    return entry->host_offset != 0 || (image->external_data && entry->copied);
}

/* Can a standard cluster of guest offset `offset` be where the entry says? */
static bool place_is_valid(const struct qcow2_image *image,
                           uint64_t offset,
                           const struct qcow2_entry *entry)
{
    if (!qcow2_entry_has_place(image, entry)) {
        return entry->subclusters_allocated == 0;
    }
    if (image->external_data) {
        return entry->host_offset == (offset & ~image->cluster_mask);
    }
    return (entry->host_offset & image->cluster_mask) == 0 &&
           entry->host_offset < block_size(image->file);
}

int co_qcow2_slice_load(struct qcow2_image *image,
                        const struct qcow2_slice *slice,
                        uint64_t offset,
                        struct qcow2_entry *ret_entry)
{
    struct qcow2_entry entry;
    bool valid = qcow2_entry_load(entry_bytes(image, slice, offset),
                                  image->header->cluster_bits,
                                  image->has_subclusters, &entry);

    if (valid) {
        valid = entry.compressed ? !image->external_data
                                 : place_is_valid(image, offset, &entry);
    }
    if (!valid || (entry.zero && image->header->version < 3)) {
        return co_qcow2_mark_corrupt(image,
                                     "the L2 entry for guest offset "
                                     "%" G_GUINT64_FORMAT " is invalid",
                                     offset);
    }
    *ret_entry = entry;
    return 0;
}

void qcow2_slice_store(struct qcow2_image *image,
                       const struct qcow2_slice *slice,
                       uint64_t offset,
                       const struct qcow2_entry *entry)
{
    qcow2_entry_store(entry_bytes(image, slice, offset),
                      image->header->cluster_bits, image->has_subclusters,
                      entry);
    table_cache_mark_dirty(image->l2_slices, slice->block);
}

void qcow2_entry_free_place(struct qcow2_image *image,
                            const struct qcow2_entry *entry,
                            bool discarded)
{
    uint64_t bytes =
        entry->compressed ? entry->compressed_bytes : image->cluster_bytes;

    if (entry->host_offset != 0 && !image->external_data) {
        qcow2_free_later(image, entry->host_offset, bytes,
                         discarded ? QCOW2_FREE_DISCARDED
                                   : QCOW2_FREE_REPLACED);
    }
}
