/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing a header: fields, extensions, and the backing name behind them. The
 * feature name table helps others to word their errors, nothing more: where the
 * room is short (clusters of 512 bytes) it is left out. What changes while an
 * image is in use, bitmaps and stamp, comes first: it is in the first sector.
 */
#include "drivers/qcow2/header.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

enum {
    FEATURE_NAME_ENTRY_BYTES = 48, /* "Feature name table" */
    FEATURE_INCOMPATIBLE = 0,
    FEATURE_COMPATIBLE = 1,
    FEATURE_AUTOCLEAR = 2,
    EXTENSION_ALIGNMENT = 8,
    EXTENSION_HEAD_BYTES = 8,
};

static const struct {
    uint8_t type;
    uint8_t bit;
    const char *name;
} feature_names[] = {
    { FEATURE_INCOMPATIBLE, 0, "dirty bit" },
    { FEATURE_INCOMPATIBLE, 1, "corrupt bit" },
    { FEATURE_INCOMPATIBLE, 2, "external data file" },
    { FEATURE_INCOMPATIBLE, 3, "compression type" },
    { FEATURE_INCOMPATIBLE, 4, "extended L2 entries" },
    { FEATURE_COMPATIBLE, 0, "lazy refcounts" },
    { FEATURE_AUTOCLEAR, 0, "bitmaps" },
    { FEATURE_AUTOCLEAR, 1, "raw external data" },
};

static void append_padding(GByteArray *cluster)
{
    guint bytes = cluster->len;

    g_byte_array_set_size(cluster, (guint)round_up(bytes, EXTENSION_ALIGNMENT));
    memset(cluster->data + bytes, 0, cluster->len - bytes);
}

static void append_extension(GByteArray *cluster,
                             uint32_t type,
                             const void *data,
                             size_t bytes)
{
    uint8_t head[EXTENSION_HEAD_BYTES];

    store_be32(head, type);
    store_be32(head + 4, (uint32_t)bytes);
    g_byte_array_append(cluster, head, sizeof(head));
    if (bytes > 0) {
        g_byte_array_append(cluster, data, (guint)bytes);
    }
    append_padding(cluster);
}

static void append_string(GByteArray *cluster, uint32_t type, const char *name)
{
    if (name != NULL) {
        append_extension(cluster, type, name, strlen(name));
    }
}

static void append_feature_names(GByteArray *cluster)
{
    uint8_t table[G_N_ELEMENTS(feature_names)][FEATURE_NAME_ENTRY_BYTES];

    memset(table, 0, sizeof(table));
    for (size_t i = 0; i < G_N_ELEMENTS(feature_names); i++) {
        table[i][0] = feature_names[i].type;
        table[i][1] = feature_names[i].bit;
        memcpy(table[i] + 2, feature_names[i].name,
               strlen(feature_names[i].name));
    }
    append_extension(cluster, QCOW2_EXTENSION_FEATURE_NAMES, table,
                     sizeof(table));
}

static void append_bitmaps(GByteArray *cluster,
                           const struct qcow2_bitmaps_extension *bitmaps)
{
    uint8_t data[24] = { 0 };

    if (bitmaps->count == 0) {
        return;
    }
    store_be32(data, bitmaps->count);
    store_be64(data + 8, bitmaps->directory_bytes);
    store_be64(data + 16, bitmaps->directory_offset);
    append_extension(cluster, QCOW2_EXTENSION_BITMAPS, data, sizeof(data));
}

static void append_version_3(GByteArray *cluster,
                             const struct qcow2_header *header)
{
    uint8_t fields[QCOW2_COMPRESSION_TYPE + 1 - QCOW2_HEADER_BYTES_V2];
    gsize unknown_bytes = 0;
    const uint8_t *unknown = NULL;

    store_be64(fields, header->incompatible);
    store_be64(fields + 8, header->compatible);
    store_be64(fields + 16, header->autoclear);
    store_be32(fields + 24, header->refcount_order);
    fields[32] = (uint8_t)header->compression;
    if (header->unknown_fields != NULL) {
        unknown = g_bytes_get_data(header->unknown_fields, &unknown_bytes);
    }
    store_be32(fields + 28,
               (uint32_t)round_up(QCOW2_COMPRESSION_TYPE + 1 + unknown_bytes,
                                  EXTENSION_ALIGNMENT));
    g_byte_array_append(cluster, fields, sizeof(fields));
    if (unknown_bytes > 0) {
        g_byte_array_append(cluster, unknown, (guint)unknown_bytes);
    }
    append_padding(cluster);
}

static void append_fixed(GByteArray *cluster, const struct qcow2_header *header)
{
    uint8_t fields[QCOW2_HEADER_BYTES_V2] = { 0 };

    store_be32(fields + QCOW2_MAGIC, QCOW2_MAGIC_VALUE);
    store_be32(fields + QCOW2_VERSION, header->version);
    store_be32(fields + QCOW2_CLUSTER_BITS, header->cluster_bits);
    store_be64(fields + QCOW2_SIZE, header->size_bytes);
    store_be32(fields + QCOW2_L1_COUNT, header->l1_count);
    store_be64(fields + QCOW2_L1_OFFSET, header->l1_offset);
    store_be64(fields + QCOW2_REFCOUNT_TABLE_OFFSET,
               header->refcount_table_offset);
    store_be32(fields + QCOW2_REFCOUNT_TABLE_CLUSTERS,
               header->refcount_table_clusters);
    store_be32(fields + QCOW2_SNAPSHOT_COUNT, header->snapshot_count);
    store_be64(fields + QCOW2_SNAPSHOTS_OFFSET, header->snapshots_offset);
    g_byte_array_append(cluster, fields, sizeof(fields));
}

static void append_stamp(GByteArray *cluster, const struct qcow2_header *header)
{
    if (header->has_stamp) {
        append_extension(cluster, QCOW2_EXTENSION_STAMP, header->stamp,
                         QCOW2_STAMP_BYTES);
    }
}

/* What follows begins at `offset`. */
static void append_gap(GByteArray *cluster, uint32_t offset)
{
    guint start = cluster->len + EXTENSION_HEAD_BYTES;
    uint8_t head[EXTENSION_HEAD_BYTES];

    store_be32(head, QCOW2_EXTENSION_GAP);
    store_be32(head + 4, offset - start);
    g_byte_array_append(cluster, head, sizeof(head));
    g_byte_array_set_size(cluster, offset);
    memset(cluster->data + start, 0, offset - start);
}

static void append_head(GByteArray *cluster, const struct qcow2_header *header)
{
    append_fixed(cluster, header);
    if (header->version >= 3) {
        append_version_3(cluster, header);
        append_bitmaps(cluster, &header->bitmaps);
        append_stamp(cluster, header);
    }
}

static void append_tail(GByteArray *cluster,
                        const struct qcow2_header *header,
                        bool with_feature_names)
{
    append_string(cluster, QCOW2_EXTENSION_BACKING_FORMAT,
                  header->backing_format);
    append_string(cluster, QCOW2_EXTENSION_DATA_FILE, header->data_file);
    if (with_feature_names) {
        append_feature_names(cluster);
    }
    for (unsigned int i = 0; i < header->extensions->len; i++) {
        const struct qcow2_extension *extension = header->extensions->pdata[i];
        gsize bytes;
        const void *data = g_bytes_get_data(extension->data, &bytes);

        append_extension(cluster, extension->type, data, bytes);
    }
    append_extension(cluster, QCOW2_EXTENSION_END, NULL, 0);
}

/* All but the backing name, of any length. `tail_offset` 0: no gap. */
static GByteArray *format_fields(const struct qcow2_header *header,
                                 uint32_t tail_offset,
                                 bool with_feature_names)
{
    GByteArray *cluster = g_byte_array_new();

    append_head(cluster, header);
    if (tail_offset != 0) {
        append_gap(cluster, tail_offset);
    }
    append_tail(cluster, header, with_feature_names);
    return cluster;
}

static void append_backing_name(GByteArray *cluster, const char *name)
{
    uint32_t offset = cluster->len;
    uint32_t bytes = (uint32_t)strlen(name);

    g_byte_array_append(cluster, (const uint8_t *)name, bytes);
    store_be64(cluster->data + QCOW2_BACKING_OFFSET, offset);
    store_be32(cluster->data + QCOW2_BACKING_BYTES, bytes);
}

/* How long the part is that has to be in the first sector. */
static guint head_bytes(const struct qcow2_header *header)
{
    g_autoptr(GByteArray) head = g_byte_array_new();

    append_head(head, header);
    return head->len + EXTENSION_HEAD_BYTES;
}

static int refuse_size(size_t bytes, guint room, GError **err)
{
    return error_set(err, -ENOSPC,
                     "a header with these names and extensions has %zu bytes "
                     "and does not fit into a cluster of %u",
                     bytes, room);
}

static int format_at(const struct qcow2_header *header,
                     uint32_t tail_offset,
                     bool with_feature_names,
                     GByteArray **ret_cluster,
                     GError **err)
{
    guint cluster_bytes = 1U << header->cluster_bits;
    const char *name = header->backing_file;
    size_t name_bytes = name == NULL ? 0 : strlen(name);
    g_autoptr(GByteArray) cluster = NULL;
    guint used;

    if (name_bytes > QCOW2_BACKING_BYTES_MAX) {
        return error_set(err, -ENOSPC,
                         "the backing file's name has %zu bytes, more than the "
                         "%d that qcow2 allows",
                         name_bytes, QCOW2_BACKING_BYTES_MAX);
    }
    cluster = format_fields(header, tail_offset, with_feature_names);
    if (cluster->len + name_bytes > cluster_bytes && with_feature_names) {
        g_byte_array_unref(cluster);
        cluster = format_fields(header, tail_offset, false);
    }
    if (cluster->len + name_bytes > cluster_bytes) {
        return refuse_size(cluster->len + name_bytes, cluster_bytes, err);
    }
    if (name_bytes > 0) {
        append_backing_name(cluster, name);
    }
    used = cluster->len;
    g_byte_array_set_size(cluster, cluster_bytes);
    memset(cluster->data + used, 0, cluster_bytes - used);
    *ret_cluster = g_steal_pointer(&cluster);
    return 0;
}

int qcow2_header_format(const struct qcow2_header *header,
                        GByteArray **ret_cluster,
                        GError **err)
{
    return format_at(header, 0, header->version >= 3, ret_cluster, err);
}

int qcow2_header_format_brief(const struct qcow2_header *header,
                              GByteArray **ret_cluster,
                              GError **err)
{
    return format_at(header, 0, false, ret_cluster, err);
}

int qcow2_header_format_apart(const struct qcow2_header *header,
                              uint32_t tail_offset,
                              GByteArray **ret_cluster,
                              GError **err)
{
    guint head = head_bytes(header);

    g_assert(header->version >= 3 && tail_offset % EXTENSION_ALIGNMENT == 0);
    if (head > QCOW2_SECTOR_BYTES || head > tail_offset) {
        return refuse_size(head, QCOW2_SECTOR_BYTES, err);
    }
    return format_at(header, tail_offset, true, ret_cluster, err);
}
