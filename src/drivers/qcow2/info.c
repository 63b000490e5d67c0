/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ImageInfo, member for member as QEMU gives it. Strings from the image may be
 * no UTF-8; JSON has to be, so what is wrong in them is replaced.
 */
#include "drivers/qcow2/info.h"

#include "base/bytes.h"
#include "block/filename.h"
#include "drivers/qcow2/bitmap_directory.h"
#include "drivers/qcow2/image.h"
#include "drivers/qcow2/snapshot.h"

#define NANOSECONDS_PER_SECOND UINT64_C(1000000000)

static void set_text(struct json_value *dict, const char *key, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    json_dict_set_string(dict, key, valid);
}

static struct json_value *snapshot_info(const struct qcow2_snapshot *snapshot)
{
    struct json_value *info = json_dict_new();
    uint64_t clock = snapshot->guest_clock_nanoseconds;

    set_text(info, "id", snapshot->id);
    set_text(info, "name", snapshot->name);
    json_dict_set_uint(info, "vm-state-size", snapshot->vm_state_bytes);
    json_dict_set_uint(info, "date-sec", snapshot->date_seconds);
    json_dict_set_uint(info, "date-nsec", snapshot->date_nanoseconds);
    json_dict_set_uint(info, "vm-clock-sec", clock / NANOSECONDS_PER_SECOND);
    json_dict_set_uint(info, "vm-clock-nsec", clock % NANOSECONDS_PER_SECOND);
    if (snapshot->has_instruction_count) {
        json_dict_set_uint(info, "icount", snapshot->instruction_count);
    }
    return info;
}

static void add_snapshots(const struct qcow2_image *image,
                          struct json_value *info)
{
    struct json_value *list;

    if (image->snapshots->count == 0) {
        return;
    }
    list = json_list_new();
    for (uint32_t i = 0; i < image->snapshots->count; i++) {
        json_list_append(list, snapshot_info(&image->snapshots->snapshots[i]));
    }
    json_dict_set(info, "snapshots", list);
}

static void add_backing(const struct qcow2_image *image,
                        struct json_value *info)
{
    const struct qcow2_header *header = image->header;
    g_autofree char *full = NULL;

    if (header->backing_file == NULL) {
        return;
    }
    set_text(info, "backing-filename", header->backing_file);
    full = block_filename_resolve(header->backing_file,
                                  block_filename(image->node), NULL);
    if (full != NULL) {
        set_text(info, "full-backing-filename", full);
    }
    if (header->backing_format != NULL) {
        set_text(info, "backing-filename-format", header->backing_format);
    }
}

static struct json_value *bitmap_info(const struct qcow2_stored_bitmap *bitmap)
{
    struct json_value *info = json_dict_new();
    struct json_value *flags = json_list_new();

    if ((bitmap->flags & QCOW2_BITMAP_IN_USE) != 0) {
        json_list_append(flags, json_string_new("in-use"));
    }
    if ((bitmap->flags & QCOW2_BITMAP_AUTO) != 0) {
        json_list_append(flags, json_string_new("auto"));
    }
    json_dict_set(info, "flags", flags);
    set_text(info, "name", bitmap->name);
    json_dict_set_uint(info, "granularity",
                       UINT64_C(1) << bitmap->granularity_bits);
    return info;
}

/* As the file has them, which need not be as they are in memory. If they cannot
 * be read, they are not told. */
static void co_add_bitmaps(const struct qcow2_image *image,
                           struct json_value *data)
{
    g_autoptr(GPtrArray) bitmaps = NULL;
    struct json_value *list;

    if ((image->header->autoclear & QCOW2_AUTOCLEAR_BITMAPS) == 0 ||
        co_qcow2_bitmaps_load(image->file, image->header, "", &bitmaps, NULL) <
            0) {
        return;
    }
    list = json_list_new();
    for (unsigned int i = 0; i < bitmaps->len; i++) {
        json_list_append(list, bitmap_info(bitmaps->pdata[i]));
    }
    json_dict_set(data, "bitmaps", list);
}

static struct json_value *co_specific_data(const struct qcow2_image *image)
{
    const struct qcow2_header *header = image->header;
    struct json_value *data = json_dict_new();
    bool extended = image->has_subclusters;

    json_dict_set_string(data, "compat", header->version < 3 ? "0.10" : "1.1");
    if (header->data_file != NULL) {
        set_text(data, "data-file", header->data_file);
    }
    if (image->external_data) {
        json_dict_set_bool(data, "data-file-raw", image->data_is_raw);
    }
    if (header->version >= 3) {
        json_dict_set_bool(data, "extended-l2", extended);
        json_dict_set_bool(data, "lazy-refcounts",
                           (header->compatible & QCOW2_COMPATIBLE_LAZY) != 0);
        json_dict_set_bool(
            data, "corrupt",
            (header->incompatible & QCOW2_INCOMPATIBLE_CORRUPT) != 0);
    }
    json_dict_set_uint(data, "refcount-bits",
                       UINT64_C(1) << header->refcount_order);
    json_dict_set_string(
        data, "compression-type",
        header->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib");
    co_add_bitmaps(image, data);
    return data;
}

void co_qcow2_info(struct block_node *node, struct json_value *info)
{
    const struct qcow2_image *image = block_state(node);
    struct json_value *specific = json_dict_new();

    co_block_child_info(image->file, info);
    json_dict_set_bool(
        info, "dirty-flag",
        (image->header->incompatible & QCOW2_INCOMPATIBLE_DIRTY) != 0);
    add_backing(image, info);
    add_snapshots(image, info);
    json_dict_set_string(specific, "type", "qcow2");
    json_dict_set(specific, "data", co_specific_data(image));
    json_dict_set(info, "format-specific", specific);
}
