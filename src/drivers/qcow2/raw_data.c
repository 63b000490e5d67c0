/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What reads as zeroes becomes zeroes in the data file, then the entries say
 * that there is data. A commit syncs the data file before it writes entries, so
 * a crash leaves one or the other, and both read as zeroes.
 */
#include "drivers/qcow2/raw_data.h"

#include "base/bytes.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/l2_table.h"
#include "drivers/qcow2/metadata_commit.h"

/* Much of this never waits, and others want to run, too. */
#define SLICES_AT_A_TIME 16

/* [offset, end) is held. */
static int co_zero_what_is_no_data(struct qcow2_image *image,
                                   uint64_t offset,
                                   uint64_t end)
{
    while (offset < end) {
        struct qcow2_mapping mapping;
        int ret = co_qcow2_mapping(image, offset, end - offset, &mapping);

        if (ret == 0 && mapping.kind != QCOW2_MAPPING_DATA) {
            ret = co_qcow2_zero_data(image, offset, mapping.bytes, 0);
        }
        if (ret < 0) {
            return ret;
        }
        offset += mapping.bytes;
    }
    return 0;
}

/* Whole clusters of one slice. */
static int co_name_clusters(struct qcow2_image *image,
                            uint64_t start,
                            uint64_t end)
{
    struct qcow2_slice slice;
    int ret = co_qcow2_slice_for_change(image, start, &slice);

    if (ret < 0) {
        return ret;
    }
    for (uint64_t at = start; at < end; at += image->cluster_bytes) {
        const struct qcow2_entry entry = {
            .copied = true,
            .host_offset = at,
            .subclusters_allocated = image->has_subclusters ? UINT32_MAX : 0,
        };

        qcow2_slice_store(image, &slice, at, &entry);
    }
    image->raw_named++;
    qcow2_slice_put(image, &slice);
    return 0;
}

static int co_map_slice(struct qcow2_image *image,
                        uint64_t start,
                        uint64_t end,
                        uint64_t limit)
{
    struct range_hold hold;
    int ret = 0;

    co_range_lock(&image->ranges, &hold, start, end - start);
    if (start < limit) {
        ret = co_zero_what_is_no_data(image, start, min_u64(end, limit));
    }
    if (ret == 0) {
        ret = co_name_clusters(image, start, end);
    }
    range_unlock(&image->ranges, &hold);
    return ret;
}

int co_qcow2_map_raw(struct qcow2_image *image,
                     uint64_t offset,
                     uint64_t end,
                     uint64_t limit)
{
    uint64_t slice_bytes = image->cluster_bytes << image->slice_bits;
    unsigned int slices = 0;
    int ret = 0;

    offset = round_down(offset, image->cluster_bytes);
    end = round_up(end, image->cluster_bytes);
    while (ret == 0 && offset < end) {
        uint64_t stop =
            min_u64(end, round_down(offset, slice_bytes) + slice_bytes);

        ret = co_map_slice(image, offset, stop, limit);
        offset = stop;
        slices++;
        if (slices % SLICES_AT_A_TIME == 0) {
            co_reschedule();
        }
    }
    return ret;
}

bool qcow2_raw_is_settled(const struct qcow2_image *image)
{
    return image->raw_named == image->raw_durable;
}

int co_qcow2_settle_raw(struct qcow2_image *image)
{
    while (!qcow2_raw_is_settled(image)) {
        uint64_t named = image->raw_named;
        int ret = co_qcow2_commit(image);

        if (ret < 0) {
            return ret;
        }
        image->raw_durable = max_u64(image->raw_durable, named);
    }
    return 0;
}
