/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A part is a subcluster, or the cluster where there are none. A part whose data
 * stays in its place needs no fill. A cluster that moves with data in it (it was
 * shared, or compressed) is filled as a whole, so that it is one thing after.
 */
#include "drivers/qcow2/fill.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

/* Read head, data's place and tail in one go up to this length. */
#define READ_TOGETHER_BYTES (128 * KIB)

void qcow2_fill_release(struct qcow2_fill *fill)
{
    g_clear_pointer(&fill->buffer, g_free);
}

static uint32_t part_bit(const struct qcow2_image *image, uint64_t offset)
{
    return UINT32_C(1) << ((offset & image->cluster_mask) /
                           image->subcluster_bytes);
}

/* Is the part with that byte data in the entry's host cluster? */
static bool part_is_data(const struct qcow2_image *image,
                         const struct qcow2_entry *entry,
                         uint64_t offset)
{
    if (image->has_subclusters) {
        return (entry->subclusters_allocated & part_bit(image, offset)) != 0;
    }
    return qcow2_entry_has_place(image, entry) && !entry->zero;
}

bool qcow2_entry_has_data(const struct qcow2_image *image,
                          const struct qcow2_entry *entry)
{
    if (entry->compressed) {
        return true;
    }
    return image->has_subclusters
               ? entry->subclusters_allocated != 0
               : qcow2_entry_has_place(image, entry) && !entry->zero;
}

uint64_t qcow2_fill_start(const struct qcow2_image *image,
                          const struct qcow2_entry *entry,
                          uint64_t offset,
                          bool in_place)
{
    if (!in_place && qcow2_entry_has_data(image, entry)) {
        return round_down(offset, image->cluster_bytes);
    }
    if (in_place && part_is_data(image, entry, offset)) {
        return offset;
    }
    return round_down(offset, image->subcluster_bytes);
}

uint64_t qcow2_fill_end(const struct qcow2_image *image,
                        const struct qcow2_entry *entry,
                        uint64_t offset,
                        bool in_place)
{
    if (!in_place && qcow2_entry_has_data(image, entry)) {
        return round_up(offset, image->cluster_bytes);
    }
    if (in_place && part_is_data(image, entry, offset - 1)) {
        return offset;
    }
    return round_up(offset, image->subcluster_bytes);
}

/* Do the tables say that the part reads as zeroes? */
static bool part_is_zero(const struct qcow2_image *image,
                         const struct qcow2_entry *entry,
                         uint64_t offset)
{
    if (qcow2_entry_has_data(image, entry)) {
        return false; /* nearly: some of its parts may be */
    }
    if (entry->zero ||
        (image->has_subclusters &&
         (entry->subclusters_zero & part_bit(image, offset)) != 0)) {
        return true;
    }
    return image->backing == NULL || offset >= block_size(image->backing);
}

void qcow2_fill_set(const struct qcow2_image *image,
                    const struct qcow2_entry *entry,
                    uint64_t start,
                    uint64_t end,
                    struct qcow2_fill *ret_fill)
{
    *ret_fill = (struct qcow2_fill){
        .offset = start,
        .bytes = end - start,
        .is_zero = start == end || part_is_zero(image, entry, start),
    };
}

/* What the guest sees; behind the end of the disk zeroes. */
static int co_read(struct qcow2_image *image,
                   uint64_t offset,
                   uint64_t bytes,
                   uint8_t *buffer)
{
    uint64_t size_bytes = block_size(image->node);
    uint64_t there =
        offset < size_bytes ? min_u64(bytes, size_bytes - offset) : 0;
    struct iovec iov = { buffer, there };

    memset(buffer + there, 0, bytes - there);
    return there == 0 ? 0
                      : co_qcow2_preadv(image->node, offset, there, &iov, 1);
}

static void look_for_zeroes(struct qcow2_fill *fill)
{
    const uint8_t *bytes = fill->content;

    if (!fill->is_zero && fill->bytes > 0 && bytes[0] == 0 &&
        memcmp(bytes, bytes + 1, fill->bytes - 1) == 0) {
        fill->is_zero = true;
    }
}

static int co_read_one(struct qcow2_image *image, struct qcow2_fill *fill)
{
    if (fill->is_zero || fill->bytes == 0) {
        return 0;
    }
    fill->buffer = g_try_malloc(fill->bytes);
    if (fill->buffer == NULL) {
        return -ENOMEM;
    }
    fill->content = fill->buffer;
    return co_read(image, fill->offset, fill->bytes, fill->buffer);
}

static int co_read_both(struct qcow2_image *image,
                        struct qcow2_fill *head,
                        struct qcow2_fill *tail)
{
    uint64_t bytes = tail->offset + tail->bytes - head->offset;

    head->buffer = g_try_malloc(bytes);
    if (head->buffer == NULL) {
        return -ENOMEM;
    }
    head->content = head->buffer;
    tail->content = head->buffer + (tail->offset - head->offset);
    return co_read(image, head->offset, bytes, head->buffer);
}

int co_qcow2_fill_read(struct qcow2_image *image,
                       struct qcow2_fill *head,
                       struct qcow2_fill *tail)
{
    int ret;

    if (!head->is_zero && !tail->is_zero &&
        tail->offset + tail->bytes - head->offset <= READ_TOGETHER_BYTES) {
        ret = co_read_both(image, head, tail);
    } else {
        ret = co_read_one(image, head);
        if (ret == 0) {
            ret = co_read_one(image, tail);
        }
    }
    if (ret == 0) {
        look_for_zeroes(head);
        look_for_zeroes(tail);
    }
    return ret;
}
