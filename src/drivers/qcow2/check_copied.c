/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The "copied" flags: set exactly where the refcount is 1. A flag that is set
 * wrongly lets a write destroy what a snapshot or another cluster holds; one
 * that is missing costs a copy. Only the active L1 table and its L2 tables have
 * them right (docs/interop/qcow2.txt, "Cluster mapping").
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "drivers/qcow2/check_priv.h"

struct copied {
    struct qcow2_check *check;
    bool mend;
    uint64_t at;    /* where in the file the entries come from */
    uint64_t times; /* how often the table is named */
    bool changed;
    GError **err;
};

/* Says whether the flag of an entry that names `offset` is wrong. */
static int co_is_wrong(struct copied *copied,
                       uint64_t entry,
                       uint64_t offset,
                       const char *what,
                       bool *ret_wrong)
{
    struct qcow2_check *check = copied->check;
    uint64_t cluster = offset / check->cluster_bytes;
    uint64_t count;
    int ret = 0;

    if (copied->mend && !check->is_incomplete) {
        count = check_counts_get(check->used, cluster); /* soon, if not yet */
    } else {
        ret = co_check_refcount(check, cluster, &count);
    }
    *ret_wrong =
        ret == 0 && (count == 1) != ((entry & QCOW2_ENTRY_COPIED) != 0);
    if (*ret_wrong && !copied->mend) {
        check->wrong_flags += copied->times;
        check_corruption(check, copied->times,
                         "the entry for %s at offset 0x%" PRIx64
                         " has the copied flag %s, and its refcount is "
                         "%" PRIu64,
                         what, offset,
                         (entry & QCOW2_ENTRY_COPIED) != 0 ? "set" : "clear",
                         count);
    }
    return ret;
}

static int co_check_number(struct copied *copied,
                           uint8_t *bytes,
                           uint64_t offset,
                           const char *what)
{
    uint64_t entry = load_be64(bytes);
    bool wrong;

    if (co_is_wrong(copied, entry, offset, what, &wrong) < 0) {
        return 0; /* reported as a check error */
    }
    if (wrong && copied->mend) {
        store_be64(bytes, entry ^ QCOW2_ENTRY_COPIED);
        copied->changed = true;
    }
    return 0;
}

static void co_check_l2_bytes(struct copied *copied)
{
    struct qcow2_check *check = copied->check;

    for (uint64_t i = 0; i < check->cluster_bytes; i += check->l2_entry_bytes) {
        uint64_t entry = load_be64(check->cluster + i);
        uint64_t offset = entry & QCOW2_L2_OFFSET_MASK;

        if ((entry & QCOW2_L2_COMPRESSED) == 0 && offset != 0 &&
            !check->external_data) {
            (void)co_check_number(copied, check->cluster + i, offset,
                                  "the cluster");
        }
    }
}

/* The active L2 tables, each once. */
static int co_check_l2_flags(struct copied *copied)
{
    struct qcow2_check *check = copied->check;
    uint64_t cluster = check_counts_next(check->l2_active, 0);
    int ret = 0;

    for (; ret == 0 && cluster != CHECK_COUNTS_NONE;
         cluster = check_counts_next(check->l2_active, cluster + 1)) {
        copied->at = cluster * check->cluster_bytes;
        copied->times = check_counts_get(check->l2_active, cluster);
        copied->changed = false;
        if (co_check_is_hole(check, copied->at, check->cluster_bytes) ||
            co_check_read(check, copied->at, check->cluster_bytes,
                          check->cluster) < 0) {
            continue;
        }
        co_check_l2_bytes(copied);
        if (copied->changed) {
            ret = co_repair_write(check, copied->at, check->cluster_bytes,
                                  check->cluster, copied->err);
        }
    }
    return ret;
}

static void co_check_l1_bytes(struct copied *copied, uint64_t bytes)
{
    struct qcow2_check *check = copied->check;

    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t offset = load_be64(check->piece + i) & QCOW2_L1_OFFSET_MASK;

        if (offset != 0) {
            (void)co_check_number(copied, check->piece + i, offset,
                                  "the L2 table");
        }
    }
}

static int co_check_l1_flags(struct copied *copied)
{
    struct qcow2_check *check = copied->check;
    uint64_t bytes = 8 * (uint64_t)check->header->l1_count;
    uint64_t offset = check->header->l1_offset;
    int ret = 0;

    copied->times = 1;
    for (uint64_t done = 0; ret == 0 && done < bytes;) {
        uint64_t now = min_u64(CHECK_PIECE_BYTES, bytes - done);

        copied->at = offset + done;
        done += now;
        copied->changed = false;
        if (!bytes_range_within(copied->at, now, check->file_bytes) ||
            co_check_is_hole(check, copied->at, now) ||
            co_check_read(check, copied->at, now, check->piece) < 0) {
            continue;
        }
        co_check_l1_bytes(copied, now);
        if (copied->changed) {
            ret = co_repair_write(check, copied->at, now, check->piece,
                                  copied->err);
        }
    }
    return ret;
}

int co_check_copied(struct qcow2_check *check, bool mend, GError **err)
{
    struct copied copied = { .check = check, .mend = mend, .err = err };
    int ret = 0;

    if (!check->ignore_refcounts) {
        ret = co_check_l1_flags(&copied);
        if (ret == 0) {
            ret = co_check_l2_flags(&copied);
        }
    }
    return ret;
}
