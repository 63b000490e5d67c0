/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One pass over the extents, in the order of the disk: a cluster is read, packed,
 * and written where the last one ended; its L2 entry goes into a table in memory,
 * which is written when the pass leaves it. How often each cluster of the file is
 * used is counted on the way. Then follow the L1 table and the reference counts,
 * and last of all the header: until then the file is no qcow2 image.
 *
 *     0        64 KiB
 *     | header | streams, whole clusters, L2 tables | L1 | refcount | refcount |
 *                                                          table      blocks
 */
#include "repo/packed_image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/codec.h"
#include "drivers/qcow2/entry.h"
#include "drivers/qcow2/header.h"
#include "repo/durable.h"
#include "repo/file_data.h"

#define CLUSTER      INCREMENT_CLUSTER_BYTES
#define CLUSTER_BITS 16
_Static_assert(CLUSTER == 1 << CLUSTER_BITS, "one size, said twice");
#define L2_COUNT (CLUSTER / sizeof(uint64_t))
#define RB_COUNT (CLUSTER / sizeof(uint16_t))
/* A stream must save at least a sector. */
#define STREAM_BYTES_MAX (CLUSTER - QCOW2_SECTOR_BYTES)
/* How much is read between two steps, and emptied. */
#define STEP_BYTES (UINT64_C(4) << 20)

struct packing {
    int fd;
    const struct packed_image_source *source;
    struct file_data data;
    uint64_t next;       /* where the next new cluster goes, bytes */
    uint64_t stream_at;  /* where the next stream goes; ... */
    uint64_t stream_end; /* ... the end of the clusters that are for streams */
    GArray *counts;      /* uint16_t, for each cluster of the file */
    uint64_t *l1;        /* as in the file */
    uint64_t l1_count;
    uint64_t l1_index; /* of `l2`; UINT64_MAX: it is empty */
    uint8_t *l2;
    uint8_t *cluster;
    uint8_t *stream;
    uint64_t done_bytes;
    uint64_t total_bytes;
    uint64_t emptied_to; /* of the raw file */
};

static int write_at(struct packing *packing,
                    const void *bytes,
                    size_t length,
                    uint64_t offset,
                    GError **err)
{
    int ret = pwrite_fully(packing->fd, bytes, length, offset);

    return ret == 0 ? 0 : error_set_errno(err, ret, "cannot write the image");
}

static uint64_t allocate(struct packing *packing, uint64_t clusters)
{
    uint64_t at = packing->next;

    packing->next += clusters * CLUSTER;
    g_array_set_size(packing->counts, (guint)(packing->next / CLUSTER));
    return at;
}

/* One more use of each cluster from that of `offset` to that of the last byte. */
static void count_use(struct packing *packing, uint64_t offset, uint64_t bytes)
{
    uint64_t last = (offset + bytes - 1) / CLUSTER;

    for (uint64_t i = offset / CLUSTER; i <= last; i++) {
        uint16_t *count = &g_array_index(packing->counts, uint16_t, (guint)i);

        /* Streams of what is not all zeroes are longer than a byte. */
        g_assert(*count < UINT16_MAX);
        (*count)++;
    }
}

static uint64_t allocate_used(struct packing *packing, uint64_t clusters)
{
    uint64_t at = allocate(packing, clusters);

    count_use(packing, at, clusters * CLUSTER);
    return at;
}

/* Room behind the last stream, or in new clusters if those do not follow. */
static uint64_t place_stream(struct packing *packing, uint64_t bytes)
{
    uint64_t at;

    if (bytes > packing->stream_end - packing->stream_at) {
        if (packing->stream_end != packing->next) {
            packing->stream_at = packing->next;
        }
        (void)allocate(packing, 1); /* follows; counted by who uses it */
        packing->stream_end = packing->next;
    }
    at = packing->stream_at;
    packing->stream_at += bytes;
    count_use(packing, at, bytes);
    return at;
}

static int finish_l2(struct packing *packing, GError **err)
{
    uint64_t at;

    if (packing->l1_index == UINT64_MAX) {
        return 0;
    }
    at = allocate_used(packing, 1);
    store_be64(&packing->l1[packing->l1_index], at | QCOW2_ENTRY_COPIED);
    packing->l1_index = UINT64_MAX;
    return write_at(packing, packing->l2, CLUSTER, at, err);
}

static int enter(struct packing *packing,
                 uint64_t cluster,
                 const struct qcow2_entry *entry,
                 GError **err)
{
    uint64_t l1_index = cluster / L2_COUNT;

    if (l1_index != packing->l1_index) {
        int ret = finish_l2(packing, err);

        if (ret < 0) {
            return ret;
        }
        packing->l1_index = l1_index;
        memset(packing->l2, 0, CLUSTER);
    }
    qcow2_entry_store(packing->l2 + cluster % L2_COUNT * sizeof(uint64_t),
                      CLUSTER_BITS, false, entry);
    return 0;
}

/* Over a backing file what is zero must say so. */
static int enter_zeroes(struct packing *packing, uint64_t cluster, GError **err)
{
    const struct qcow2_entry entry = { .zero = true };

    return packing->source->backing_name == NULL
               ? 0
               : enter(packing, cluster, &entry, err);
}

static int pack_data(struct packing *packing, uint64_t cluster, GError **err)
{
    struct qcow2_entry entry = { .compressed = true };
    size_t bytes = 0;
    int ret = qcow2_compress(QCOW2_COMPRESSION_ZSTD, packing->cluster, CLUSTER,
                             packing->stream, STREAM_BYTES_MAX, &bytes);

    if (ret < 0 && ret != -ENOSPC) {
        return error_set_errno(err, ret, "cannot compress");
    }
    if (ret == 0) {
        entry.compressed_bytes = bytes;
        entry.host_offset = place_stream(packing, bytes);
        ret = write_at(packing, packing->stream, bytes, entry.host_offset, err);
    } else {
        entry = (struct qcow2_entry){ .copied = true };
        entry.host_offset = allocate_used(packing, 1);
        ret = write_at(packing, packing->cluster, CLUSTER, entry.host_offset,
                       err);
    }
    return ret < 0 ? ret : enter(packing, cluster, &entry, err);
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static int pack_cluster(struct packing *packing, uint64_t cluster, GError **err)
{
    uint64_t offset = cluster * CLUSTER;
    size_t bytes =
        (size_t)min_u64(CLUSTER, packing->source->disk_bytes - offset);
    ssize_t done;

    if (packing->data.start >= offset + bytes) {
        return enter_zeroes(packing, cluster, err);
    }
    done = pread_fully(packing->source->fd, packing->cluster, bytes, offset);
    if (done < 0) {
        return error_set_errno(err, (int)done, "cannot read the backup");
    }
    memset(packing->cluster + done, 0, CLUSTER - (size_t)done);
    return is_zero(packing->cluster, CLUSTER)
               ? enter_zeroes(packing, cluster, err)
               : pack_data(packing, cluster, err);
}

/* Tells how far it is, and empties the raw file up to `end`. */
static int step(struct packing *packing, uint64_t end, GError **err)
{
    const struct packed_image_source *source = packing->source;

    if (source->step != NULL &&
        !source->step(source->opaque, packing->done_bytes,
                      packing->total_bytes)) {
        return error_set(err, -ECANCELED, "interrupted");
    }
    if (end > packing->emptied_to) {
        /* Where that cannot be done it takes the space until the end. */
        (void)fallocate(source->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)packing->emptied_to,
                        (off_t)(end - packing->emptied_to));
        packing->emptied_to = end;
    }
    return 0;
}

/* `before`: bytes of the extents before it. */
static int pack_extent(struct packing *packing,
                       const struct increment_extent *extent,
                       uint64_t before,
                       GError **err)
{
    uint64_t end = extent->offset + extent->bytes;
    uint64_t offset = extent->offset;
    uint64_t told = offset;

    while (offset < end) {
        int ret = file_data_find(&packing->data, offset, err);

        if (ret == 0 && packing->source->backing_name == NULL) {
            /* What begins with a hole needs no entry. */
            offset = max_u64(offset, packing->data.start / CLUSTER * CLUSTER);
            if (offset >= end) {
                break;
            }
        }
        ret = ret < 0 ? ret : pack_cluster(packing, offset / CLUSTER, err);
        offset += CLUSTER;
        if (ret == 0 && offset - told >= STEP_BYTES) {
            told = offset;
            packing->done_bytes =
                before + min_u64(offset, end) - extent->offset;
            ret = step(packing, min_u64(offset, end), err);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int pack_extents(struct packing *packing, GError **err)
{
    const struct packed_image_source *source = packing->source;
    uint64_t before = 0;

    for (size_t i = 0; i < source->extent_count; i++) {
        const struct increment_extent *extent = &source->extents[i];
        int ret = pack_extent(packing, extent, before, err);

        before += extent->bytes;
        packing->done_bytes = before;
        if (ret == 0) {
            ret = step(packing, extent->offset + extent->bytes, err);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return finish_l2(packing, err);
}

/* The table and its blocks, which count themselves. */
static int write_refcounts(struct packing *packing,
                           uint64_t *ret_table_at,
                           uint64_t *ret_table_clusters,
                           GError **err)
{
    uint64_t used = packing->next / CLUSTER;
    uint64_t blocks = 1;
    uint64_t table_clusters = 1;
    int ret = 0;

    while (blocks * RB_COUNT < used + blocks + table_clusters) {
        blocks++;
        table_clusters = divide_round_up(blocks * sizeof(uint64_t), CLUSTER);
    }
    *ret_table_clusters = table_clusters;
    *ret_table_at = allocate_used(packing, table_clusters);
    uint64_t at = allocate_used(packing, blocks);
    g_autofree uint64_t *table = g_malloc0_n(table_clusters, (gsize)CLUSTER);
    g_array_set_size(packing->counts, (guint)(blocks * RB_COUNT));
    for (uint64_t i = 0; i < blocks && ret == 0; i++) {
        store_be64(&table[i], at + i * CLUSTER);
        for (uint64_t k = 0; k < RB_COUNT; k++) {
            store_be16(packing->cluster + k * sizeof(uint16_t),
                       g_array_index(packing->counts, uint16_t,
                                     (guint)(i * RB_COUNT + k)));
        }
        ret =
            write_at(packing, packing->cluster, CLUSTER, at + i * CLUSTER, err);
    }
    return ret < 0 ? ret
                   : write_at(packing, table, table_clusters * CLUSTER,
                              *ret_table_at, err);
}

static int write_header(struct packing *packing,
                        struct qcow2_header *header,
                        GError **err)
{
    g_autoptr(GByteArray) cluster = NULL;
    int ret;

    header->cluster_bits = CLUSTER_BITS;
    header->refcount_order = 4;
    /* Who counts in sectors would otherwise drop the end of the disk. */
    header->size_bytes =
        round_up(packing->source->disk_bytes, QCOW2_SECTOR_BYTES);
    header->incompatible = QCOW2_INCOMPATIBLE_COMPRESSION;
    header->compression = QCOW2_COMPRESSION_ZSTD;
    header->backing_file = g_strdup(packing->source->backing_name);
    header->backing_format = g_strdup(packing->source->backing_format);
    ret = qcow2_header_format(header, &cluster, err);
    return ret < 0 ? ret
                   : write_at(packing, cluster->data, cluster->len, 0, err);
}

static int write_image(struct packing *packing, GError **err)
{
    g_autoptr(qcow2_header) header = qcow2_header_new();
    uint64_t l1_bytes = packing->l1_count * sizeof(uint64_t);
    uint64_t table_clusters = 0;
    int ret;

    (void)allocate_used(packing, 1); /* the header */
    ret = pack_extents(packing, err);
    if (ret < 0) {
        return ret;
    }
    header->l1_count = (uint32_t)packing->l1_count;
    header->l1_offset =
        allocate_used(packing, max_u64(1, divide_round_up(l1_bytes, CLUSTER)));
    ret = write_at(packing, packing->l1, l1_bytes, header->l1_offset, err);
    if (ret == 0) {
        ret = write_refcounts(packing, &header->refcount_table_offset,
                              &table_clusters, err);
    }
    if (ret < 0) {
        return ret;
    }
    header->refcount_table_clusters = (uint32_t)table_clusters;
    if (ftruncate(packing->fd, (off_t)packing->next) < 0) {
        return error_set_errno(err, -errno, "cannot extend the image");
    }
    ret = write_header(packing, header, err);
    return ret < 0 ? ret : durable_sync(packing->fd, "the image", err);
}

int packed_image_write(int fd,
                       const struct packed_image_source *source,
                       GError **err)
{
    struct packing packing = {
        .fd = fd,
        .source = source,
        .data = { .fd = source->fd },
        .counts = g_array_new(FALSE, TRUE, sizeof(uint16_t)),
        .l1_count = divide_round_up(source->disk_bytes, CLUSTER * L2_COUNT),
        .l1_index = UINT64_MAX,
        .l2 = g_malloc((gsize)CLUSTER),
        .cluster = g_malloc((gsize)CLUSTER),
        .stream = g_malloc((gsize)CLUSTER),
    };
    int ret = increment_check_extents(source->extents, source->extent_count,
                                      source->disk_bytes, err);

    packing.l1 = g_new0(uint64_t, packing.l1_count);
    for (size_t i = 0; i < source->extent_count; i++) {
        packing.total_bytes += source->extents[i].bytes;
    }
    ret = ret < 0 ? ret : write_image(&packing, err);
    g_array_unref(packing.counts);
    g_free(packing.l1);
    g_free(packing.l2);
    g_free(packing.cluster);
    g_free(packing.stream);
    return ret;
}
