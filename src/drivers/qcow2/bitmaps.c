/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is known of an image's bitmaps while it is open.
 *
 * The list is kept as it was found: `in_use` that is set here, in the file, is
 * noted apart (is_marked), since who asks wants to know what the last one left.
 *
 * In_use is set in place: a directory's entries are aligned to 8 bytes, so each
 * flag is in one sector, and a crash in between leaves bitmaps of which some are
 * in_use and all are still right.
 */
#include "drivers/qcow2/bitmaps.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/bitmaps_priv.h"
#include "drivers/qcow2/host_write.h"
#include "drivers/qcow2/metadata_commit.h"

bool qcow2_is_node(struct block_node *node)
{
    return block_driver_of(node) == &driver_qcow2;
}

uint64_t qcow2_bitmap_bytes(uint64_t size_bytes, unsigned int granularity_bits)
{
    uint64_t segments =
        divide_round_up(size_bytes, UINT64_C(1) << granularity_bits);

    return divide_round_up(segments, 8);
}

/*
 * Opening.
 */

static struct qcow2_bitmaps *bitmaps_new(void)
{
    struct qcow2_bitmaps *bitmaps = g_new0(struct qcow2_bitmaps, 1);

    co_mutex_init(&bitmaps->lock);
    return bitmaps;
}

/* Nobody can tell what is in a directory that is not valid, so nobody may write
 * and leave the bit standing. A bit that falls takes good bitmaps with it, which
 * is not for us to decide. */
static int co_load_directory(struct qcow2_image *image, GError **err)
{
    g_autoptr(GError) cause = NULL;
    int ret = co_qcow2_bitmaps_load(image->file, image->header,
                                    block_name(image->node),
                                    &image->bitmaps->stored, &cause);

    if (ret < 0 && image->writable) {
        g_propagate_prefixed_error(
            err, g_steal_pointer(&cause),
            "it can be read (read-only=true) and copied, "
            "but not be written: ");
        return ret;
    }
    if (ret < 0) {
        g_warning("Node '%s': its bitmaps are not shown: %s",
                  block_name(image->node), cause->message);
        image->bitmaps->stored = qcow2_stored_bitmaps_new();
    }
    return 0;
}

int co_qcow2_bitmaps_open(struct qcow2_image *image, GError **err)
{
    struct qcow2_header *header = image->header;
    int ret = 0;

    image->bitmaps = bitmaps_new();
    if (header->version < 3 ||
        (header->autoclear & QCOW2_AUTOCLEAR_BITMAPS) == 0) {
        memset(&header->bitmaps, 0, sizeof(header->bitmaps));
    }
    if (image->shows_snapshot || header->bitmaps.count == 0) {
        image->bitmaps->stored = qcow2_stored_bitmaps_new();
    } else {
        ret = co_load_directory(image, err);
    }
    image->untouched = ret == 0 && image->writable &&
                       (image->bitmaps->stored->len > 0 || header->has_stamp);
    return ret;
}

void qcow2_bitmaps_close(struct qcow2_image *image)
{
    if (image->bitmaps == NULL) {
        return;
    }
    if (image->bitmaps->stored != NULL) {
        g_ptr_array_unref(image->bitmaps->stored);
    }
    g_clear_pointer(&image->bitmaps, g_free);
}

/*
 * Questions.
 */

bool qcow2_can_store(struct block_node *node)
{
    const struct qcow2_image *image = block_state(node);

    return image->header->version >= 3;
}

const GPtrArray *qcow2_bitmaps_list(struct block_node *node)
{
    const struct qcow2_image *image = block_state(node);

    return image->bitmaps->stored;
}

bool qcow2_stamp(struct block_node *node, uint8_t ret_stamp[QCOW2_STAMP_BYTES])
{
    const struct qcow2_image *image = block_state(node);

    if (image->header->has_stamp) {
        memcpy(ret_stamp, image->header->stamp, QCOW2_STAMP_BYTES);
    }
    return image->header->has_stamp;
}

/* Whatever it holds, is it something that we understand? */
static const char *find_unknown(const struct qcow2_stored_bitmap *bitmap)
{
    if (bitmap->type != QCOW2_BITMAP_TYPE_DIRTY_TRACKING) {
        return "it is of a type that is not known";
    }
    if ((bitmap->flags & ~(uint32_t)QCOW2_BITMAP_FLAGS_KNOWN) != 0) {
        return "it has flags that are not known";
    }
    if (bitmap->extra_data != NULL &&
        (bitmap->flags & QCOW2_BITMAP_EXTRA_DATA_COMPATIBLE) == 0) {
        return "it has extra data that is not known";
    }
    if (bitmap->granularity_bits < QCOW2_BITMAP_GRANULARITY_BITS_MIN ||
        bitmap->granularity_bits > QCOW2_BITMAP_GRANULARITY_BITS_MAX) {
        return "its granularity is not supported";
    }
    return g_utf8_validate(bitmap->name, -1, NULL)
               ? NULL
               : "its name is not valid UTF-8";
}

const char *qcow2_bitmap_problem(struct block_node *node,
                                 const struct qcow2_stored_bitmap *bitmap)
{
    const struct qcow2_image *image = block_state(node);
    const char *unknown = find_unknown(bitmap);
    uint64_t bytes;

    if (unknown != NULL) {
        return unknown;
    }
    if ((bitmap->flags & QCOW2_BITMAP_IN_USE) != 0) {
        return "it was not stored in the image after its last use";
    }
    bytes =
        qcow2_bitmap_bytes(image->header->size_bytes, bitmap->granularity_bits);
    if (bytes > QCOW2_BITMAP_BYTES_MAX) {
        return "its granularity is too fine for a disk of this size";
    }
    return bitmap->table_count < divide_round_up(bytes, image->cluster_bytes)
               ? "it is too short for the disk"
               : NULL;
}

int qcow2_bitmap_check_new(struct block_node *node,
                           const char *name,
                           uint64_t granularity_bytes,
                           GError **err)
{
    const struct qcow2_image *image = block_state(node);
    unsigned int bits = (unsigned int)__builtin_ctzll(granularity_bytes);

    if (image->header->version < 3) {
        return error_set(err, -ENOTSUP,
                         "node '%s' cannot store dirty bitmap '%s': its image "
                         "is of version 2 (compat=0.10); qemu-img amend -o "
                         "compat=1.1 makes it one of version 3",
                         block_name(node), name);
    }
    if (bits < QCOW2_BITMAP_GRANULARITY_BITS_MIN ||
        bits > QCOW2_BITMAP_GRANULARITY_BITS_MAX ||
        qcow2_bitmap_bytes(image->header->size_bytes, bits) >
            QCOW2_BITMAP_BYTES_MAX) {
        return error_set(err, -EFBIG,
                         "node '%s' cannot store dirty bitmap '%s': a "
                         "granularity of %" G_GUINT64_FORMAT
                         " bytes is not possible in a qcow2 image of this "
                         "size; use a coarser one",
                         block_name(node), name, granularity_bytes);
    }
    return 0;
}

static struct qcow2_stored_bitmap *find(const struct qcow2_image *image,
                                        const char *name)
{
    for (guint i = 0; i < image->bitmaps->stored->len; i++) {
        struct qcow2_stored_bitmap *bitmap = image->bitmaps->stored->pdata[i];

        if (strcmp(bitmap->name, name) == 0) {
            return bitmap;
        }
    }
    return NULL;
}

void qcow2_bitmap_adopt(struct block_node *node, const char *name)
{
    struct qcow2_stored_bitmap *bitmap = find(block_state(node), name);

    if (bitmap != NULL) {
        bitmap->is_adopted = true;
    }
}

int qcow2_bitmaps_check_resize(const struct qcow2_image *image, GError **err)
{
    for (guint i = 0; i < image->bitmaps->stored->len; i++) {
        const struct qcow2_stored_bitmap *bitmap =
            image->bitmaps->stored->pdata[i];

        if (!bitmap->is_adopted) {
            g_autofree char *name = g_utf8_make_valid(bitmap->name, -1);

            return error_set(err, -ENOTSUP,
                             "cannot resize node '%s': its image has a bitmap "
                             "'%s' that is not in use here, and would keep its "
                             "size; remove that before",
                             block_name(image->node), name);
        }
    }
    return 0;
}

/*
 * The first change.
 */

static int co_write_stamp(struct qcow2_image *image,
                          const uint8_t *stamp,
                          GError **err)
{
    struct qcow2_header *header = image->header;
    struct qcow2_header old = *header;
    int ret;

    if (stamp == NULL && !header->has_stamp) {
        return 0;
    }
    header->has_stamp = stamp != NULL;
    header->autoclear &= ~QCOW2_AUTOCLEAR_STAMP;
    if (stamp == NULL) {
        ret = co_qcow2_write_header(image, err);
    } else {
        memcpy(header->stamp, stamp, QCOW2_STAMP_BYTES);
        header->autoclear |= QCOW2_AUTOCLEAR_STAMP;
        ret = co_qcow2_rewrite_header(image, err);
    }
    if (ret < 0) {
        header->has_stamp = old.has_stamp;
        header->autoclear = old.autoclear;
        memcpy(header->stamp, old.stamp, QCOW2_STAMP_BYTES);
    }
    return ret;
}

/* As it is in the file now. */
static uint32_t flags_in_file(const struct qcow2_stored_bitmap *bitmap)
{
    return bitmap->flags | (bitmap->is_marked ? QCOW2_BITMAP_IN_USE : 0);
}

static int co_write_directory(struct qcow2_image *image)
{
    const struct qcow2_bitmaps_extension *place = &image->header->bitmaps;
    g_autoptr(GByteArray) directory =
        qcow2_bitmaps_format(image->bitmaps->stored, flags_in_file);
    struct iovec iov = { directory->data, directory->len };
    int ret;

    g_assert(directory->len == place->directory_bytes);
    ret = co_qcow2_write_metadata(image, place->directory_offset,
                                  directory->len, &iov, 1);
    return ret == 0 ? co_block_child_flush(image->file) : ret;
}

static int co_mark_in_use(struct qcow2_image *image, GError **err)
{
    GPtrArray *stored = image->bitmaps->stored;
    bool changed = false;
    int ret;

    for (guint i = 0; i < stored->len; i++) {
        struct qcow2_stored_bitmap *bitmap = stored->pdata[i];

        if (!bitmap->is_marked && find_unknown(bitmap) == NULL &&
            (bitmap->flags & QCOW2_BITMAP_IN_USE) == 0) {
            bitmap->is_marked = true;
            changed = true;
        }
    }
    ret = changed ? co_write_directory(image) : 0;
    if (ret < 0) {
        for (guint i = 0; i < stored->len; i++) {
            struct qcow2_stored_bitmap *bitmap = stored->pdata[i];

            bitmap->is_marked =
                false; /* perhaps not: it will be written again */
        }
        return error_set_errno(err, ret,
                               "cannot mark the bitmaps of image '%s' as being "
                               "in use",
                               block_name(image->node));
    }
    return 0;
}

/* No stamp from now on. In this order: without one, bitmaps that are not in use
 * count, though with it they did not. */
static int co_end_stamp(struct qcow2_image *image, GError **err)
{
    int ret = co_mark_in_use(image, err);

    return ret == 0 ? co_write_stamp(image, NULL, err) : ret;
}

int co_qcow2_bitmaps_begin(struct block_node *node,
                           const uint8_t *stamp,
                           GError **err)
{
    struct qcow2_image *image = block_state(node);
    int ret = 0;

    g_assert(image->writable);
    if (stamp != NULL && image->header->version < 3) {
        return error_set(err, -ENOTSUP,
                         "image '%s' is of version 2, and cannot carry a stamp",
                         block_name(node));
    }
    co_mutex_lock(&image->bitmaps->lock);
    if (stamp == NULL) {
        ret = co_end_stamp(image, err);
    } else {
        ret = co_write_stamp(image, stamp, err);
        ret = ret == 0 ? co_mark_in_use(image, err) : ret;
    }
    if (ret == 0) {
        image->untouched = false;
    }
    co_mutex_unlock(&image->bitmaps->lock);
    return ret;
}

int co_qcow2_touch(struct qcow2_image *image)
{
    g_autoptr(GError) error = NULL;
    int ret = 0;

    co_mutex_lock(&image->bitmaps->lock);
    if (image->untouched) {
        ret = co_end_stamp(image, &error);
        image->untouched = ret < 0;
    }
    co_mutex_unlock(&image->bitmaps->lock);
    return ret;
}
