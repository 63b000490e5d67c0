/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing the header of an image that is open. The sector is read back first, so
 * that what is not ours in it stays. One writer at a time, and each writes what
 * holds at that moment.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/image.h"
#include "drivers/qcow2/metadata_commit.h"

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

static int co_write_fields(struct qcow2_image *image)
{
    uint8_t sector[QCOW2_SECTOR_BYTES];
    struct iovec iov = { sector, sizeof(sector) };
    int ret = co_block_child_preadv(image->file, 0, sizeof(sector), &iov, 1);

    if (ret == 0) {
        store_fields(image->header, sector);
        ret =
            co_block_child_pwritev(image->file, 0, sizeof(sector), &iov, 1, 0);
    }
    return ret == 0 ? co_sync(image) : ret;
}

static int header_error(struct qcow2_image *image, int ret, GError **err)
{
    return error_set_errno(err, ret, "cannot write the header of image '%s'",
                           block_name(image->node));
}

int co_qcow2_write_header(struct qcow2_image *image, GError **err)
{
    int ret;

    co_mutex_lock(&image->header_write);
    ret = co_write_fields(image);
    co_mutex_unlock(&image->header_write);
    return ret < 0 ? header_error(image, ret, err) : 0;
}

int co_qcow2_rewrite_header(struct qcow2_image *image, GError **err)
{
    GByteArray *cluster;
    int ret;

    co_mutex_lock(&image->header_write);
    ret = qcow2_header_format(image->header, &cluster, err);
    if (ret < 0) {
        co_mutex_unlock(&image->header_write);
        return ret;
    }
    struct iovec iov = { cluster->data, cluster->len };

    ret = co_block_child_pwritev(image->file, 0, cluster->len, &iov, 1, 0);
    if (ret == 0) {
        ret = co_sync(image);
    }
    co_mutex_unlock(&image->header_write);
    g_byte_array_unref(cluster);
    return ret < 0 ? header_error(image, ret, err) : 0;
}
