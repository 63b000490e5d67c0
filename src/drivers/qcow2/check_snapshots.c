/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The snapshot table, and the L1 tables it names. Source:
 * docs/interop/qcow2.txt, "Snapshots". An entry that cannot be made out ends
 * the table: where the next begins is not known.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "drivers/qcow2/check_priv.h"

/* Bytes of an entry without extra data, id and name. */
#define ENTRY_BYTES 40
/* The extra data that version 3 asks for; more than the most is refused. */
#define EXTRA_BYTES_V3  16
#define EXTRA_BYTES_MAX 1024

struct snapshot {
    uint64_t l1_offset;
    uint64_t l1_count;
    uint64_t entry_bytes;
    uint64_t extra_bytes;
};

/* Reads the fixed part of the entry at `offset`. */
static int co_read_entry(struct qcow2_check *check,
                         uint64_t offset,
                         struct snapshot *ret_snapshot)
{
    uint8_t bytes[ENTRY_BYTES];
    int ret = co_check_read(check, offset, sizeof(bytes), bytes);

    if (ret == 0) {
        ret_snapshot->l1_offset = load_be64(bytes);
        ret_snapshot->l1_count = load_be32(bytes + 8);
        ret_snapshot->extra_bytes = load_be32(bytes + 36);
        ret_snapshot->entry_bytes =
            round_up(ENTRY_BYTES + ret_snapshot->extra_bytes +
                         load_be16(bytes + 12) + load_be16(bytes + 14),
                     8);
    }
    return ret;
}

static int co_check_snapshot(struct qcow2_check *check,
                             uint32_t index,
                             const struct snapshot *snapshot)
{
    if (check->header->version > 2 && snapshot->extra_bytes < EXTRA_BYTES_V3) {
        check_corruption(check, 1,
                         "entry %" PRIu32 " of the snapshot table is "
                         "incomplete: it has %" PRIu64 " bytes of extra data, "
                         "not %d",
                         index, snapshot->extra_bytes, EXTRA_BYTES_V3);
    }
    if (snapshot->l1_count > QCOW2_L1_COUNT_MAX) {
        check_corruption(check, 1,
                         "the L1 table of snapshot %" PRIu32 " is too large: "
                         "%" PRIu64 " entries",
                         index, snapshot->l1_count);
        check->is_incomplete = true;
        return 0;
    }
    if (snapshot->l1_offset % check->cluster_bytes != 0) {
        check_corruption(check, 1,
                         "the L1 table of snapshot %" PRIu32
                         " is not aligned: 0x%" PRIx64,
                         index, snapshot->l1_offset);
        check->is_incomplete = true;
        return 0;
    }
    return co_check_snapshot_l1(check, snapshot->l1_offset, snapshot->l1_count);
}

int co_check_snapshots(struct qcow2_check *check)
{
    uint64_t start = check->header->snapshots_offset;
    uint64_t end = start;
    bool within;
    int ret = 0;

    if (check->header->snapshot_count == 0) {
        return 0;
    }
    for (uint32_t i = 0; ret == 0 && i < check->header->snapshot_count; i++) {
        struct snapshot snapshot = { 0 };

        if (!bytes_range_within(end, ENTRY_BYTES,
                                check->file_clusters * check->cluster_bytes)) {
            check->is_incomplete = true;
            ret = check_use(check, end, ENTRY_BYTES, 1,
                            "an entry of the snapshot table", NULL);
            break;
        }
        if (co_read_entry(check, end, &snapshot) < 0) {
            check->is_incomplete = true;
            break;
        }
        if (snapshot.extra_bytes > EXTRA_BYTES_MAX ||
            end + snapshot.entry_bytes - start >
                QCOW2_SNAPSHOT_TABLE_BYTES_MAX) {
            check_corruption(check, 1,
                             "entry %" PRIu32 " of the snapshot table is too "
                             "large: %" PRIu64 " bytes",
                             i, snapshot.entry_bytes);
            check->is_incomplete = true;
            break;
        }
        end += snapshot.entry_bytes;
        ret = co_check_snapshot(check, i, &snapshot);
    }
    if (ret == 0 && end > start) {
        ret = check_use_table(check, start, end - start, "the snapshot table",
                              &within);
    }
    return ret;
}
