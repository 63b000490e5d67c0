/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * L2 entries that are wrong in a way that loses nothing when it is mended: a
 * compressed cluster with the copied flag, and a preallocated cluster that is
 * not aligned, of which nobody reads. All others stay as they are: nobody knows
 * where the data is that they should name.
 */
#include "base/bytes.h"
#include "drivers/qcow2/check_priv.h"

/* Changes the entry; false: there was nothing to change. */
static bool mend_entry(const struct qcow2_check *check, uint8_t *bytes)
{
    uint64_t entry = load_be64(bytes);
    uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;
    bool extended = check->l2_entry_bytes == 16;

    if ((entry & QCOW2_L2_COMPRESSED) != 0) {
        if ((entry & QCOW2_ENTRY_COPIED) == 0) {
            return false;
        }
        store_be64(bytes, entry & ~QCOW2_ENTRY_COPIED);
        return true;
    }
    if (offset % check->cluster_bytes == 0) {
        return false;
    }
    if (extended ? (uint32_t)load_be64(bytes + 8) != 0
                 : check->header->version < 3 || (entry & QCOW2_L2_ZERO) == 0) {
        return false;
    }
    store_be64(bytes, entry & ~(QCOW2_L2_OFFSET_MASK | QCOW2_ENTRY_COPIED));
    return true;
}

int co_repair_entries(struct qcow2_check *check, GError **err)
{
    uint64_t cluster = check_counts_next(check->l2_tables, 0);
    int ret = 0;

    for (; ret == 0 && cluster != CHECK_COUNTS_NONE;
         cluster = check_counts_next(check->l2_tables, cluster + 1)) {
        uint64_t offset = cluster * check->cluster_bytes;
        bool changed = false;

        if (co_check_is_hole(check, offset, check->cluster_bytes) ||
            co_check_read(check, offset, check->cluster_bytes, check->cluster) <
                0) {
            continue;
        }
        for (uint64_t i = 0; i < check->cluster_bytes;
             i += check->l2_entry_bytes) {
            changed |= mend_entry(check, check->cluster + i);
        }
        if (changed) {
            ret = co_repair_write(check, offset, check->cluster_bytes,
                                  check->cluster, err);
        }
    }
    return ret;
}
