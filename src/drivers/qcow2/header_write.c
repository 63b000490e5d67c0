/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing the header of an image that is open. One writer at a time, and each
 * writes what holds at that moment. A crash leaves the old header or the new one,
 * whole, though only a sector is written at one instant.
 *
 * The fields of fixed place are in the first sector, which is read back first, so
 * that what is not ours in it stays.
 *
 * The rest may be longer. What is to stand in the sectors behind the first is
 * written before the first; and if the old header still needs these, the new
 * one's tail is written elsewhere in the cluster before, behind a gap:
 *
 *     old     [ first sector | tail                ]
 *     apart   [ first sector | (gap)  |  new tail  ]   nothing needs the place
 *     new     [ first sector | new tail ]              of the old tail any more
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/image.h"
#include "drivers/qcow2/metadata_commit.h"

#define EXTENSION_HEAD_BYTES 8
#define EXTENSION_ALIGNMENT  8

static void store_fields(const struct qcow2_header *header, uint8_t *sector)
{
    store_be64(sector + QCOW2_SIZE, header->size_bytes);
    store_be32(sector + QCOW2_L1_COUNT, header->l1_count);
    store_be64(sector + QCOW2_L1_OFFSET, header->l1_offset);
    store_be64(sector + QCOW2_REFCOUNT_TABLE_OFFSET,
               header->refcount_table_offset);
    store_be32(sector + QCOW2_REFCOUNT_TABLE_CLUSTERS,
               header->refcount_table_clusters);
    store_be32(sector + QCOW2_SNAPSHOT_COUNT, header->snapshot_count);
    store_be64(sector + QCOW2_SNAPSHOTS_OFFSET, header->snapshots_offset);
    if (header->version >= 3) {
        store_be64(sector + QCOW2_INCOMPATIBLE, header->incompatible);
        store_be64(sector + QCOW2_COMPATIBLE, header->compatible);
        store_be64(sector + QCOW2_AUTOCLEAR, header->autoclear);
    }
}

/* A failed sync is as final here as in a commit. */
static int co_sync(struct qcow2_image *image)
{
    int ret = co_block_child_flush(image->file);

    if (ret < 0 && image->commit != NULL) {
        qcow2_commit_fail(image, ret);
    }
    return ret;
}

/* Writes a part of the cluster, durably. */
static int co_write_part(struct qcow2_image *image,
                         uint8_t *cluster,
                         uint64_t start,
                         uint64_t end)
{
    struct iovec iov = { cluster + start, end - start };
    int ret = 0;

    if (end > start) {
        ret =
            co_block_child_pwritev(image->file, start, end - start, &iov, 1, 0);
    }
    return ret == 0 ? co_sync(image) : ret;
}

static int co_write_fields(struct qcow2_image *image)
{
    uint8_t sector[QCOW2_SECTOR_BYTES];
    struct iovec iov = { sector, sizeof(sector) };
    int ret = co_block_child_preadv(image->file, 0, sizeof(sector), &iov, 1);

    if (ret < 0) {
        return ret;
    }
    store_fields(image->header, sector);
    return co_write_part(image, sector, 0, sizeof(sector));
}

static int header_error(struct qcow2_image *image, int ret, GError **err)
{
    return error_set_errno(err, ret, "cannot write the header of image '%s'",
                           block_name(image->node));
}

int co_qcow2_header_undo(struct qcow2_image *image, int error)
{
    if (qcow2_commit_failure(image) == 0) {
        int ret = co_qcow2_write_header(image, NULL);

        if (ret < 0) {
            qcow2_commit_fail(image, ret);
        }
    }
    return error;
}

int co_qcow2_write_header(struct qcow2_image *image, GError **err)
{
    int ret;

    co_mutex_lock(&image->header_write);
    ret = co_write_fields(image);
    co_mutex_unlock(&image->header_write);
    return ret < 0 ? header_error(image, ret, err) : 0;
}

/* Which sectors of the cluster does the header in it need? */
static void mark(bool *needed, uint64_t start, uint64_t bytes)
{
    for (uint64_t i = start / QCOW2_SECTOR_BYTES;
         bytes > 0 && i <= (start + bytes - 1) / QCOW2_SECTOR_BYTES; i++) {
        needed[i] = true;
    }
}

/* The header was read when the image was opened: what is in the cluster is
 * valid. */
static bool *find_needed(const uint8_t *cluster, uint64_t bytes)
{
    bool *needed = g_new0(bool, bytes / QCOW2_SECTOR_BYTES);
    uint64_t position = load_be32(cluster + QCOW2_HEADER_LENGTH);
    uint64_t name = load_be64(cluster + QCOW2_BACKING_OFFSET);
    uint32_t type = QCOW2_EXTENSION_GAP;

    mark(needed, 0, MIN(position, bytes));
    while (type != QCOW2_EXTENSION_END &&
           position + EXTENSION_HEAD_BYTES <= bytes) {
        uint64_t length = load_be32(cluster + position + 4);

        type = load_be32(cluster + position);
        mark(needed, position, EXTENSION_HEAD_BYTES);
        position += EXTENSION_HEAD_BYTES;
        length = min_u64(length, bytes - position);
        if (type != QCOW2_EXTENSION_GAP && type != QCOW2_EXTENSION_END) {
            mark(needed, position, length);
        }
        position += round_up(length, EXTENSION_ALIGNMENT);
    }
    if (name != 0 && name < bytes) {
        mark(needed, name,
             min_u64(load_be32(cluster + QCOW2_BACKING_BYTES), bytes - name));
    }
    return needed;
}

/* Where what the cluster holds ends; a multiple of a sector. */
static uint64_t end_of(const GByteArray *cluster)
{
    uint64_t end = cluster->len;

    while (cluster->data[end - 1] == 0) {
        end--;
    }
    /* The end of the extensions is zeroes, and belongs to it. */
    return min_u64(cluster->len, round_up(end + 2 * EXTENSION_HEAD_BYTES,
                                          QCOW2_SECTOR_BYTES));
}

static bool is_any(const bool *needed, uint64_t start, uint64_t end)
{
    for (uint64_t i = start / QCOW2_SECTOR_BYTES;
         i < divide_round_up(end, QCOW2_SECTOR_BYTES); i++) {
        if (needed[i]) {
            return true;
        }
    }
    return false;
}

/* The new tail goes behind all that the old header needs, and behind the place
 * where it will be in the end. */
static uint32_t place_apart(const struct qcow2_image *image,
                            const bool *needed,
                            uint64_t wanted_end)
{
    uint64_t tail = image->cluster_bytes;

    while (tail > wanted_end && !needed[tail / QCOW2_SECTOR_BYTES - 1]) {
        tail -= QCOW2_SECTOR_BYTES;
    }
    return (uint32_t)tail;
}

static int co_step_apart(struct qcow2_image *image,
                         const bool *needed,
                         uint64_t wanted_end,
                         GError **err)
{
    g_autoptr(GByteArray) apart = NULL;
    uint32_t tail = place_apart(image, needed, wanted_end);
    int ret;

    ret = qcow2_header_format_apart(image->header, tail, &apart, err);
    if (ret < 0) {
        return -EFBIG;
    }
    ret = co_write_part(image, apart->data, tail, end_of(apart));
    if (ret == 0) {
        ret = co_write_part(image, apart->data, 0, QCOW2_SECTOR_BYTES);
    }
    return ret < 0 ? header_error(image, ret, err) : 0;
}

/* A cluster that has no room for a step apart may do without the names of
 * features, if the rest is then in the first sector. */
static int format_wanted(const struct qcow2_image *image,
                         const bool *needed,
                         GByteArray **ret_wanted,
                         GError **err)
{
    g_autoptr(GByteArray) apart = NULL;
    g_autoptr(GByteArray) brief = NULL;
    g_autoptr(GByteArray) wanted = NULL;

    if (qcow2_header_format(image->header, &wanted, err) < 0) {
        return -EFBIG;
    }
    if (is_any(needed, QCOW2_SECTOR_BYTES, end_of(wanted)) &&
        qcow2_header_format_apart(image->header,
                                  place_apart(image, needed, end_of(wanted)),
                                  &apart, NULL) < 0 &&
        qcow2_header_format_brief(image->header, &brief, NULL) == 0 &&
        end_of(brief) == QCOW2_SECTOR_BYTES) {
        *ret_wanted = g_steal_pointer(&brief);
    } else {
        *ret_wanted = g_steal_pointer(&wanted);
    }
    return 0;
}

static int co_replace_header(struct qcow2_image *image,
                             uint8_t *old,
                             GError **err)
{
    g_autofree bool *needed = find_needed(old, image->cluster_bytes);
    g_autoptr(GByteArray) wanted = NULL;
    uint64_t end;
    int ret = format_wanted(image, needed, &wanted, err);

    if (ret < 0) {
        return ret;
    }
    end = end_of(wanted);
    if (memcmp(old + QCOW2_SECTOR_BYTES, wanted->data + QCOW2_SECTOR_BYTES,
               end - QCOW2_SECTOR_BYTES) != 0) {
        if (is_any(needed, QCOW2_SECTOR_BYTES, end)) {
            ret = co_step_apart(image, needed, end, err);
        }
        if (ret < 0) {
            return ret;
        }
        ret = co_write_part(image, wanted->data, QCOW2_SECTOR_BYTES, end);
    }
    if (ret == 0) {
        ret = co_write_part(image, wanted->data, 0, QCOW2_SECTOR_BYTES);
    }
    return ret < 0 ? header_error(image, ret, err) : 0;
}

int co_qcow2_rewrite_header(struct qcow2_image *image, GError **err)
{
    uint64_t stored = min_u64(image->cluster_bytes, block_size(image->file));
    g_autofree uint8_t *old = g_malloc0(image->cluster_bytes);
    struct iovec iov = { old, stored };
    int ret;

    g_assert(image->header->version >= 3);
    co_mutex_lock(&image->header_write);
    ret = co_block_child_preadv(image->file, 0, stored, &iov, 1);
    if (ret == 0) {
        ret = co_replace_header(image, old, err);
    } else {
        header_error(image, ret, err);
    }
    co_mutex_unlock(&image->header_write);
    return ret;
}
