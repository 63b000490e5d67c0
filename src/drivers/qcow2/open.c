/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver's table; opening and closing an image.
 *
 * Opening: read the header; find out which other files it names; when those are
 * open, read the L1 table (or that of a snapshot) and the snapshot table, and
 * prepare for writing. What the image says is checked before memory is
 * allocated for it. An image with a broken L1 table can be read as far as it
 * goes, but not be opened for writing; nor can one that is marked corrupt.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/filename.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/decompressed.h"
#include "drivers/qcow2/image.h"
#include "drivers/qcow2/info.h"
#include "drivers/qcow2/options.h"
#include "drivers/qcow2/snapshot.h"

/* Enough for the header cluster of nearly all images. */
#define FIRST_READ_BYTES (64 * KIB)

static const char *image_name(struct block_node *node)
{
    const char *filename = block_filename(node);

    return filename == NULL ? block_name(node) : filename;
}

static int co_read_start(struct block_node *file,
                         uint64_t bytes,
                         uint8_t **ret_bytes)
{
    g_autofree uint8_t *start = g_try_malloc(bytes);
    struct iovec iov = { start, bytes };
    int ret;

    if (start == NULL) {
        return -ENOMEM;
    }
    ret = co_block_child_preadv(file, 0, bytes, &iov, 1);
    if (ret == 0) {
        *ret_bytes = g_steal_pointer(&start);
    }
    return ret;
}

static int co_read_header(struct block_node *node,
                          struct qcow2_header **ret_header,
                          GError **err)
{
    struct block_node *file = block_child(node, "file");
    uint64_t bytes = min_u64(block_size(file), FIRST_READ_BYTES);
    g_autofree uint8_t *start = NULL;
    int ret = co_read_start(file, bytes, &start);

    if (ret == 0 && bytes == FIRST_READ_BYTES) {
        uint32_t bits = load_be32(start + QCOW2_CLUSTER_BITS);

        if (bits > 16 && bits <= QCOW2_CLUSTER_BITS_MAX) {
            bytes = min_u64(block_size(file), UINT64_C(1) << bits);
            g_clear_pointer(&start, g_free);
            ret = co_read_start(file, bytes, &start);
        }
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot read the header of '%s'",
                               image_name(node));
    }
    *ret_header = qcow2_header_parse(start, bytes, image_name(node), err);
    return *ret_header == NULL ? -EINVAL : 0;
}

/* Adds the options for the file that the image names `name` to `children`. */
static int co_add_child(struct block_node *node,
                        struct json_value *children,
                        const char *role,
                        const char *name,
                        const char *format,
                        GError **err)
{
    struct json_value *options;

    if (name == NULL || block_child_is_given(node, role)) {
        return 0;
    }
    options =
        co_block_filename_to_options(name, format, block_filename(node), err);
    if (options == NULL) {
        g_prefix_error(err, "cannot open the %s of image '%s': ", role,
                       image_name(node));
        return -EINVAL;
    }
    json_dict_set(children, role, options);
    return 0;
}

static int co_qcow2_discover(struct block_node *node,
                             struct json_value **ret_children,
                             GError **err)
{
    g_autoptr(qcow2_header) header = NULL;
    g_autoptr(json_value) children = json_dict_new();
    int ret = co_read_header(node, &header, err);

    if (ret == 0) {
        ret = co_add_child(node, children, "backing", header->backing_file,
                           header->backing_format, err);
    }
    if (ret == 0 && (header->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE)) {
        const char *name = header->data_file;
        bool is_json = name != NULL && g_str_has_prefix(name, "json:");

        ret = co_add_child(node, children, "data-file", name,
                           is_json ? NULL : "file", err);
    }
    if (ret == 0) {
        *ret_children = g_steal_pointer(&children);
    }
    return ret;
}

static void derive(struct qcow2_image *image)
{
    const struct qcow2_header *header = image->header;
    bool extended = (header->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2);

    image->cluster_bytes = UINT64_C(1) << header->cluster_bits;
    image->cluster_mask = image->cluster_bytes - 1;
    image->has_subclusters = extended;
    image->l2_entry_bytes = extended ? 16 : 8;
    image->l2_bits = header->cluster_bits - (extended ? 4 : 3);
    image->subcluster_bytes =
        image->cluster_bytes / (extended ? QCOW2_SUBCLUSTERS : 1);
    image->external_data =
        (header->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE) != 0;
    image->data_is_raw =
        image->external_data &&
        (header->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW) != 0;
}

/* Nobody who reads such a data file alone would see what lies below. */
static const char *find_backing_problem(const struct qcow2_image *image)
{
    return image->data_is_raw ? "its data file is the whole disk" : NULL;
}

static const char *qcow2_backing_problem(const struct block_node *node)
{
    return find_backing_problem(block_state(node));
}

/* `image` borrows its children. */
static int take_children(struct qcow2_image *image, GError **err)
{
    struct block_node *node = image->node;
    struct block_node *data_file = block_child(node, "data-file");

    image->backing = block_child(node, "backing");
    if (image->external_data && data_file == NULL) {
        return error_set(err, -EINVAL,
                         "node '%s': image '%s' has an external data file and "
                         "does not name it; give it as 'data-file'",
                         block_name(node), image_name(node));
    }
    if (!image->external_data && data_file != NULL) {
        return error_set(err, -EINVAL,
                         "node '%s': image '%s' has no external data file, so "
                         "'data-file' cannot be given",
                         block_name(node), image_name(node));
    }
    if (image->backing != NULL && find_backing_problem(image) != NULL) {
        return error_set(
            err, -EINVAL, "node '%s': image '%s' can have no backing file: %s",
            block_name(node), image_name(node), find_backing_problem(image));
    }
    image->data = image->external_data ? data_file : image->file;
    return 0;
}

/* The backing node comes with a snapshot; or another node has taken the place
 * of one of them. */
static void qcow2_children_changed(struct block_node *node)
{
    struct qcow2_image *image = block_state(node);

    image->backing = block_child(node, "backing");
    image->data =
        image->external_data ? block_child(node, "data-file") : image->file;
}

static int co_load_l1(struct qcow2_image *image,
                      uint64_t offset,
                      uint32_t count,
                      GError **err)
{
    uint64_t bytes = count * sizeof(uint64_t);
    struct iovec iov = { NULL, bytes };
    int ret;

    if (!bytes_range_within(offset, bytes, block_size(image->file))) {
        return error_set(err, -EINVAL,
                         "image '%s': its L1 table, %" G_GUINT64_FORMAT
                         " bytes at offset %" G_GUINT64_FORMAT
                         ", reaches behind the end of the file",
                         image_name(image->node), bytes, offset);
    }
    image->l1 = g_try_malloc(MAX(bytes, sizeof(uint64_t)));
    if (image->l1 == NULL) {
        return error_set(err, -ENOMEM, "no memory for an L1 table");
    }
    iov.iov_base = image->l1;
    ret = co_block_child_preadv(image->file, offset, bytes, &iov, 1);
    if (ret < 0) {
        return error_set_errno(err, ret, "image '%s': cannot read L1 table",
                               image_name(image->node));
    }
    for (uint32_t i = 0; i < count; i++) {
        image->l1[i] = be64toh(image->l1[i]);
    }
    return 0;
}

/* An image that is to be written to must have all its L2 tables. */
static int check_l1(const struct qcow2_image *image, GError **err)
{
    uint64_t file_bytes = block_size(image->file);

    for (uint32_t i = 0; i < image->header->l1_count; i++) {
        uint64_t entry = image->l1[i];
        uint64_t table = entry & QCOW2_L1_OFFSET_MASK;

        if ((entry & QCOW2_L1_RESERVED) != 0 ||
            (table & image->cluster_mask) != 0 || table >= file_bytes) {
            return error_set(err, -EINVAL,
                             "image '%s' is corrupt: L1 entry "
                             "%" G_GUINT32_FORMAT " (0x%" G_GINT64_MODIFIER
                             "x) is invalid; it can only be opened with "
                             "read-only=true",
                             image_name(image->node), i, entry);
        }
    }
    return 0;
}

static int co_load_snapshot(struct qcow2_image *image,
                            const char *id_or_name,
                            GError **err)
{
    const char *name = image_name(image->node);
    const struct qcow2_snapshot *snapshot =
        qcow2_snapshot_find(image->snapshots, id_or_name);
    int ret;

    if (snapshot == NULL) {
        return error_set(err, -ENOENT,
                         "image '%s' has no snapshot with the id or name '%s'",
                         name, id_or_name);
    }
    if (image->writable) {
        return error_set(err, -EINVAL,
                         "node '%s': 'x-cohort-snapshot' needs read-only=true",
                         block_name(image->node));
    }
    ret = qcow2_snapshot_check(snapshot, image->header, name, err);
    if (ret == 0) {
        image->shows_snapshot = true;
        ret = co_load_l1(image, snapshot->l1_offset, snapshot->l1_count, err);
    }
    if (ret == 0) {
        block_set_size(image->node, snapshot->size_bytes);
    }
    return ret;
}

static int co_load_state(struct qcow2_image *image,
                         const struct qcow2_options *options,
                         GError **err)
{
    const struct qcow2_header *header = image->header;
    int ret = co_qcow2_snapshots_load(
        image->file, header, image_name(image->node), &image->snapshots, err);

    if (ret < 0) {
        return ret;
    }
    if (options->snapshot != NULL) {
        return co_load_snapshot(image, options->snapshot, err);
    }
    block_set_size(image->node, header->size_bytes);
    ret = co_load_l1(image, header->l1_offset, header->l1_count, err);
    return ret == 0 && image->writable ? check_l1(image, err) : ret;
}

static void make_caches(struct qcow2_image *image,
                        const struct qcow2_options *options)
{
    uint32_t slice_bytes = options->l2_slice_bytes;

    image->slice_bits =
        (unsigned int)__builtin_ctz(slice_bytes / image->l2_entry_bytes);
    image->l2_slices =
        table_cache_new(image, slice_bytes, options->l2_cache_bytes);
    image->refcount_cache_bytes = options->refcount_cache_bytes;
    image->decompressed = decompressed_new(image);
    range_lock_init(&image->ranges);
    image->pass_discard_request = options->pass_discard_request;
    image->pass_discard_other = options->pass_discard_other;
    image->discard_no_unref = options->discard_no_unref;
}

static void image_free(struct qcow2_image *image)
{
    table_cache_free(image->l2_slices);
    decompressed_free(image->decompressed);
    qcow2_snapshots_free(image->snapshots);
    qcow2_bitmaps_close(image);
    qcow2_header_free(image->header);
    g_free(image->l1);
    g_free(image);
}

/* The same locks as QEMU holds. The file grows behind our writes, so then its
 * size must be ours alone, too. */
static int co_claim_file(struct qcow2_image *image, GError **err)
{
    int ret = co_block_child_claim(image->file, BLOCK_CLAIM_CONTENT, true, err);

    if (ret < 0) {
        return ret;
    }
    if (image->writable) {
        ret = co_block_child_claim(image->file, BLOCK_CLAIM_SIZE, true, err);
    }
    if (ret < 0) {
        (void)co_block_child_claim(image->file, BLOCK_CLAIM_CONTENT, false,
                                   NULL);
        return ret;
    }
    image->file_claimed = true;
    return 0;
}

/* Ending a claim cannot fail. */
static void co_unclaim_file(struct qcow2_image *image)
{
    if (!image->file_claimed) {
        return;
    }
    (void)co_block_child_claim(image->file, BLOCK_CLAIM_CONTENT, false, NULL);
    if (image->writable) {
        (void)co_block_child_claim(image->file, BLOCK_CLAIM_SIZE, false, NULL);
    }
}

/* Who left it dirty keeps its refcounts lazily; they are needed to write. */
static int co_repair_if_dirty(struct qcow2_image *image, GError **err)
{
    int ret;

    if (!image->writable ||
        (image->header->incompatible & QCOW2_INCOMPATIBLE_DIRTY) == 0) {
        return 0;
    }
    ret = co_qcow2_repair_dirty(image->file, image_name(image->node), err);
    if (ret == 0) {
        g_clear_pointer(&image->header, qcow2_header_free);
        ret = co_read_header(image->node, &image->header, err);
    }
    return ret;
}

static int co_prepare(struct qcow2_image *image,
                      const struct json_value *options,
                      GError **err)
{
    struct block_limits limits = { .request_alignment_bytes = 1 };
    struct qcow2_options chosen;
    int ret;

    image->file = block_child(image->node, "file");
    ret = co_claim_file(image, err);
    if (ret == 0) {
        ret = co_read_header(image->node, &image->header, err);
    }
    if (ret < 0) {
        return ret;
    }
    derive(image);
    image->corrupt =
        (image->header->incompatible & QCOW2_INCOMPATIBLE_CORRUPT) != 0;
    ret = qcow2_options_read(options, image->header, block_name(image->node),
                             &chosen, err);
    if (ret == 0) {
        ret = take_children(image, err);
    }
    if (ret == 0 && image->corrupt && image->writable) {
        ret = error_set(err, -EACCES,
                        "image '%s' is marked corrupt: it can be read "
                        "(read-only=true), and is written to again when a "
                        "check has repaired it",
                        image_name(image->node));
    }
    if (ret == 0) {
        ret = co_repair_if_dirty(image, err);
    }
    if (ret < 0) {
        return ret;
    }
    make_caches(image, &chosen);
    limits.cluster_bytes = (uint32_t)image->cluster_bytes;
    block_set_limits(image->node, &limits);
    ret = co_load_state(image, &chosen, err);
    if (ret == 0) {
        ret = co_qcow2_bitmaps_open(image, err);
    }
    return ret == 0 && image->writable ? co_qcow2_start_writing(image, err)
                                       : ret;
}

static int co_qcow2_open(struct block_node *node,
                         const struct json_value *options,
                         GError **err)
{
    struct qcow2_image *image = g_new0(struct qcow2_image, 1);
    int ret;

    image->node = node;
    image->writable = !block_is_read_only(node);
    ret = co_prepare(image, options, err);
    if (ret < 0) {
        co_unclaim_file(image);
        image_free(image);
        return ret;
    }
    block_set_state(node, image);
    return 0;
}

static void co_qcow2_close(struct block_node *node)
{
    struct qcow2_image *image = block_state(node);

    if (co_qcow2_finish(node) < 0) {
        g_warning("Node '%s': image '%s' could not be written completely when "
                  "it was closed",
                  block_name(node), image_name(node));
    }
    co_unclaim_file(image);
    image_free(image);
}

static const struct block_child_role children[] = {
    { .name = "file", .required = true, .grows = true },
    { .name = "backing", .read_only = true },
    { .name = "data-file", .grows = true },
    { .name = NULL },
};

const struct block_driver driver_qcow2 = {
    .name = "qcow2",
    .doc = "A disk in QEMU's qcow2 format, version 2 or 3.",
    .options = &driver_qcow2_options,
    .children = children,
    .co_discover = co_qcow2_discover,
    .co_open = co_qcow2_open,
    .co_close = co_qcow2_close,
    .write_flags = BLOCK_COMPRESS | BLOCK_FLUSHED_SOON,
    .try_preadv = qcow2_try_preadv,
    .try_pwritev = qcow2_try_pwritev,
    .co_preadv = co_qcow2_preadv,
    .co_pwritev = co_qcow2_pwritev,
    .co_write_zeroes = co_qcow2_write_zeroes,
    .co_discard = co_qcow2_discard,
    .co_flush = co_qcow2_flush,
    .writes_late = true,
    .co_status = co_qcow2_status,
    .co_truncate = co_qcow2_truncate,
    .drained = qcow2_drained,
    .undrained = qcow2_undrained,
    .children_changed = qcow2_children_changed,
    .backing_problem = qcow2_backing_problem,
    .co_info = co_qcow2_info,
};
