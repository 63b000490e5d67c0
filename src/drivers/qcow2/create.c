/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Creating: what is asked for is checked, the layout computed, the file emptied
 * and made as long as it will be; then tables and data, a sync, the header, a
 * sync. Until the header is there the file begins with zeroes, so nothing takes
 * it for an image.
 *
 * A file that cannot change its size (a block device) must be large enough; its
 * old content is zeroed where the image has something.
 */
#include "drivers/qcow2/create.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "block/request.h"
#include "drivers/qcow2/create_layout.h"
#include "drivers/qcow2/header.h"

#define CLUSTER_BYTES_DEFAULT   (UINT32_C(64) << 10)
#define REFCOUNT_BITS_DEFAULT   16
#define EXTENDED_L2_CLUSTER_MIN (UINT32_C(16) << 10)
#define CHUNK_BYTES             MIB

static int refuse(GError **err, const char *sentence)
{
    return error_set(err, -EINVAL, "Cannot create a qcow2 image: %s", sentence);
}

/* What version 2 does not have. */
static int check_version(const struct qcow2_create_options *options,
                         GError **err)
{
    if (options->version == 3) {
        return 0;
    }
    if (options->version != 2) {
        return refuse(err, "its version must be 2 or 3");
    }
    if (options->lazy_refcounts) {
        return refuse(err, "version 2 has no lazy refcounts; use version 3");
    }
    if (options->extended_l2) {
        return refuse(err, "version 2 has no extended L2 entries; use "
                           "version 3");
    }
    if (options->refcount_bits != REFCOUNT_BITS_DEFAULT) {
        return refuse(err, "in version 2 refcounts have 16 bits; use "
                           "version 3");
    }
    if (options->compression != QCOW2_COMPRESSION_ZLIB) {
        return refuse(err, "version 2 compresses with zlib only; use "
                           "version 3");
    }
    if (options->data_file != NULL) {
        return refuse(err, "version 2 has no external data file; use "
                           "version 3");
    }
    return 0;
}

static int check_sizes(const struct qcow2_create_options *options, GError **err)
{
    uint32_t cluster = options->cluster_bytes;

    if (!is_power_of_two(cluster) ||
        cluster < UINT32_C(1) << QCOW2_CLUSTER_BITS_MIN ||
        cluster > UINT32_C(1) << QCOW2_CLUSTER_BITS_MAX) {
        return refuse(err, "the cluster size must be a power of two from 512 "
                           "bytes to 2 MiB");
    }
    if (options->extended_l2 && cluster < EXTENDED_L2_CLUSTER_MIN) {
        return refuse(err, "extended L2 entries need clusters of at least "
                           "16 KiB");
    }
    if (!is_power_of_two(options->refcount_bits) ||
        options->refcount_bits > 1U << QCOW2_REFCOUNT_ORDER_MAX) {
        return refuse(err, "the width of refcounts must be a power of two "
                           "from 1 to 64 bits");
    }
    if (options->size_bytes > LIMIT_DISK_BYTES) {
        return refuse(err, "the disk is larger than any can be");
    }
    return 0;
}

static int check_names(const struct qcow2_create_options *options, GError **err)
{
    const char *backing = options->backing_file;

    if (backing == NULL) {
        return options->backing_format == NULL
                   ? 0
                   : refuse(err, "a backing format needs a backing file");
    }
    if (strlen(backing) > QCOW2_BACKING_BYTES_MAX || backing[0] == '\0') {
        return refuse(err, "the name of the backing file must have 1 to 1023 "
                           "bytes");
    }
    if (options->data_file_raw) {
        return refuse(err, "a raw external data file excludes a backing file");
    }
    if (options->preallocation != PREALLOCATION_OFF && !options->extended_l2) {
        return refuse(err, "preallocation would hide the backing file; only "
                           "extended L2 entries allow both");
    }
    return 0;
}

static int check(const struct qcow2_create_options *options, GError **err)
{
    int ret = check_version(options, err);

    if (ret == 0) {
        ret = check_sizes(options, err);
    }
    if (ret == 0) {
        ret = check_names(options, err);
    }
    if (ret == 0 && options->data_file == NULL && options->data_file_raw) {
        ret = refuse(err, "a raw data file needs a data file");
    }
    return ret;
}

/* `options` with the format's usual values filled in. */
static struct qcow2_create_options complete(
    const struct qcow2_create_options *options)
{
    struct qcow2_create_options whole = *options;

    if (whole.version == 0) {
        whole.version = 3;
    }
    if (whole.cluster_bytes == 0) {
        whole.cluster_bytes = CLUSTER_BYTES_DEFAULT;
    }
    if (whole.refcount_bits == 0) {
        whole.refcount_bits = REFCOUNT_BITS_DEFAULT;
    }
    return whole;
}

/* In a raw data file every cluster must be where a reader without the metadata
 * finds it, whatever the preallocation. */
static bool is_preallocated(const struct qcow2_create_options *options)
{
    return options->preallocation != PREALLOCATION_OFF ||
           options->data_file_raw;
}

static unsigned int log2_of(uint64_t power)
{
    return (unsigned int)__builtin_ctzll(power);
}

static struct qcow2_header *make_header(
    const struct qcow2_create_options *options,
    const struct qcow2_layout *layout)
{
    struct qcow2_header *header = qcow2_header_new();

    header->version = options->version;
    header->cluster_bits = log2_of(options->cluster_bytes);
    header->refcount_order = layout->shape.refcount_order;
    header->size_bytes = options->size_bytes;
    header->l1_offset = layout->l1.offset_bytes;
    header->l1_count = layout->l1_count;
    header->refcount_table_offset = layout->refcount_table.offset_bytes;
    header->refcount_table_clusters = (uint32_t)layout->refcount_table.clusters;
    header->compression = options->compression;
    if (options->compression != QCOW2_COMPRESSION_ZLIB) {
        header->incompatible |= QCOW2_INCOMPATIBLE_COMPRESSION;
    }
    if (options->extended_l2) {
        header->incompatible |= QCOW2_INCOMPATIBLE_EXTENDED_L2;
    }
    if (options->lazy_refcounts) {
        header->compatible |= QCOW2_COMPATIBLE_LAZY;
    }
    if (options->data_file != NULL) {
        header->incompatible |= QCOW2_INCOMPATIBLE_DATA_FILE;
        header->data_file = g_strdup(options->data_file_name);
    }
    if (options->data_file_raw) {
        header->autoclear |= QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    }
    header->backing_file = g_strdup(options->backing_file);
    header->backing_format = g_strdup(options->backing_format);
    return header;
}

/* --- Writing ------------------------------------------------------------------ */

static int write_failed(int code, struct block_node *node, GError **err)
{
    return error_set_errno(err, code,
                           "Cannot create a qcow2 image: writing to '%s' "
                           "failed",
                           block_name(node));
}

/* All of `file` that the image will use reads as zeroes. */
static int co_empty(struct block_node *file, uint64_t file_bytes, GError **err)
{
    g_autoptr(GError) why = NULL;
    int ret = co_block_truncate(file, 0, true, &why);

    if (ret == 0) {
        return co_block_truncate(file, file_bytes, false, err);
    }
    if (ret != -ENOTSUP) {
        g_propagate_error(err, g_steal_pointer(&why));
        return ret;
    }
    if (block_size(file) < file_bytes) {
        return error_set(err, -ENOSPC,
                         "Cannot create a qcow2 image: it takes %" PRIu64
                         " bytes, and '%s' has %" PRIu64 " and cannot grow",
                         file_bytes, block_name(file), block_size(file));
    }
    ret = co_block_write_zeroes(file, 0, file_bytes, BLOCK_MAY_UNMAP);
    if (ret == 0) {
        ret = co_block_flush(file);
    }
    return ret < 0 ? write_failed(ret, file, err) : 0;
}

static int co_write_table(struct block_node *file,
                          const struct qcow2_layout *layout,
                          const struct qcow2_area *area,
                          qcow2_layout_fill *fill,
                          GError **err)
{
    uint64_t total = area->clusters * layout->shape.cluster_bytes;
    size_t chunk = min_u64(total, CHUNK_BYTES);
    g_autofree uint8_t *buffer = g_malloc(chunk);

    for (uint64_t done = 0; done < total; done += chunk) {
        size_t bytes = min_u64(chunk, total - done);
        int ret;

        memset(buffer, 0, bytes);
        fill(layout, done, buffer, bytes);
        ret = co_block_pwrite(file, area->offset_bytes + done, bytes, buffer,
                              BLOCK_FLUSHED_SOON);
        if (ret < 0) {
            return write_failed(ret, file, err);
        }
    }
    return 0;
}

static int co_write_tables(struct block_node *file,
                           const struct qcow2_layout *layout,
                           GError **err)
{
    int ret = co_write_table(file, layout, &layout->refcount_table,
                             qcow2_layout_fill_refcount_table, err);

    if (ret == 0) {
        ret = co_write_table(file, layout, &layout->refcount_blocks,
                             qcow2_layout_fill_refcount_blocks, err);
    }
    /* Without L2 tables the L1 table is all zeroes, as the file is there. */
    if (ret == 0 && layout->l2.clusters > 0) {
        ret = co_write_table(file, layout, &layout->l1, qcow2_layout_fill_l1,
                             err);
    }
    if (ret == 0) {
        ret = co_write_table(file, layout, &layout->l2, qcow2_layout_fill_l2,
                             err);
    }
    return ret;
}

static int co_reserve(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct qcow2_create_options *options,
                      GError **err)
{
    int ret = co_preallocate(node, offset, bytes, options->preallocation,
                             options->stop);

    return ret < 0 ? write_failed(ret, node, err) : 0;
}

/* An external data file has at least the disk's size. What it holds already
 * stays if it is raw: that may be a disk to put under qcow2's care. */
static int co_prepare_data_file(const struct qcow2_create_options *options,
                                GError **err)
{
    struct block_node *node = options->data_file;
    uint64_t old_bytes = block_size(node);
    uint64_t kept = options->data_file_raw ? old_bytes : 0;
    int ret = 0;

    if (old_bytes < options->size_bytes) {
        ret = co_block_truncate(node, options->size_bytes, false, err);
    }
    if (ret == 0 && is_preallocated(options) && kept < options->size_bytes) {
        ret = co_reserve(node, kept, options->size_bytes - kept, options, err);
    }
    if (ret == 0) {
        ret = co_block_flush(node);
        ret = ret < 0 ? write_failed(ret, node, err) : 0;
    }
    return ret;
}

static int co_write_header(struct block_node *file,
                           const GByteArray *cluster,
                           GError **err)
{
    int ret = co_block_flush(file);

    if (ret == 0) {
        ret = co_block_pwrite(file, 0, cluster->len, cluster->data, BLOCK_FUA);
    }
    return ret < 0 ? write_failed(ret, file, err) : 0;
}

static int co_write_image(struct block_node *file,
                          const struct qcow2_create_options *options,
                          const struct qcow2_layout *layout,
                          const GByteArray *header,
                          GError **err)
{
    int ret = co_empty(file, layout->file_bytes, err);

    if (ret == 0) {
        ret = co_write_tables(file, layout, err);
    }
    if (ret == 0 && options->data_file != NULL) {
        ret = co_prepare_data_file(options, err);
    } else if (ret == 0) {
        ret = co_reserve(file, layout->data.offset_bytes,
                         layout->data.clusters * layout->shape.cluster_bytes,
                         options, err);
    }
    return ret < 0 ? ret : co_write_header(file, header, err);
}

int co_qcow2_create(struct block_node *file,
                    const struct qcow2_create_options *asked,
                    GError **err)
{
    struct qcow2_create_options options = complete(asked);
    g_autoptr(qcow2_header) header = NULL;
    g_autoptr(GByteArray) cluster = NULL;
    struct qcow2_layout layout;
    int ret = check(&options, err);

    if (ret < 0) {
        return ret;
    }
    ret =
        qcow2_layout_init(&layout,
                          &(struct qcow2_shape){
                              .size_bytes = options.size_bytes,
                              .cluster_bytes = options.cluster_bytes,
                              .refcount_order = log2_of(options.refcount_bits),
                              .extended_l2 = options.extended_l2,
                              .preallocated = is_preallocated(&options),
                              .external_data = options.data_file != NULL,
                              .has_backing = options.backing_file != NULL,
                          },
                          err);
    if (ret < 0) {
        return ret;
    }
    header = make_header(&options, &layout);
    ret = qcow2_header_format(header, &cluster, err);
    if (ret < 0) {
        return ret;
    }
    return co_write_image(file, &options, &layout, cluster, err);
}
