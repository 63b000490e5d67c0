/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Refcounts put right where they are. Those that are too low first, as a crash
 * in between must not leave a cluster that is used and free; those that are too
 * high when nothing else is wrong any more.
 */
#include "base/bytes.h"
#include "drivers/qcow2/check_priv.h"
#include "drivers/qcow2/refcount_entry.h"

/* Changes the block that is in memory; tells whether it did. */
static bool mend_block(struct qcow2_check *check,
                       uint64_t start,
                       uint64_t end,
                       bool increase)
{
    unsigned int order = check->header->refcount_order;
    bool changed = false;

    for (uint64_t cluster = start; cluster < end; cluster++) {
        uint64_t counted =
            qcow2_refcount_load(check->block, order, cluster - start);
        uint64_t used = min_u64(check_counts_get(check->used, cluster),
                                check->refcount_max);

        if (increase ? used > counted : used < counted) {
            qcow2_refcount_store(check->block, order, cluster - start, used);
            changed = true;
        }
    }
    return changed;
}

static int co_mend(struct qcow2_check *check, bool increase, GError **err)
{
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < check->refcount_table_count; i++) {
        uint64_t start = i * check->block_entries;
        uint64_t end =
            min_u64(start + check->block_entries, check->file_clusters);
        uint64_t offset = check->refcount_table[i];

        if (offset == 0 || start >= end) {
            continue;
        }
        if (co_check_is_hole(check, offset, check->cluster_bytes) &&
            check_counts_next(check->used, start) >= end) {
            continue;
        }
        check->block_offset = 0; /* not to be believed while it changes */
        if (co_check_read(check, offset, check->cluster_bytes, check->block) ==
                0 &&
            mend_block(check, start, end, increase)) {
            ret = co_repair_write(check, offset, check->cluster_bytes,
                                  check->block, err);
        }
    }
    return ret;
}

int co_repair_increase(struct qcow2_check *check, GError **err)
{
    return co_mend(check, true, err);
}

int co_repair_decrease(struct qcow2_check *check, GError **err)
{
    return co_mend(check, false, err);
}
