/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Becoming writable, and ceasing to be.
 *
 * At open: the refcount table is loaded, all metadata in use is noted (two
 * tables in one place make the image corrupt), feature bits that we do not keep
 * up are cleared. What cannot be is refused, and nothing was written then. The bits
 * of bitmaps and of the stamp fall, or are made true, with the first change of the
 * disk (bitmaps.h).
 *
 * Lazy refcounts are a permission, not a duty: refcounts here go out in batches
 * before what needs them, which costs no sync of its own. So the dirty bit is
 * never set, and there is nothing to repair after a crash. An image that others
 * have left dirty was repaired before (open.c).
 *
 * At close: commits until nothing is dirty or on its way to being free.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/cluster_set.h"
#include "drivers/qcow2/free_later.h"
#include "drivers/qcow2/metadata_commit.h"
#include "drivers/qcow2/refcount_priv.h"

/* Bits that may stay set while we write, those of bitmaps.h until then. */
#define AUTOCLEAR_KEPT                                      \
 (QCOW2_AUTOCLEAR_DATA_FILE_RAW | QCOW2_AUTOCLEAR_BITMAPS | \
  QCOW2_AUTOCLEAR_STAMP)

/* Commits at the end: one for what is dirty, one for what that frees, one for
 * the refcounts that went down. */
#define CLOSING_COMMITS 3

static int note_table(struct qcow2_image *image,
                      uint64_t offset,
                      uint64_t bytes,
                      const char *what,
                      GError **err)
{
    if (offset == 0 || bytes == 0) {
        return 0;
    }
    if ((offset & image->cluster_mask) != 0 ||
        offset >= block_size(image->file) ||
        cluster_set_meets(image->metadata, offset, bytes)) {
        return error_set(err, -EINVAL,
                         "image '%s' is corrupt: %s is said to be at offset "
                         "%" G_GUINT64_FORMAT
                         ", where it cannot be; it can be read "
                         "(read-only=true) and checked",
                         block_name(image->node), what, offset);
    }
    cluster_set_add(image->metadata, offset, bytes);
    return 0;
}

static int note_fixed_tables(struct qcow2_image *image, GError **err)
{
    const struct qcow2_header *header = image->header;
    int ret = 0;

    cluster_set_add(image->metadata, 0, 1); /* the header */
    ret = note_table(image, header->l1_offset,
                     header->l1_count * sizeof(uint64_t), "the L1 table", err);
    if (ret == 0) {
        ret = note_table(image, header->refcount_table_offset,
                         header->refcount_table_clusters * image->cluster_bytes,
                         "the refcount table", err);
    }
    if (ret == 0 && header->snapshot_count > 0) {
        ret = note_table(image, header->snapshots_offset, 1,
                         "the snapshot table", err);
    }
    if (ret == 0 && header->bitmaps.count > 0) {
        ret = note_table(image, header->bitmaps.directory_offset,
                         header->bitmaps.directory_bytes,
                         "the bitmap directory", err);
    }
    return ret;
}

static int note_metadata(struct qcow2_image *image, GError **err)
{
    const struct qcow2_refcounts *refcounts = image->refcounts;
    int ret = note_fixed_tables(image, err);

    for (uint64_t i = 0; ret == 0 && i < refcounts->table_count; i++) {
        ret = note_table(image, refcounts->table[i], image->cluster_bytes,
                         "a refcount block", err);
    }
    for (uint32_t i = 0; ret == 0 && i < image->header->l1_count; i++) {
        ret = note_table(image, image->l1[i] & QCOW2_L1_OFFSET_MASK,
                         image->cluster_bytes, "an L2 table", err);
    }
    return ret;
}

static int check_usable(const struct qcow2_image *image, GError **err)
{
    const struct qcow2_header *header = image->header;

    if (header->cluster_bits < QCOW2_CLUSTER_BITS_MIN ||
        header->refcount_table_clusters == 0) {
        return error_set(err, -EINVAL,
                         "image '%s' cannot be written: it has no refcount "
                         "table",
                         block_name(image->node));
    }
    return 0;
}

static int co_clear_features(struct qcow2_image *image, GError **err)
{
    struct qcow2_header *header = image->header;
    uint64_t kept = header->autoclear & AUTOCLEAR_KEPT;

    if (!header->has_stamp) {
        kept &= ~QCOW2_AUTOCLEAR_STAMP;
    }
    if (header->version < 3 || kept == header->autoclear) {
        return 0;
    }
    header->autoclear = kept;
    return co_qcow2_write_header(image, err);
}

static void dirtied(void *opaque)
{
    qcow2_commit_dirtied(opaque);
}

static int co_write_back(void *opaque)
{
    return co_qcow2_commit(opaque);
}

static void release(struct qcow2_image *image)
{
    qcow2_commit_free(image->commit);
    qcow2_frees_free(image->frees);
    cluster_set_free(image->metadata);
    qcow2_refcounts_free(image->refcounts);
    image->commit = NULL;
    image->frees = NULL;
    image->metadata = NULL;
    image->refcounts = NULL;
}

int co_qcow2_start_writing(struct qcow2_image *image, GError **err)
{
    const struct table_cache_writer writer = {
        .dirtied = dirtied,
        .co_write_back = co_write_back,
        .opaque = image,
    };
    int ret = check_usable(image, err);

    co_mutex_init(&image->l2_tables);
    co_mutex_init(&image->header_write);
    if (ret == 0) {
        ret = co_qcow2_refcounts_open(image, err);
    }
    if (ret < 0) {
        return ret;
    }
    image->metadata = cluster_set_new(image->header->cluster_bits);
    image->frees = qcow2_frees_new(image);
    image->commit = qcow2_commit_new(image);
    table_cache_set_writer(image->l2_slices, &writer);
    table_cache_set_writer(image->refcounts->slices, &writer);
    ret = note_metadata(image, err);
    if (ret == 0) {
        ret = co_clear_features(image, err);
    }
    if (ret < 0) {
        release(image);
        return ret;
    }
    image->writable = true;
    return 0;
}

int co_qcow2_stop_writing(struct qcow2_image *image)
{
    int ret = 0;

    qcow2_commit_pause(image);
    co_qcow2_commit_settle(image);
    for (int i = 0; ret == 0 && i < CLOSING_COMMITS; i++) {
        ret = co_qcow2_commit(image);
    }
    if (ret == 0) {
        ret = co_qcow2_trim_file(image);
    }
    release(image);
    return ret;
}

int co_qcow2_finish(struct block_node *node)
{
    struct qcow2_image *image = block_state(node);
    int ret = 0;

    if (image->writable && image->commit != NULL) {
        ret = co_qcow2_stop_writing(image);
    }
    return ret;
}

void qcow2_drained(struct block_node *node)
{
    struct qcow2_image *image = block_state(node);

    if (image->commit != NULL) {
        qcow2_commit_pause(image);
    }
}

void qcow2_undrained(struct block_node *node)
{
    struct qcow2_image *image = block_state(node);

    if (image->commit != NULL) {
        qcow2_commit_resume(image);
    }
}
