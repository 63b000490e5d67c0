/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bitmap directory, the bitmap tables it names, and the data these name.
 * Source: docs/interop/qcow2.txt, "Bitmaps extension", "Bitmap directory",
 * "Bitmap table". Without the autoclear bit the extension is stale: what it
 * names is anyone's.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "drivers/qcow2/check_priv.h"

/* Bytes of a directory entry without extra data and name. */
#define ENTRY_BYTES         24
#define DIRECTORY_BYTES_MAX (UINT64_C(65535) * 1048)
#define TABLE_COUNT_MAX     (UINT64_C(1) << 27)
#define TABLE_RESERVED      UINT64_C(0xff000000000001fe)

static int check_table_entry(struct qcow2_check *check,
                             uint64_t index,
                             uint64_t number,
                             void *opaque)
{
    uint64_t offset = number & QCOW2_L2_OFFSET_MASK;

    (void)opaque;
    if ((number & TABLE_RESERVED) != 0 || (offset != 0 && (number & 1) != 0) ||
        offset % check->cluster_bytes != 0) {
        check_corruption(check, 1,
                         "entry %" PRIu64 " of a bitmap table is not valid: "
                         "0x%" PRIx64,
                         index, number);
        check->is_incomplete = true;
        return 0;
    }
    if (offset == 0) {
        return 0;
    }
    return check_use(check, offset, check->cluster_bytes, 1,
                     "a cluster of a bitmap", NULL);
}

static int co_check_table(struct qcow2_check *check,
                          uint32_t index,
                          uint64_t offset,
                          uint64_t count)
{
    bool within = false;
    int ret = 0;

    if (count > TABLE_COUNT_MAX || offset % check->cluster_bytes != 0) {
        check_corruption(check, 1,
                         "the table of bitmap %" PRIu32 " is too large or not "
                         "aligned: %" PRIu64 " entries at offset 0x%" PRIx64,
                         index, count, offset);
    } else {
        ret = check_use_table(check, offset, 8 * count, "a bitmap table",
                              &within);
    }
    if (ret == 0 && within) {
        ret = co_check_each(check, offset, count, check_table_entry, NULL);
    } else {
        check->is_incomplete = true;
    }
    return ret;
}

static int co_check_directory(struct qcow2_check *check)
{
    const struct qcow2_bitmaps_extension *bitmaps = &check->header->bitmaps;
    uint64_t done = 0;
    int ret = 0;

    for (uint32_t i = 0; ret == 0 && i < bitmaps->count; i++) {
        uint8_t entry[ENTRY_BYTES];
        uint64_t left = bitmaps->directory_bytes - done;
        uint64_t entry_bytes;

        if (left >= ENTRY_BYTES &&
            co_check_read(check, bitmaps->directory_offset + done,
                          sizeof(entry), entry) < 0) {
            check->is_incomplete = true;
            return 0;
        }
        entry_bytes =
            left < ENTRY_BYTES
                ? UINT64_MAX
                : round_up(ENTRY_BYTES + (uint64_t)load_be16(entry + 18) +
                               load_be32(entry + 20),
                           8);
        if (entry_bytes > left) {
            check_corruption(check, 1,
                             "entry %" PRIu32
                             " of the bitmap directory reaches "
                             "behind its end",
                             i);
            check->is_incomplete = true;
            return 0;
        }
        done += entry_bytes;
        ret = co_check_table(check, i, load_be64(entry), load_be32(entry + 8));
    }
    return ret;
}

int co_check_bitmaps(struct qcow2_check *check)
{
    const struct qcow2_bitmaps_extension *bitmaps = &check->header->bitmaps;
    bool within;
    int ret;

    if (bitmaps->count == 0 ||
        (check->header->autoclear & QCOW2_AUTOCLEAR_BITMAPS) == 0) {
        return 0;
    }
    if (bitmaps->directory_bytes > DIRECTORY_BYTES_MAX ||
        bitmaps->directory_offset % check->cluster_bytes != 0) {
        check_corruption(check, 1,
                         "the bitmap directory is too large or not aligned: "
                         "%" PRIu64 " bytes at offset 0x%" PRIx64,
                         bitmaps->directory_bytes, bitmaps->directory_offset);
        check->is_incomplete = true;
        return 0;
    }
    ret = check_use_table(check, bitmaps->directory_offset,
                          bitmaps->directory_bytes, "the bitmap directory",
                          &within);
    if (ret == 0 && !within) {
        check->is_incomplete = true;
    }
    return ret == 0 && within ? co_check_directory(check) : ret;
}
