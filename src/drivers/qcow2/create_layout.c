/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The refcounts count their own clusters, too, so how many there are is found
 * by trying: more clusters need more blocks, those are more clusters, until
 * nothing changes. Each step adds at most a fraction of the last.
 */
#include "drivers/qcow2/create_layout.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/format.h"

#define ENTRY_BYTES UINT64_C(8)

static uint64_t l2_entry_bytes(const struct qcow2_shape *shape)
{
    return shape->extended_l2 ? 2 * ENTRY_BYTES : ENTRY_BYTES;
}

static int too_large(const struct qcow2_shape *shape, GError **err)
{
    return error_set(err, -EFBIG,
                     "A disk of %" PRIu64 " bytes is too large for a qcow2 "
                     "image with clusters of %" PRIu64
                     " bytes; larger clusters hold more",
                     shape->size_bytes, shape->cluster_bytes);
}

static void place(struct qcow2_layout *layout, struct qcow2_area *area)
{
    area->offset_bytes = layout->file_bytes;
    layout->file_bytes += area->clusters * layout->shape.cluster_bytes;
}

/* How many refcount blocks and clusters of their table, for what else there is
 * in the file. */
static void count_refcounts(struct qcow2_layout *layout, uint64_t others)
{
    uint64_t cluster = layout->shape.cluster_bytes;
    uint64_t per_block = (cluster * 8) >> layout->shape.refcount_order;
    uint64_t total;

    do {
        total = others + layout->refcount_blocks.clusters +
                layout->refcount_table.clusters;
        layout->refcount_blocks.clusters = divide_round_up(total, per_block);
        layout->refcount_table.clusters = divide_round_up(
            layout->refcount_blocks.clusters * ENTRY_BYTES, cluster);
    } while (total != others + layout->refcount_blocks.clusters +
                          layout->refcount_table.clusters);
}

int qcow2_layout_init(struct qcow2_layout *layout,
                      const struct qcow2_shape *shape,
                      GError **err)
{
    uint64_t cluster = shape->cluster_bytes;
    uint64_t guest_clusters = divide_round_up(shape->size_bytes, cluster);
    uint64_t l1_count =
        divide_round_up(guest_clusters, cluster / l2_entry_bytes(shape));
    uint64_t in_file;

    *layout = (struct qcow2_layout){ .shape = *shape };
    if (l1_count > QCOW2_L1_COUNT_MAX) {
        return too_large(shape, err);
    }
    layout->l1_count = (uint32_t)l1_count;
    layout->l1.clusters = divide_round_up(l1_count * ENTRY_BYTES, cluster);
    if (shape->preallocated) {
        layout->l2.clusters = l1_count;
        layout->data.clusters = guest_clusters;
    }
    in_file = 1 + layout->l1.clusters + layout->l2.clusters +
              (shape->external_data ? 0 : layout->data.clusters);
    count_refcounts(layout, in_file);
    if (layout->refcount_table.clusters * cluster >
        QCOW2_REFCOUNT_TABLE_BYTES_MAX) {
        return too_large(shape, err);
    }
    layout->file_bytes = cluster; /* the header's */
    place(layout, &layout->refcount_table);
    place(layout, &layout->refcount_blocks);
    place(layout, &layout->l1);
    place(layout, &layout->l2);
    if (!shape->external_data) {
        place(layout, &layout->data);
    }
    /* An entry has no room for more. */
    return layout->file_bytes - 1 > (QCOW2_L2_OFFSET_MASK | 511)
               ? too_large(shape, err)
               : 0;
}

void qcow2_layout_fill_refcount_table(const struct qcow2_layout *layout,
                                      uint64_t position,
                                      uint8_t *buffer,
                                      size_t bytes)
{
    for (size_t i = 0; i < bytes; i += ENTRY_BYTES) {
        uint64_t index = (position + i) / ENTRY_BYTES;

        if (index >= layout->refcount_blocks.clusters) {
            return;
        }
        store_be64(buffer + i, layout->refcount_blocks.offset_bytes +
                                   index * layout->shape.cluster_bytes);
    }
}

/* Each refcount is 1. Those of less than a byte begin with the lowest bits. */
void qcow2_layout_fill_refcount_blocks(const struct qcow2_layout *layout,
                                       uint64_t position,
                                       uint8_t *buffer,
                                       size_t bytes)
{
    uint64_t clusters = layout->file_bytes / layout->shape.cluster_bytes;
    uint64_t width_bits = UINT64_C(1) << layout->shape.refcount_order;
    uint64_t first = position * 8 / width_bits;
    uint64_t count = (uint64_t)bytes * 8 / width_bits;

    if (first >= clusters) {
        return;
    }
    count = min_u64(count, clusters - first);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t bit = i * width_bits;

        if (width_bits < 8) {
            buffer[bit / 8] |= (uint8_t)(1U << (bit % 8));
        } else {
            buffer[(bit + width_bits) / 8 - 1] = 1; /* big-endian */
        }
    }
}

void qcow2_layout_fill_l1(const struct qcow2_layout *layout,
                          uint64_t position,
                          uint8_t *buffer,
                          size_t bytes)
{
    for (size_t i = 0; i < bytes; i += ENTRY_BYTES) {
        uint64_t index = (position + i) / ENTRY_BYTES;

        if (index >= layout->l2.clusters) {
            return;
        }
        store_be64(buffer + i, (layout->l2.offset_bytes +
                                index * layout->shape.cluster_bytes) |
                                   QCOW2_ENTRY_COPIED);
    }
}

void qcow2_layout_fill_l2(const struct qcow2_layout *layout,
                          uint64_t position,
                          uint8_t *buffer,
                          size_t bytes)
{
    const struct qcow2_shape *shape = &layout->shape;
    uint64_t entry_bytes = l2_entry_bytes(shape);

    for (size_t i = 0; i < bytes; i += entry_bytes) {
        uint64_t index = (position + i) / entry_bytes;

        if (index >= layout->data.clusters) {
            return;
        }
        store_be64(buffer + i,
                   (layout->data.offset_bytes + index * shape->cluster_bytes) |
                       QCOW2_ENTRY_COPIED);
        /* Over a backing file a subcluster in use would hide what is there. */
        if (shape->extended_l2 && !shape->has_backing) {
            store_be64(buffer + i + ENTRY_BYTES, UINT32_MAX);
        }
    }
}
