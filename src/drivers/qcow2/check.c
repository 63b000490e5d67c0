/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A check is one pass over the image (check_pass.c). A repair is a pass, what
 * it gives cause for, and one more pass, which tells what is left:
 *
 *     entries that can be mended      |sync|  count anew
 *     refcounts that are too low, or new refcounts    |sync|
 *     copied flags                    |sync|
 *     refcounts that are too high     |sync|
 *     the dirty and corrupt bits, if nothing is wrong any more
 *
 * If some table could not be followed, refcounts that look too high stay: what
 * that table names may be lost, or may be found again by hand. If one table is
 * another, too, nothing is repaired.
 */
#include "drivers/qcow2/check.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/driver.h"
#include "drivers/qcow2/check_priv.h"

int co_repair_write(struct qcow2_check *check,
                    uint64_t offset,
                    uint64_t bytes,
                    const void *buffer,
                    GError **err)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)buffer,
                         .iov_len = bytes };
    uint64_t there = offset < check->file_bytes
                         ? min_u64(bytes, block_size(check->file) - offset)
                         : bytes;
    int ret;

    iov.iov_len = there; /* the file may end within a cluster */
    ret = co_block_child_pwritev(check->file, offset, there, &iov, 1, 0);
    return ret < 0 ? error_set_errno(err, ret,
                                     "image '%s': cannot write at offset "
                                     "%" PRIu64,
                                     check->name, offset)
                   : 0;
}

int co_repair_sync(struct qcow2_check *check, GError **err)
{
    int ret = co_block_child_flush(check->file);

    return ret < 0 ? error_set_errno(err, ret, "image '%s': cannot flush",
                                     check->name)
                   : 0;
}

/* A pass, and if it gave up, why. */
static int co_pass(struct qcow2_check *check, bool silent, GError **err)
{
    qcow2_check_report *report = check->report;
    int ret;

    if (silent) {
        check->report = NULL;
    }
    ret = co_check_pass(check);
    check->report = report;
    if (ret == -ENOMEM || ret == -EFBIG) {
        return error_set(err, -EFBIG,
                         "image '%s': its tables name more than can be "
                         "checked",
                         check->name);
    }
    return ret < 0 ? error_set_errno(err, ret, "image '%s': cannot check it",
                                     check->name)
                   : 0;
}

/* Before the first write: autoclear bits of features we do not know. */
static int co_clear_unknown(struct qcow2_check *check, GError **err)
{
    uint64_t known = QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    uint8_t field[8];
    int ret;

    if ((check->header->autoclear & ~known) == 0) {
        return 0;
    }
    check->header->autoclear &= known;
    store_be64(field, check->header->autoclear);
    ret = co_repair_write(check, QCOW2_AUTOCLEAR, sizeof(field), field, err);
    return ret < 0 ? ret : co_repair_sync(check, err);
}

static int co_repair_flags(struct qcow2_check *check, GError **err)
{
    int ret = co_check_copied(check, true, err);

    return ret < 0 ? ret : co_repair_sync(check, err);
}

static int co_repair_leaks(struct qcow2_check *check, GError **err)
{
    int ret;

    if (check->result.leaks == 0 || check->is_incomplete) {
        return 0;
    }
    ret = co_repair_decrease(check, err);
    return ret < 0 ? ret : co_repair_sync(check, err);
}

static int co_repair_too_low(struct qcow2_check *check, GError **err)
{
    int ret;

    if (check->needs_rebuild) {
        ret = co_repair_rebuild(check, err);
        if (ret == 0) {
            ret = co_pass(check, true, err);
        }
        if (ret < 0 || !check->needs_rebuild) {
            return ret;
        }
    }
    ret = co_repair_increase(check, err);
    return ret < 0 ? ret : co_repair_sync(check, err);
}

static int co_repair_all(struct qcow2_check *check, GError **err)
{
    int ret = 0;

    if (check->needs_entries) {
        ret = co_repair_entries(check, err);
        if (ret == 0) {
            ret = co_repair_sync(check, err);
        }
        if (ret == 0) {
            ret = co_pass(check, true, err);
        }
    }
    if (ret == 0) {
        ret = co_repair_too_low(check, err);
    }
    if (ret == 0) {
        ret = co_repair_flags(check, err);
    }
    return ret < 0 ? ret : co_repair_leaks(check, err);
}

static int co_repair(struct qcow2_check *check,
                     enum qcow2_repair repair,
                     GError **err)
{
    uint64_t others = check->result.corruptions - check->wrong_flags;
    int ret;

    if (check->is_entangled) {
        check_say(check, "nothing is repaired: a table is another table, too, "
                         "and mending one would change the other");
        return 0;
    }
    ret = co_clear_unknown(check, err);
    if (ret < 0 || repair == QCOW2_REPAIR_ALL) {
        return ret < 0 ? ret : co_repair_all(check, err);
    }
    ret = co_repair_leaks(check, err);
    /* With all else right, so are the refcounts now, and the flags follow. */
    return ret < 0 || others > 0 || check->is_incomplete
               ? ret
               : co_repair_flags(check, err);
}

static int co_clear_bits(struct qcow2_check *check, GError **err)
{
    uint64_t bits = QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT;
    uint8_t field[8];
    int ret;

    if ((check->header->incompatible & bits) == 0 ||
        check->result.corruptions > 0 || check->result.check_errors > 0) {
        return 0;
    }
    check->header->incompatible &= ~bits;
    store_be64(field, check->header->incompatible);
    ret = co_repair_write(check, QCOW2_INCOMPATIBLE, sizeof(field), field, err);
    return ret < 0 ? ret : co_repair_sync(check, err);
}

static uint64_t gone(uint64_t before, uint64_t after)
{
    return before > after ? before - after : 0;
}

static int co_run(struct qcow2_check *check,
                  enum qcow2_repair repair,
                  GError **err)
{
    struct qcow2_check_result before;
    int ret = co_pass(check, false, err);

    if (ret < 0 || repair == QCOW2_REPAIR_NOTHING) {
        return ret;
    }
    before = check->result;
    if (before.leaks > 0 || before.corruptions > 0) {
        ret = co_repair(check, repair, err);
        if (ret == 0) {
            ret = co_pass(check, false, err);
        }
    }
    check->result.leaks_fixed = gone(before.leaks, check->result.leaks);
    check->result.corruptions_fixed =
        gone(before.corruptions, check->result.corruptions);
    return ret < 0 ? ret : co_clear_bits(check, err);
}

static int co_read_header(struct qcow2_check *check, GError **err)
{
    uint64_t length =
        min_u64(block_size(check->file), UINT64_C(1) << QCOW2_CLUSTER_BITS_MAX);
    g_autofree uint8_t *bytes = g_malloc(MAX(length, 1));
    struct iovec iov = { .iov_base = bytes, .iov_len = length };
    int ret = length == 0
                  ? 0
                  : co_block_child_preadv(check->file, 0, length, &iov, 1);

    if (ret < 0) {
        return error_set_errno(err, ret, "image '%s': cannot read its header",
                               check->name);
    }
    check->header = qcow2_header_parse(bytes, length, check->name, err);
    return check->header == NULL ? -EINVAL : 0;
}

static void prepare(struct qcow2_check *check)
{
    const struct qcow2_header *header = check->header;
    unsigned int bits = 1U << header->refcount_order;

    check->cluster_bytes = UINT64_C(1) << header->cluster_bits;
    check->l2_entry_bytes =
        (header->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2) != 0 ? 16 : 8;
    check->external_data =
        (header->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE) != 0;
    check->block_entries = check->cluster_bytes * 8 / bits;
    check->refcount_max = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    check->cluster = g_malloc(check->cluster_bytes);
    check->block = g_malloc(check->cluster_bytes);
    check->piece = g_malloc(CHECK_PIECE_BYTES);
}

int co_qcow2_check(struct block_node *file,
                   const char *name,
                   enum qcow2_repair repair,
                   qcow2_check_report *report,
                   void *opaque,
                   struct qcow2_check_result *ret_result,
                   GError **err)
{
    struct qcow2_check check = {
        .file = file,
        .name = name,
        .report = report,
        .opaque = opaque,
    };
    int ret = co_read_header(&check, err);

    if (ret == 0) {
        prepare(&check);
        ret = co_run(&check, repair, err);
        if (ret == 0) {
            *ret_result = check.result;
        }
    }
    check_pass_release(&check);
    qcow2_header_free(check.header);
    g_free(check.cluster);
    g_free(check.block);
    g_free(check.piece);
    return ret;
}

int co_qcow2_repair_dirty(struct block_node *file,
                          const char *name,
                          GError **err)
{
    struct qcow2_check_result result;
    int ret =
        co_qcow2_check(file, name, QCOW2_REPAIR_ALL, NULL, NULL, &result, err);

    if (ret == 0 && (result.corruptions > 0 || result.check_errors > 0)) {
        ret = error_set(err, -EIO,
                        "image '%s' was not closed properly, and %" PRIu64
                        " corruptions and %" PRIu64 " read errors are left "
                        "after its repair; cohort check tells them",
                        name, result.corruptions, result.check_errors);
    }
    return ret;
}
