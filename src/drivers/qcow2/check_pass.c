/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One pass over an image:
 *
 *     everything that names clusters      -> used, how often
 *     the refcounts in the file, cluster by cluster, against that
 *     the "copied" flags, against the refcounts in the file
 *
 * What is wrong is reported and counted, and the pass goes on. It ends early
 * only when it would need too much memory or time.
 */
#include "drivers/qcow2/check_priv.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "block/driver.h"

void check_say(struct qcow2_check *check, const char *format, ...)
{
    va_list arguments;

    if (check->report != NULL) {
        g_autofree char *sentence = NULL;

        va_start(arguments, format);
        sentence = g_strdup_vprintf(format, arguments);
        va_end(arguments);
        check->report(check->opaque, sentence);
    }
}

void check_corruption(struct qcow2_check *check,
                      uint64_t times,
                      const char *format,
                      ...)
{
    va_list arguments;

    check->result.corruptions += times;
    if (check->report != NULL) {
        g_autofree char *sentence = NULL;

        va_start(arguments, format);
        sentence = g_strdup_vprintf(format, arguments);
        va_end(arguments);
        check_say(check, "corruption: %s", sentence);
    }
}

int co_check_read(struct qcow2_check *check,
                  uint64_t offset,
                  uint64_t bytes,
                  void *buffer)
{
    uint64_t there = offset < check->file_bytes
                         ? min_u64(bytes, check->file_bytes - offset)
                         : 0;
    struct iovec iov = { .iov_base = buffer, .iov_len = there };
    int ret = 0;

    memset((uint8_t *)buffer + there, 0, bytes - there);
    if (there > 0) {
        ret = co_block_child_preadv(check->file, offset, there, &iov, 1);
    }
    if (ret < 0) {
        check->result.check_errors++;
        check_say(check,
                  "cannot read %" PRIu64 " bytes at offset 0x%" PRIx64 ": %s",
                  bytes, offset, g_strerror(-ret));
    }
    return ret;
}

bool co_check_is_hole(struct qcow2_check *check,
                      uint64_t offset,
                      uint64_t bytes)
{
    while (bytes > 0 && offset < check->file_bytes) {
        struct block_extent extent = { 0 };
        uint64_t there = min_u64(bytes, check->file_bytes - offset);

        if (co_block_child_status(check->file, offset, there, &extent) < 0 ||
            (extent.status & BLOCK_STATUS_ZERO) == 0) {
            return false;
        }
        offset += extent.bytes;
        bytes -= min_u64(bytes, extent.bytes);
    }
    return true;
}

static int add_range(struct qcow2_check *check,
                     struct check_counts *counts,
                     uint64_t offset,
                     uint64_t bytes,
                     uint64_t times)
{
    uint64_t clusters = bytes / check->cluster_bytes;
    int ret = 0;

    /* Data comes cluster by cluster. Large tables cost time, and a bitmap
     * directory may name very many. */
    if (clusters > 2) {
        if (clusters > check->entries_left) {
            return -EFBIG;
        }
        check->entries_left -= clusters;
    }
    for (uint64_t cluster = offset / check->cluster_bytes;
         ret == 0 && bytes > 0 &&
         cluster <= (offset + bytes - 1) / check->cluster_bytes;
         cluster++) {
        ret = check_counts_add(counts, cluster, times);
    }
    return ret;
}

int check_use(struct qcow2_check *check,
              uint64_t offset,
              uint64_t bytes,
              uint64_t times,
              const char *what,
              bool *ret_within)
{
    uint64_t end = check->file_clusters * check->cluster_bytes;
    bool within = bytes_range_within(offset, bytes, end);

    if (ret_within != NULL) {
        *ret_within = within;
    }
    if (within) {
        return add_range(check, check->used, offset, bytes, times);
    }
    check_corruption(check, times,
                     "%s at offset 0x%" PRIx64 ", %" PRIu64
                     " bytes, is behind the end of the file",
                     what, offset, bytes);
    if (bytes > UINT64_MAX - offset) {
        return 0; /* no file gets there */
    }
    return add_range(check, check->dangling, offset, bytes, 1);
}

int check_use_table(struct qcow2_check *check,
                    uint64_t offset,
                    uint64_t bytes,
                    const char *what,
                    bool *ret_within)
{
    int ret = check_use(check, offset, bytes, 1, what, ret_within);

    return ret < 0 || !*ret_within
               ? ret
               : add_range(check, check->tables, offset, bytes, 1);
}

static int each_of_piece(struct qcow2_check *check,
                         uint64_t first,
                         uint64_t count,
                         int (*each)(struct qcow2_check *check,
                                     uint64_t index,
                                     uint64_t number,
                                     void *opaque),
                         void *opaque)
{
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        ret = each(check, first + i, load_be64(check->piece + 8 * i), opaque);
    }
    return ret;
}

int co_check_each(struct qcow2_check *check,
                  uint64_t offset,
                  uint64_t count,
                  int (*each)(struct qcow2_check *check,
                              uint64_t index,
                              uint64_t number,
                              void *opaque),
                  void *opaque)
{
    uint64_t step = CHECK_PIECE_BYTES / 8;
    int ret = 0;

    if (count > check->entries_left) {
        return -EFBIG;
    }
    check->entries_left -= count;
    for (uint64_t done = 0; ret == 0 && done < count; done += step) {
        uint64_t now = min_u64(step, count - done);

        if (co_check_is_hole(check, offset + 8 * done, 8 * now)) {
            continue;
        }
        /* What cannot be read is known to be so; go on with the rest. */
        if (co_check_read(check, offset + 8 * done, 8 * now, check->piece) <
            0) {
            check->is_incomplete = true;
            continue;
        }
        ret = each_of_piece(check, done, now, each, opaque);
    }
    return ret;
}

static int co_count_uses(struct qcow2_check *check)
{
    bool within;
    int ret =
        check_use_table(check, 0, check->cluster_bytes, "the header", &within);

    if (ret == 0) {
        ret = co_check_active_l1(check);
    }
    if (ret == 0) {
        ret = co_check_snapshots(check);
    }
    if (ret == 0) {
        ret = co_check_l2_tables(check);
    }
    if (ret == 0) {
        ret = co_check_bitmaps(check);
    }
    if (ret == 0) {
        ret = co_check_refcount_structures(check);
    }
    return ret;
}

/* Is a table also something else? One L2 table may be named often. */
static void find_overlaps(struct qcow2_check *check)
{
    uint64_t cluster = check_counts_next(check->tables, 0);

    for (; cluster != CHECK_COUNTS_NONE;
         cluster = check_counts_next(check->tables, cluster + 1)) {
        uint64_t names = check_counts_get(check->l2_tables, cluster);

        check->is_entangled |= check_counts_get(check->tables, cluster) > 1;
        check->result.tables_overlap |=
            check_counts_get(check->used, cluster) > MAX(names, 1);
    }
    for (uint64_t i = 0; i < check->refcount_table_count; i += 64) {
        cluster = (check->header->refcount_table_offset + 8 * i) /
                  check->cluster_bytes;
        check->result.tables_overlap |=
            check_counts_get(check->used, cluster) > 1;
    }
    if (check->result.tables_overlap) {
        check_say(check, "tables overlap other tables or data: writing to the "
                         "image may destroy either; copy what it holds to a "
                         "new image");
    }
}

void check_pass_release(struct qcow2_check *check)
{
    g_clear_pointer(&check->used, check_counts_free);
    g_clear_pointer(&check->tables, check_counts_free);
    g_clear_pointer(&check->dangling, check_counts_free);
    g_clear_pointer(&check->l2_tables, check_counts_free);
    g_clear_pointer(&check->l2_active, check_counts_free);
    g_clear_pointer(&check->refcount_table, g_free);
    check->block_offset = 0;
}

int co_check_pass(struct qcow2_check *check)
{
    int ret;

    check_pass_release(check);
    check->result = (struct qcow2_check_result){
        .total_clusters =
            divide_round_up(check->header->size_bytes, check->cluster_bytes),
    };
    check->wrong_flags = 0;
    check->entries_left = CHECK_ENTRIES_MAX;
    check->is_incomplete = false;
    check->is_entangled = false;
    check->needs_rebuild = false;
    check->needs_entries = false;
    check->file_bytes = block_size(check->file);
    check->file_clusters =
        divide_round_up(check->file_bytes, check->cluster_bytes);
    check->used = check_counts_new(CHECK_COUNTS_BYTES);
    check->tables = check_counts_new(CHECK_COUNTS_BYTES);
    check->dangling = check_counts_new(CHECK_COUNTS_BYTES);
    check->l2_tables = check_counts_new(CHECK_COUNTS_BYTES);
    check->l2_active = check_counts_new(CHECK_COUNTS_BYTES);
    ret = co_count_uses(check);
    if (ret == 0) {
        find_overlaps(check);
        ret = co_check_compare(check);
    }
    if (ret == 0) {
        ret = co_check_copied(check, false, NULL);
    }
    return ret;
}
