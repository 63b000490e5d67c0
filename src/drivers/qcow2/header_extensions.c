/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading header extensions: type, length, data, padding, until one of type
 * "end" or the end of the room for them. Those that are known set fields, the
 * rest is kept as it is. One that leaves the room, a known one twice, or one
 * that is not as the specification has it is refused: guessing at a header
 * would mean writing a guess back.
 */
#include "drivers/qcow2/header_priv.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/limits.h"

enum {
    EXTENSION_HEAD_BYTES = 8,
    EXTENSION_ALIGNMENT = 8,
    BITMAPS_EXTENSION_BYTES = 24,
};

/* Names are for paths and JSON, so they end at no NUL but their own. */
static int read_string(struct header_reader *reader,
                       const char *what,
                       const uint8_t *data,
                       size_t bytes,
                       char **member)
{
    if (*member != NULL) {
        return header_refuse(reader, -EINVAL, "%s is there twice", what);
    }
    if (bytes == 0) {
        return 0;
    }
    if (bytes > QCOW2_BACKING_BYTES_MAX) {
        return header_refuse(reader, -EINVAL,
                             "%s has %zu bytes, more than the %d allowed", what,
                             bytes, QCOW2_BACKING_BYTES_MAX);
    }
    if (memchr(data, 0, bytes) != NULL) {
        return header_refuse(reader, -EINVAL, "%s contains a NUL byte", what);
    }
    *member = g_strndup((const char *)data, bytes);
    return 0;
}

/* Without its autoclear bit the extension is what a program that does not know
 * bitmaps has left behind; its content means nothing then, and is not judged. */
static int read_bitmaps(struct header_reader *reader,
                        const uint8_t *data,
                        size_t bytes)
{
    struct qcow2_bitmaps_extension *bitmaps = &reader->header->bitmaps;
    bool valid = (reader->header->autoclear & QCOW2_AUTOCLEAR_BITMAPS) != 0;
    struct qcow2_bitmaps_extension read = { 0 };

    if (bitmaps->count != 0) {
        return header_refuse(reader, -EINVAL,
                             "the bitmaps extension is there twice");
    }
    if (bytes == BITMAPS_EXTENSION_BYTES) {
        read.count = load_be32(data);
        read.directory_bytes = load_be64(data + 8);
        read.directory_offset = load_be64(data + 16);
    }
    if (read.count == 0 || read.count > LIMIT_BITMAPS_PER_NODE ||
        load_be32(data + 4) != 0 || read.directory_bytes == 0 ||
        read.directory_bytes > QCOW2_BITMAP_DIRECTORY_BYTES_MAX ||
        read.directory_offset == 0 ||
        read.directory_offset >> QCOW2_OFFSET_BITS_MAX != 0 ||
        read.directory_offset % (UINT64_C(1) << reader->header->cluster_bits)) {
        if (!valid) {
            return 0;
        }
        return header_refuse(
            reader, -EINVAL,
            "the bitmaps extension is invalid: %zu bytes, "
            "%" G_GUINT32_FORMAT " bitmaps, directory of "
            "%" G_GUINT64_FORMAT " bytes at offset %" G_GUINT64_FORMAT,
            bytes, read.count, read.directory_bytes, read.directory_offset);
    }
    *bitmaps = read;
    return 0;
}

/* A stamp that is not ours any more means nothing. */
static void read_stamp(struct header_reader *reader,
                       const uint8_t *data,
                       size_t bytes)
{
    struct qcow2_header *header = reader->header;

    if ((header->autoclear & QCOW2_AUTOCLEAR_STAMP) != 0 &&
        bytes == QCOW2_STAMP_BYTES) {
        header->has_stamp = true;
        memcpy(header->stamp, data, QCOW2_STAMP_BYTES);
    }
}

static void keep(struct header_reader *reader,
                 uint32_t type,
                 const uint8_t *data,
                 size_t bytes)
{
    struct qcow2_extension *extension = g_new0(struct qcow2_extension, 1);

    extension->type = type;
    extension->data = g_bytes_new(data, bytes);
    g_ptr_array_add(reader->header->extensions, extension);
}

static int read_one(struct header_reader *reader,
                    uint32_t type,
                    const uint8_t *data,
                    size_t bytes)
{
    switch (type) {
    case QCOW2_EXTENSION_BACKING_FORMAT:
        return read_string(reader, "the backing format", data, bytes,
                           &reader->header->backing_format);
    case QCOW2_EXTENSION_DATA_FILE:
        return read_string(reader, "the name of the data file", data, bytes,
                           &reader->header->data_file);
    case QCOW2_EXTENSION_BITMAPS: return read_bitmaps(reader, data, bytes);
    case QCOW2_EXTENSION_STAMP: read_stamp(reader, data, bytes); return 0;
    case QCOW2_EXTENSION_GAP: return 0;
    case QCOW2_EXTENSION_ENCRYPTION:
        return header_refuse(reader, -EINVAL,
                             "it has an encryption header, but is not "
                             "encrypted");
    case QCOW2_EXTENSION_FEATURE_NAMES:
        g_clear_pointer(&reader->feature_names, g_bytes_unref);
        reader->feature_names = g_bytes_new(data, bytes);
        return 0;
    default: keep(reader, type, data, bytes); return 0;
    }
}

int header_read_extensions(struct header_reader *reader)
{
    size_t offset = reader->extensions_offset;
    size_t end = reader->extensions_end;

    while (offset < end && end - offset >= EXTENSION_HEAD_BYTES) {
        uint32_t type = load_be32(reader->bytes + offset);
        size_t bytes = load_be32(reader->bytes + offset + 4);

        if (type == QCOW2_EXTENSION_END) {
            break;
        }
        offset += EXTENSION_HEAD_BYTES;
        if (bytes > end - offset) {
            return header_refuse(reader, -EINVAL,
                                 "the header extension of type 0x%08x at "
                                 "offset %zu has %zu bytes, more than fit",
                                 type, offset - EXTENSION_HEAD_BYTES, bytes);
        }
        int result = read_one(reader, type, reader->bytes + offset, bytes);
        if (result < 0) {
            return result;
        }
        offset += round_up(bytes, EXTENSION_ALIGNMENT);
    }
    return 0;
}
