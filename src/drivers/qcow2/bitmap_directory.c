/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/qcow2/bitmap_directory.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "block/driver.h"

/* "Structure of a bitmap directory entry": byte offsets. */
enum {
    ENTRY_TABLE_OFFSET = 0,
    ENTRY_TABLE_COUNT = 8,
    ENTRY_FLAGS = 12,
    ENTRY_TYPE = 16,
    ENTRY_GRANULARITY_BITS = 17,
    ENTRY_NAME_BYTES = 18,
    ENTRY_EXTRA_BYTES = 20,
    ENTRY_BYTES = 24, /* without extra data, name and padding */
    ENTRY_ALIGNMENT = 8,
    GRANULARITY_BITS_MAX = 63,
};

void qcow2_stored_bitmap_free(struct qcow2_stored_bitmap *bitmap)
{
    if (bitmap == NULL) {
        return;
    }
    g_clear_pointer(&bitmap->extra_data, g_bytes_unref);
    g_free(bitmap->name);
    g_free(bitmap);
}

static void free_element(void *opaque)
{
    qcow2_stored_bitmap_free(opaque);
}

GPtrArray *qcow2_stored_bitmaps_new(void)
{
    return g_ptr_array_new_with_free_func(free_element);
}

static bool place_is_valid(uint64_t offset,
                           uint32_t count,
                           unsigned int cluster_bits)
{
    return offset % (UINT64_C(1) << cluster_bits) == 0 &&
           (offset != 0 || count == 0) &&
           bytes_range_within(offset, count * UINT64_C(8),
                              UINT64_C(1) << QCOW2_OFFSET_BITS_MAX);
}

/* The entry at the start of `bytes`; how long it is goes to `*ret_bytes`. NULL:
 * it is invalid. */
static struct qcow2_stored_bitmap *parse_entry(const uint8_t *bytes,
                                               size_t left,
                                               unsigned int cluster_bits,
                                               size_t *ret_bytes)
{
    struct qcow2_stored_bitmap *bitmap;
    uint32_t extra_bytes;
    uint16_t name_bytes;
    uint64_t whole;

    if (left < ENTRY_BYTES) {
        return NULL;
    }
    extra_bytes = load_be32(bytes + ENTRY_EXTRA_BYTES);
    name_bytes = load_be16(bytes + ENTRY_NAME_BYTES);
    whole = round_up(UINT64_C(0) + ENTRY_BYTES + extra_bytes + name_bytes,
                     ENTRY_ALIGNMENT);
    if (whole > left || name_bytes == 0 ||
        name_bytes > LIMIT_BITMAP_NAME_BYTES ||
        memchr(bytes + ENTRY_BYTES + extra_bytes, 0, name_bytes) != NULL ||
        bytes[ENTRY_GRANULARITY_BITS] > GRANULARITY_BITS_MAX ||
        !place_is_valid(load_be64(bytes + ENTRY_TABLE_OFFSET),
                        load_be32(bytes + ENTRY_TABLE_COUNT), cluster_bits)) {
        return NULL;
    }
    bitmap = g_new0(struct qcow2_stored_bitmap, 1);
    bitmap->table_offset = load_be64(bytes + ENTRY_TABLE_OFFSET);
    bitmap->table_count = load_be32(bytes + ENTRY_TABLE_COUNT);
    bitmap->flags = load_be32(bytes + ENTRY_FLAGS);
    bitmap->type = bytes[ENTRY_TYPE];
    bitmap->granularity_bits = bytes[ENTRY_GRANULARITY_BITS];
    if (extra_bytes > 0) {
        bitmap->extra_data = g_bytes_new(bytes + ENTRY_BYTES, extra_bytes);
    }
    bitmap->name =
        g_strndup((const char *)bytes + ENTRY_BYTES + extra_bytes, name_bytes);
    *ret_bytes = whole;
    return bitmap;
}

GPtrArray *qcow2_bitmaps_parse(const uint8_t *bytes,
                               size_t length,
                               uint32_t count,
                               unsigned int cluster_bits,
                               const char *name,
                               GError **err)
{
    g_autoptr(GPtrArray) bitmaps = qcow2_stored_bitmaps_new();
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    size_t position = 0;

    for (uint32_t i = 0; i < count; i++) {
        size_t entry_bytes = 0;
        struct qcow2_stored_bitmap *bitmap = parse_entry(
            bytes + position, length - position, cluster_bits, &entry_bytes);

        if (bitmap == NULL) {
            error_set(err, -EINVAL,
                      "image '%s': entry %" G_GUINT32_FORMAT
                      " of its bitmap directory is invalid",
                      name, i);
            return NULL;
        }
        g_ptr_array_add(bitmaps, bitmap);
        if (!g_hash_table_add(names, bitmap->name)) {
            error_set(err, -EINVAL,
                      "image '%s': its bitmap directory has two bitmaps of "
                      "one name",
                      name);
            return NULL;
        }
        position += entry_bytes;
    }
    if (position != length) {
        error_set(err, -EINVAL,
                  "image '%s': its bitmap directory has %zu bytes, but its "
                  "%" G_GUINT32_FORMAT " bitmaps fill %zu",
                  name, length, count, position);
        return NULL;
    }
    return g_steal_pointer(&bitmaps);
}

GByteArray *qcow2_bitmaps_format(
    const GPtrArray *bitmaps,
    uint32_t (*flags)(const struct qcow2_stored_bitmap *bitmap))
{
    static const uint8_t zeroes[ENTRY_ALIGNMENT];
    GByteArray *directory = g_byte_array_new();

    for (unsigned int i = 0; i < bitmaps->len; i++) {
        const struct qcow2_stored_bitmap *bitmap = bitmaps->pdata[i];
        uint8_t entry[ENTRY_BYTES];
        size_t name_bytes = strlen(bitmap->name);
        gsize extra_bytes = 0;
        const uint8_t *extra = NULL;
        guint surplus;

        if (bitmap->extra_data != NULL) {
            extra = g_bytes_get_data(bitmap->extra_data, &extra_bytes);
        }
        store_be64(entry + ENTRY_TABLE_OFFSET, bitmap->table_offset);
        store_be32(entry + ENTRY_TABLE_COUNT, bitmap->table_count);
        store_be32(entry + ENTRY_FLAGS,
                   flags == NULL ? bitmap->flags : flags(bitmap));
        entry[ENTRY_TYPE] = bitmap->type;
        entry[ENTRY_GRANULARITY_BITS] = bitmap->granularity_bits;
        store_be16(entry + ENTRY_NAME_BYTES, (uint16_t)name_bytes);
        store_be32(entry + ENTRY_EXTRA_BYTES, (uint32_t)extra_bytes);
        g_byte_array_append(directory, entry, sizeof(entry));
        if (extra_bytes > 0) {
            g_byte_array_append(directory, extra, (guint)extra_bytes);
        }
        g_byte_array_append(directory, (const uint8_t *)bitmap->name,
                            (guint)name_bytes);
        surplus = directory->len % ENTRY_ALIGNMENT;
        if (surplus > 0) {
            g_byte_array_append(directory, zeroes, ENTRY_ALIGNMENT - surplus);
        }
    }
    return directory;
}

int co_qcow2_bitmaps_load(struct block_node *file,
                          const struct qcow2_header *header,
                          const char *name,
                          GPtrArray **ret_bitmaps,
                          GError **err)
{
    const struct qcow2_bitmaps_extension *place = &header->bitmaps;
    g_autofree uint8_t *bytes = NULL;
    struct iovec iov;
    int ret;

    if (place->count == 0) {
        *ret_bitmaps = qcow2_stored_bitmaps_new();
        return 0;
    }
    if (!bytes_range_within(place->directory_offset, place->directory_bytes,
                            block_size(file))) {
        return error_set(err, -EINVAL,
                         "image '%s': its bitmap directory reaches behind the "
                         "end of the file",
                         name);
    }
    bytes = g_try_malloc(place->directory_bytes);
    if (bytes == NULL) {
        return error_set(err, -ENOMEM, "no memory for a bitmap directory");
    }
    iov = (struct iovec){ bytes, place->directory_bytes };
    ret = co_block_child_preadv(file, place->directory_offset,
                                place->directory_bytes, &iov, 1);
    if (ret < 0) {
        return error_set_errno(
            err, ret, "image '%s': cannot read its bitmap directory", name);
    }
    *ret_bitmaps =
        qcow2_bitmaps_parse(bytes, place->directory_bytes, place->count,
                            header->cluster_bits, name, err);
    return *ret_bitmaps == NULL ? -EINVAL : 0;
}
