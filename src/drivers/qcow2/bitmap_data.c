/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading what one bitmap takes of the file: its table, piece by piece, and the
 * clusters that the table names. What an image says is checked where it is used:
 * a table within the file, entries without reserved bits, clusters aligned, within
 * the file and not where tables of the image are.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/bitmaps_priv.h"
#include "drivers/qcow2/cluster_set.h"

#define PIECE_ENTRIES  UINT64_C(8192) /* of a table at a time */
#define READ_BYTES_MAX (UINT64_C(256) << 10)

/* An entry of a table: what its cluster is. */
static bool entry_is_valid(const struct qcow2_image *image, uint64_t entry)
{
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;

    if ((entry & QCOW2_BITMAP_TABLE_RESERVED) != 0) {
        return false;
    }
    if (offset == 0) {
        return true;
    }
    return (entry & QCOW2_BITMAP_ALL_ONES) == 0 &&
           (offset & image->cluster_mask) == 0 &&
           bytes_range_within(
               offset, image->cluster_bytes,
               round_up(block_size(image->file), image->cluster_bytes)) &&
           (image->metadata == NULL ||
            !cluster_set_meets(image->metadata, offset, image->cluster_bytes));
}

/* Entries [first, first + count), in host order and valid. */
static int co_read_entries(struct qcow2_image *image,
                           const struct qcow2_stored_bitmap *bitmap,
                           uint64_t first,
                           uint64_t count,
                           uint64_t *entries)
{
    uint64_t offset = bitmap->table_offset + first * sizeof(*entries);
    struct iovec iov = { entries, count * sizeof(*entries) };
    int ret;

    if (!bytes_range_within(offset, iov.iov_len, block_size(image->file))) {
        return -EINVAL;
    }
    ret = co_block_child_preadv(image->file, offset, iov.iov_len, &iov, 1);
    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        entries[i] = be64toh(entries[i]);
        if (!entry_is_valid(image, entries[i])) {
            ret = -EINVAL;
        }
    }
    return ret;
}

int co_qcow2_bitmap_visit(struct qcow2_image *image,
                          const struct qcow2_stored_bitmap *bitmap,
                          int (*visit)(void *opaque, uint64_t host_offset),
                          void *opaque)
{
    g_autofree uint64_t *entries = g_new(uint64_t, PIECE_ENTRIES);
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < bitmap->table_count;
         i += PIECE_ENTRIES) {
        uint64_t count = min_u64(PIECE_ENTRIES, bitmap->table_count - i);

        ret = co_read_entries(image, bitmap, i, count, entries);
        for (uint64_t k = 0; ret == 0 && k < count; k++) {
            uint64_t offset = entries[k] & QCOW2_L2_OFFSET_MASK;

            if (offset != 0) {
                ret = visit(opaque, offset);
            }
        }
    }
    return ret;
}

/*
 * Loading.
 */

struct load {
    struct qcow2_image *image;
    void (*take)(void *opaque,
                 uint64_t first_word,
                 const uint64_t *words,
                 uint64_t word_count);
    void *opaque;
    uint64_t *words; /* READ_BYTES_MAX, or a cluster if that is more */
};

static void give(struct load *load, uint64_t first_byte, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes / 8; i++) {
        load->words[i] = le64toh(load->words[i]);
    }
    load->take(load->opaque, first_byte / 8, load->words, bytes / 8);
}

/* How many entries from the first on are one thing that is read at once. */
static uint64_t find_run(const struct qcow2_image *image,
                         const uint64_t *entries,
                         uint64_t count)
{
    uint64_t limit = max_u64(READ_BYTES_MAX / image->cluster_bytes, 1);
    uint64_t run = 1;

    while (run < min_u64(count, limit) && entries[0] >= image->cluster_bytes &&
           entries[run] == entries[0] + run * image->cluster_bytes) {
        run++;
    }
    return run;
}

static int co_load_run(struct load *load,
                       uint64_t entry,
                       uint64_t index,
                       uint64_t run)
{
    uint64_t cluster_bytes = load->image->cluster_bytes;
    uint64_t bytes = run * cluster_bytes;
    struct iovec iov = { load->words, bytes };
    uint64_t in_file;
    int ret;

    if (entry == 0) {
        return 0;
    }
    if (entry == QCOW2_BITMAP_ALL_ONES) {
        memset(load->words, 0xff, bytes);
        give(load, index * cluster_bytes, bytes);
        return 0;
    }
    /* The last cluster of a file may be cut short. */
    in_file = min_u64(bytes, block_size(load->image->file) - entry);
    memset(load->words, 0, bytes);
    iov.iov_len = in_file;
    ret = co_block_child_preadv(load->image->file, entry, in_file, &iov, 1);
    if (ret == 0) {
        give(load, index * cluster_bytes, bytes);
    }
    return ret;
}

static int co_load_all(struct load *load,
                       const struct qcow2_stored_bitmap *bitmap,
                       uint64_t table_count)
{
    g_autofree uint64_t *entries = g_new(uint64_t, PIECE_ENTRIES);
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < table_count; i += PIECE_ENTRIES) {
        uint64_t count = min_u64(PIECE_ENTRIES, table_count - i);

        ret = co_read_entries(load->image, bitmap, i, count, entries);
        for (uint64_t k = 0; ret == 0 && k < count;) {
            uint64_t run = find_run(load->image, entries + k, count - k);

            ret = co_load_run(load, entries[k], i + k, run);
            k += run;
        }
    }
    return ret;
}

int co_qcow2_bitmap_load(struct block_node *node,
                         const struct qcow2_stored_bitmap *bitmap,
                         void (*take)(void *opaque,
                                      uint64_t first_word,
                                      const uint64_t *words,
                                      uint64_t word_count),
                         void *opaque,
                         GError **err)
{
    struct qcow2_image *image = block_state(node);
    uint64_t bytes =
        qcow2_bitmap_bytes(image->header->size_bytes, bitmap->granularity_bits);
    g_autofree uint64_t *words =
        g_try_malloc(max_u64(READ_BYTES_MAX, image->cluster_bytes));
    struct load load = {
        .image = image,
        .take = take,
        .opaque = opaque,
        .words = words,
    };
    int ret = words == NULL ? -ENOMEM : 0;

    g_assert(qcow2_bitmap_problem(node, bitmap) == NULL);
    if (ret == 0) {
        ret = co_load_all(&load, bitmap,
                          divide_round_up(bytes, image->cluster_bytes));
    }
    if (ret == -EINVAL) {
        return error_set(err, ret,
                         "node '%s': the table of bitmap '%s' in its image is "
                         "not valid",
                         block_name(node), bitmap->name);
    }
    return ret < 0 ? error_set_errno(err, ret,
                                     "node '%s': bitmap '%s' cannot be read "
                                     "from its image",
                                     block_name(node), bitmap->name)
                   : 0;
}
