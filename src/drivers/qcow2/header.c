/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading a header: the fixed fields, then those of version 3, then the
 * extensions, then the backing name behind them; and only then what they say
 * together. The name of a bit that is not known stands in the image's own
 * feature name table, so the extensions are read before such a bit is refused.
 *
 * What lies behind the header (tables) is judged by who reads it; here their
 * place and size are.
 */
#include "drivers/qcow2/header.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "drivers/qcow2/header_priv.h"

#define KNOWN_INCOMPATIBLE                                        \
 (QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT |         \
  QCOW2_INCOMPATIBLE_DATA_FILE | QCOW2_INCOMPATIBLE_COMPRESSION | \
  QCOW2_INCOMPATIBLE_EXTENDED_L2)

enum {
    EXTENDED_L2_CLUSTER_BITS_MIN = 14,
    VERSION_2_REFCOUNT_ORDER = 4,
    FEATURE_NAME_ENTRY_BYTES = 48, /* "Feature name table" */
    FEATURE_NAME_BYTES = 46,
    FEATURE_INCOMPATIBLE = 0,
};

int header_refuse(struct header_reader *reader,
                  int code,
                  const char *format,
                  ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *sentence = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    return error_set(reader->err, code, "image '%s': %s", reader->name,
                     sentence);
}

static void extension_free(void *opaque)
{
    struct qcow2_extension *extension = opaque;

    g_bytes_unref(extension->data);
    g_free(extension);
}

struct qcow2_header *qcow2_header_new(void)
{
    struct qcow2_header *header = g_new0(struct qcow2_header, 1);

    header->version = 3;
    header->cluster_bits = 16;
    header->refcount_order = VERSION_2_REFCOUNT_ORDER;
    header->extensions = g_ptr_array_new_with_free_func(extension_free);
    return header;
}

struct qcow2_header *qcow2_header_copy(const struct qcow2_header *header)
{
    struct qcow2_header *copy = g_new(struct qcow2_header, 1);

    *copy = *header;
    copy->backing_file = g_strdup(header->backing_file);
    copy->backing_format = g_strdup(header->backing_format);
    copy->data_file = g_strdup(header->data_file);
    copy->extensions = g_ptr_array_new_with_free_func(extension_free);
    for (unsigned int i = 0; i < header->extensions->len; i++) {
        const struct qcow2_extension *from = header->extensions->pdata[i];
        struct qcow2_extension *to = g_new(struct qcow2_extension, 1);

        to->type = from->type;
        to->data = g_bytes_ref(from->data);
        g_ptr_array_add(copy->extensions, to);
    }
    if (header->unknown_fields != NULL) {
        copy->unknown_fields = g_bytes_ref(header->unknown_fields);
    }
    return copy;
}

void qcow2_header_free(struct qcow2_header *header)
{
    if (header == NULL) {
        return;
    }
    g_free(header->backing_file);
    g_free(header->backing_format);
    g_free(header->data_file);
    g_ptr_array_unref(header->extensions);
    g_clear_pointer(&header->unknown_fields, g_bytes_unref);
    g_free(header);
}

bool qcow2_magic_matches(const uint8_t *bytes, size_t length)
{
    return length >= 4 && load_be32(bytes) == QCOW2_MAGIC_VALUE;
}

static int read_identity(struct header_reader *reader)
{
    struct qcow2_header *header = reader->header;

    if (!qcow2_magic_matches(reader->bytes, reader->length)) {
        return header_refuse(reader, -EINVAL,
                             "it is not in qcow2 format (wrong magic)");
    }
    if (reader->length < QCOW2_HEADER_BYTES_V2) {
        return header_refuse(reader, -EINVAL,
                             "it ends within its header, after %zu bytes",
                             reader->length);
    }
    header->version = load_be32(reader->bytes + QCOW2_VERSION);
    if (header->version != 2 && header->version != 3) {
        return header_refuse(reader, -ENOTSUP,
                             "qcow2 version %u is not supported (2 and 3 are)",
                             header->version);
    }
    header->cluster_bits = load_be32(reader->bytes + QCOW2_CLUSTER_BITS);
    if (header->cluster_bits < QCOW2_CLUSTER_BITS_MIN ||
        header->cluster_bits > QCOW2_CLUSTER_BITS_MAX) {
        return header_refuse(
            reader,
            header->cluster_bits < QCOW2_CLUSTER_BITS_MIN ? -EINVAL : -ENOTSUP,
            "a cluster size of 2^%u bytes is not supported "
            "(2^%d to 2^%d are)",
            header->cluster_bits, QCOW2_CLUSTER_BITS_MIN,
            QCOW2_CLUSTER_BITS_MAX);
    }
    reader->length =
        min_u64(reader->length, UINT64_C(1) << header->cluster_bits);
    return 0;
}

static int read_encryption(struct header_reader *reader)
{
    uint32_t method = load_be32(reader->bytes + QCOW2_CRYPT_METHOD);

    switch (method) {
    case 0: return 0;
    case 1:
        return header_refuse(reader, -ENOTSUP,
                             "it is encrypted with AES, which is not "
                             "supported");
    case 2:
        return header_refuse(reader, -ENOTSUP,
                             "it is encrypted with LUKS, which is not "
                             "supported");
    default:
        return header_refuse(reader, -EINVAL,
                             "its encryption method %" G_GUINT32_FORMAT
                             " does not exist",
                             method);
    }
}

static void read_tables(struct header_reader *reader)
{
    struct qcow2_header *header = reader->header;
    const uint8_t *bytes = reader->bytes;

    header->size_bytes = load_be64(bytes + QCOW2_SIZE);
    header->l1_count = load_be32(bytes + QCOW2_L1_COUNT);
    header->l1_offset = load_be64(bytes + QCOW2_L1_OFFSET);
    header->refcount_table_offset =
        load_be64(bytes + QCOW2_REFCOUNT_TABLE_OFFSET);
    header->refcount_table_clusters =
        load_be32(bytes + QCOW2_REFCOUNT_TABLE_CLUSTERS);
    header->snapshot_count = load_be32(bytes + QCOW2_SNAPSHOT_COUNT);
    header->snapshots_offset = load_be64(bytes + QCOW2_SNAPSHOTS_OFFSET);
}

/* All zero means the same as absent, so only other content is kept. */
static void keep_unknown_fields(struct header_reader *reader, size_t end)
{
    size_t begin = QCOW2_COMPRESSION_TYPE + 1;

    while (end > begin && reader->bytes[end - 1] == 0) {
        end--;
    }
    if (end > begin) {
        reader->header->unknown_fields =
            g_bytes_new(reader->bytes + begin, end - begin);
    }
}

static int read_version_3(struct header_reader *reader)
{
    struct qcow2_header *header = reader->header;
    const uint8_t *bytes = reader->bytes;
    uint32_t header_length;

    if (reader->length < QCOW2_HEADER_BYTES_V3) {
        return header_refuse(reader, -EINVAL,
                             "it ends within its header, after %zu bytes",
                             reader->length);
    }
    header_length = load_be32(bytes + QCOW2_HEADER_LENGTH);
    if (header_length < QCOW2_HEADER_BYTES_V3 || header_length % 8 != 0 ||
        header_length > reader->length) {
        return header_refuse(reader, -EINVAL,
                             "a header of %" G_GUINT32_FORMAT
                             " bytes is not possible in the %zu bytes there",
                             header_length, reader->length);
    }
    header->incompatible = load_be64(bytes + QCOW2_INCOMPATIBLE);
    header->compatible = load_be64(bytes + QCOW2_COMPATIBLE);
    header->autoclear = load_be64(bytes + QCOW2_AUTOCLEAR);
    header->refcount_order = load_be32(bytes + QCOW2_REFCOUNT_ORDER);
    if (header_length > QCOW2_COMPRESSION_TYPE) {
        header->compression =
            (enum qcow2_compression)bytes[QCOW2_COMPRESSION_TYPE];
        keep_unknown_fields(reader, header_length);
    }
    reader->extensions_offset = header_length;
    return 0;
}

/* The name lies between the extensions and the end of the header cluster. */
static int read_backing_file(struct header_reader *reader)
{
    uint64_t offset = load_be64(reader->bytes + QCOW2_BACKING_OFFSET);
    uint32_t bytes = load_be32(reader->bytes + QCOW2_BACKING_BYTES);

    if (offset == 0) {
        return 0;
    }
    if (bytes > QCOW2_BACKING_BYTES_MAX) {
        return header_refuse(reader, -EINVAL,
                             "its backing file's name has %" G_GUINT32_FORMAT
                             " bytes, more than the %d allowed",
                             bytes, QCOW2_BACKING_BYTES_MAX);
    }
    if (offset < reader->extensions_offset ||
        !bytes_range_within(offset, bytes, reader->length)) {
        return header_refuse(reader, -EINVAL,
                             "its backing file's name, %" G_GUINT32_FORMAT
                             " bytes at offset %" G_GUINT64_FORMAT
                             ", is not in the header cluster",
                             bytes, offset);
    }
    reader->extensions_end = offset;
    if (memchr(reader->bytes + offset, 0, bytes) != NULL) {
        return header_refuse(reader, -EINVAL,
                             "its backing file's name contains a NUL byte");
    }
    if (bytes > 0) {
        reader->header->backing_file =
            g_strndup((const char *)reader->bytes + offset, bytes);
    }
    return 0;
}

/* The image's own name of an incompatible bit, escaped; NULL: none. */
static char *feature_name(struct header_reader *reader, unsigned int bit)
{
    const uint8_t *entry;
    size_t bytes;

    if (reader->feature_names == NULL) {
        return NULL;
    }
    entry = g_bytes_get_data(reader->feature_names, &bytes);
    for (; bytes >= FEATURE_NAME_ENTRY_BYTES;
         entry += FEATURE_NAME_ENTRY_BYTES, bytes -= FEATURE_NAME_ENTRY_BYTES) {
        if (entry[0] == FEATURE_INCOMPATIBLE && entry[1] == bit &&
            entry[2] != 0) {
            g_autofree char *name =
                g_strndup((const char *)entry + 2, FEATURE_NAME_BYTES);
            return g_strescape(name, NULL);
        }
    }
    return NULL;
}

static int refuse_unknown_features(struct header_reader *reader)
{
    uint64_t unknown = reader->header->incompatible & ~KNOWN_INCOMPATIBLE;
    g_autoptr(GString) names = g_string_new(NULL);

    for (unsigned int bit = 0; bit < 64; bit++) {
        if ((unknown >> bit & 1) == 0) {
            continue;
        }
        g_autofree char *name = feature_name(reader, bit);
        g_string_append(names, names->len > 0 ? ", " : "");
        if (name != NULL) {
            g_string_append_printf(names, "'%s' (bit %u)", name, bit);
        } else {
            g_string_append_printf(names, "bit %u", bit);
        }
    }
    if (names->len > 0) {
        return header_refuse(reader, -ENOTSUP,
                             "it uses incompatible features that are not "
                             "supported: %s",
                             names->str);
    }
    return 0;
}

static int check_features(struct header_reader *reader)
{
    const struct qcow2_header *header = reader->header;
    bool has_type = (header->incompatible & QCOW2_INCOMPATIBLE_COMPRESSION);
    bool has_data_file = (header->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE);

    if (header->refcount_order > QCOW2_REFCOUNT_ORDER_MAX) {
        return header_refuse(reader, -EINVAL,
                             "refcounts of 2^%u bits do not exist",
                             header->refcount_order);
    }
    if (has_type != (header->compression != QCOW2_COMPRESSION_ZLIB)) {
        return header_refuse(reader, -EINVAL,
                             "its compression type %d contradicts its "
                             "incompatible feature bits",
                             (int)header->compression);
    }
    if (header->compression > QCOW2_COMPRESSION_ZSTD) {
        return header_refuse(reader, -ENOTSUP,
                             "its compression type %d is not supported (zlib "
                             "and zstd are)",
                             (int)header->compression);
    }
    if ((header->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2) != 0 &&
        header->cluster_bits < EXTENDED_L2_CLUSTER_BITS_MIN) {
        return header_refuse(reader, -EINVAL,
                             "extended L2 entries need clusters of 16 KiB at "
                             "least; it has clusters of %u bytes",
                             1U << header->cluster_bits);
    }
    if ((header->autoclear & QCOW2_AUTOCLEAR_BITMAPS) != 0 &&
        header->bitmaps.count == 0) {
        return header_refuse(reader, -EINVAL,
                             "its bitmaps bit is set, but there is no bitmaps "
                             "extension");
    }
    if (has_data_file && header->backing_file != NULL &&
        (header->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW) != 0) {
        return header_refuse(reader, -EINVAL,
                             "it has a raw external data file and a backing "
                             "file, which exclude each other");
    }
    return 0;
}

/* Is it where a table may be: aligned, behind the header, below 2^56? */
static int check_place(struct header_reader *reader,
                       const char *what,
                       uint64_t offset,
                       uint64_t bytes)
{
    uint64_t cluster_bytes = UINT64_C(1) << reader->header->cluster_bits;

    if (offset % cluster_bytes == 0 && offset != 0 &&
        bytes_range_within(offset, bytes,
                           UINT64_C(1) << QCOW2_OFFSET_BITS_MAX)) {
        return 0;
    }
    return header_refuse(reader, -EINVAL,
                         "its %s cannot be at offset %" G_GUINT64_FORMAT
                         ", with %" G_GUINT64_FORMAT " bytes",
                         what, offset, bytes);
}

static int check_l1(struct header_reader *reader)
{
    const struct qcow2_header *header = reader->header;
    uint64_t needed = qcow2_l1_count_for(header, header->size_bytes);

    if (header->size_bytes > LIMIT_DISK_BYTES || needed > QCOW2_L1_COUNT_MAX) {
        return header_refuse(reader, -ENOTSUP,
                             "a disk of %" G_GUINT64_FORMAT
                             " bytes is too large with clusters of %u bytes",
                             header->size_bytes, 1U << header->cluster_bits);
    }
    if (header->l1_count > QCOW2_L1_COUNT_MAX) {
        return header_refuse(reader, -ENOTSUP,
                             "its L1 table has %" G_GUINT32_FORMAT
                             " entries, more than the %" G_GUINT64_FORMAT
                             " supported",
                             header->l1_count, QCOW2_L1_COUNT_MAX);
    }
    if (header->l1_count < needed) {
        return header_refuse(reader, -EINVAL,
                             "its L1 table has %" G_GUINT32_FORMAT
                             " entries, but its size needs %" G_GUINT64_FORMAT,
                             header->l1_count, needed);
    }
    if (header->l1_count == 0) {
        return 0;
    }
    return check_place(reader, "L1 table", header->l1_offset,
                       header->l1_count * UINT64_C(8));
}

static int check_refcount_table(struct header_reader *reader)
{
    const struct qcow2_header *header = reader->header;
    uint64_t bytes = (uint64_t)header->refcount_table_clusters
                     << header->cluster_bits;

    if (header->refcount_table_clusters == 0) {
        return header_refuse(reader, -EINVAL, "it has no refcount table");
    }
    if (bytes > QCOW2_REFCOUNT_TABLE_BYTES_MAX) {
        return header_refuse(reader, -ENOTSUP,
                             "its refcount table has %" G_GUINT64_FORMAT
                             " bytes, more than the %" G_GUINT64_FORMAT
                             " supported",
                             bytes, QCOW2_REFCOUNT_TABLE_BYTES_MAX);
    }
    return check_place(reader, "refcount table", header->refcount_table_offset,
                       bytes);
}

static int check_snapshots(struct header_reader *reader)
{
    const struct qcow2_header *header = reader->header;

    if (header->snapshot_count > QCOW2_SNAPSHOT_COUNT_MAX) {
        return header_refuse(reader, -ENOTSUP,
                             "it has %" G_GUINT32_FORMAT
                             " snapshots, more than the %d supported",
                             header->snapshot_count, QCOW2_SNAPSHOT_COUNT_MAX);
    }
    if (header->snapshot_count == 0) {
        return 0;
    }
    return check_place(reader, "snapshot table", header->snapshots_offset,
                       header->snapshot_count *
                           (uint64_t)QCOW2_SNAPSHOT_ENTRY_BYTES);
}

/* In an order in which each step can rely on those before it. */
static int read_all(struct header_reader *reader)
{
    static int (*const steps[])(struct header_reader * reader) = {
        read_backing_file,
        header_read_extensions,
        refuse_unknown_features,
        check_features,
        check_l1,
        check_refcount_table,
        check_snapshots,
    };
    int result = read_identity(reader);

    if (result == 0) {
        result = read_encryption(reader);
    }
    if (result < 0) {
        return result;
    }
    read_tables(reader);
    reader->extensions_offset = QCOW2_HEADER_BYTES_V2;
    reader->extensions_end = reader->length;
    if (reader->header->version >= 3) {
        result = read_version_3(reader);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(steps) && result == 0; i++) {
        result = steps[i](reader);
    }
    return result;
}

struct qcow2_header *qcow2_header_parse(const uint8_t *bytes,
                                        size_t length,
                                        const char *name,
                                        GError **err)
{
    g_autoptr(qcow2_header) header = qcow2_header_new();
    struct header_reader reader = {
        .bytes = bytes,
        .length = length,
        .name = name,
        .header = header,
        .err = err,
    };
    int result = read_all(&reader);

    g_clear_pointer(&reader.feature_names, g_bytes_unref);
    return result < 0 ? NULL : g_steal_pointer(&header);
}

uint64_t qcow2_l1_count_for(const struct qcow2_header *header,
                            uint64_t size_bytes)
{
    bool extended = (header->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2);
    unsigned int entry_bits = extended ? 4 : 3;
    unsigned int l2_bits = header->cluster_bits - entry_bits;

    return divide_round_up(size_bytes, UINT64_C(1)
                                           << (header->cluster_bits + l2_bits));
}
