/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One pass over the extents asks the file system which of their clusters hold
 * data, writes the L2 tables, and notes the host clusters in use as runs. A
 * second one over the runs writes the reference counts. Since the counts cover
 * their own blocks too, how many blocks there are is found by trying until the
 * number no longer changes.
 *
 * The header comes last: until then the file is no qcow2 image.
 */
#include "repo/increment.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/header.h"
#include "repo/durable.h"
#include "repo/file_data.h"

#define CLUSTER      INCREMENT_CLUSTER_BYTES
#define CLUSTER_BITS 16
_Static_assert(CLUSTER == 1 << CLUSTER_BITS, "one size, said twice");
/* Entries of an L2 table, and refcounts (16 bit) in a block. */
#define L2_COUNT (CLUSTER / sizeof(uint64_t))
#define RB_COUNT (CLUSTER / sizeof(uint16_t))
/* Tables are written in units of this, and not where these are empty. */
#define PAGE 4096

struct run {
    uint64_t first; /* host cluster */
    uint64_t count;
};

struct seal {
    int fd;
    uint64_t disk_bytes;
    bool has_backing; /* else what is not there reads as zeroes anyway */
    uint64_t next;    /* where the next appended cluster goes, bytes */
    uint64_t first_cluster_at; /* new place of guest cluster 0 */
    GArray *runs;              /* struct run, ascending: clusters in use */
    uint64_t *l1;              /* as in the file */
    uint64_t l1_count;
    uint64_t l1_at;
    uint8_t *table; /* scratch, one cluster */
    struct file_data data;
};

int increment_check_extents(const struct increment_extent *extents,
                            size_t count,
                            uint64_t disk_bytes,
                            GError **err)
{
    uint64_t end = 0;

    for (size_t i = 0; i < count; i++) {
        const struct increment_extent *extent = &extents[i];
        if (extent->bytes == 0 || extent->offset < end ||
            !bytes_range_within(extent->offset, extent->bytes, disk_bytes)) {
            return error_set(err, -EINVAL,
                             "extent %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT
                             " is empty, out of order or outside the disk of "
                             "%" G_GUINT64_FORMAT " bytes",
                             extent->offset, extent->bytes, disk_bytes);
        }
        end = extent->offset + extent->bytes;
        if (extent->offset % CLUSTER != 0 ||
            (end % CLUSTER != 0 && end != disk_bytes)) {
            return error_set(err, -EINVAL,
                             "extent %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT
                             " does not begin and end on a multiple of 64 KiB",
                             extent->offset, extent->bytes);
        }
    }
    return 0;
}

static uint64_t allocate(struct seal *seal, uint64_t clusters)
{
    uint64_t at = seal->next;

    seal->next += clusters * CLUSTER;
    return at;
}

static void add_run(struct seal *seal, uint64_t first, uint64_t count)
{
    struct run run = { .first = first, .count = count };

    if (seal->runs->len > 0) {
        struct run *last =
            &g_array_index(seal->runs, struct run, seal->runs->len - 1);
        if (last->first + last->count == first) {
            last->count += count;
            return;
        }
    }
    g_array_append_val(seal->runs, run);
}

/* Writes a table where it is not all zeroes, and clears it. */
static int write_table(struct seal *seal, uint64_t at, GError **err)
{
    static const uint8_t zeroes[PAGE];

    for (uint64_t i = 0; i < CLUSTER; i += PAGE) {
        if (memcmp(seal->table + i, zeroes, PAGE) == 0) {
            continue;
        }
        int ret = pwrite_fully(seal->fd, seal->table + i, PAGE, at + i);
        if (ret < 0) {
            return error_set_errno(err, ret, "cannot write the image's tables");
        }
    }
    memset(seal->table, 0, CLUSTER);
    return 0;
}

/* Is there data in the file anywhere in this cluster of the disk? */
static int cluster_has_data(struct seal *seal,
                            uint64_t offset,
                            bool *ret_has,
                            GError **err)
{
    uint64_t end = min_u64(offset + CLUSTER, seal->disk_bytes);
    int ret = file_data_find(&seal->data, offset, err);

    *ret_has = ret == 0 && seal->data.start < end;
    return ret;
}

/* Guest cluster 0 makes room for the header, if there is anything in it. */
static int move_first_cluster(struct seal *seal, GError **err)
{
    size_t bytes = (size_t)min_u64(CLUSTER, seal->disk_bytes);
    bool has_data;
    int ret = cluster_has_data(seal, 0, &has_data, err);

    if (ret < 0 || !has_data) {
        return ret;
    }
    ssize_t done = pread_fully(seal->fd, seal->table, bytes, 0);
    if (done < 0) {
        return error_set_errno(err, (int)done, "cannot read the first cluster");
    }
    seal->first_cluster_at = allocate(seal, 1);
    ret = pwrite_fully(seal->fd, seal->table, CLUSTER, seal->first_cluster_at);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot move the first cluster");
    }
    memset(seal->table, 0, CLUSTER);
    return 0;
}

/* Enters one changed cluster into the L2 table under way. */
static int enter_cluster(struct seal *seal, uint64_t cluster, GError **err)
{
    uint64_t entry = QCOW2_L2_ZERO;
    bool has_data = false;
    int ret = cluster_has_data(seal, cluster * CLUSTER, &has_data, err);

    if (ret < 0) {
        return ret;
    }
    if (has_data && cluster == 0) {
        entry = seal->first_cluster_at | QCOW2_ENTRY_COPIED;
    } else if (has_data) {
        entry = (cluster * CLUSTER) | QCOW2_ENTRY_COPIED;
        add_run(seal, cluster, 1);
    }
    store_be64(seal->table + cluster % L2_COUNT * sizeof(entry), entry);
    return 0;
}

static int finish_l2(struct seal *seal, uint64_t l1_index, GError **err)
{
    uint64_t at = allocate(seal, 1);

    store_be64(&seal->l1[l1_index], at | QCOW2_ENTRY_COPIED);
    return write_table(seal, at, err);
}

/* Moves `*cluster` on to one that needs an entry. Over a backing file that is
 * each; without, a hole needs none, and there may be many in a row. */
static int skip_holes(struct seal *seal, uint64_t *cluster, GError **err)
{
    int ret;

    if (seal->has_backing) {
        return 0;
    }
    ret = file_data_find(&seal->data, *cluster * CLUSTER, err);
    *cluster = max_u64(*cluster, seal->data.start / CLUSTER);
    return ret;
}

static int write_l2_tables(struct seal *seal,
                           const struct increment_extent *extents,
                           size_t count,
                           GError **err)
{
    uint64_t l1_index = UINT64_MAX;
    int ret = 0;

    for (size_t i = 0; i < count && ret == 0; i++) {
        uint64_t cluster = extents[i].offset / CLUSTER;
        uint64_t end = cluster + divide_round_up(extents[i].bytes, CLUSTER);
        for (; ret == 0; cluster++) {
            ret = skip_holes(seal, &cluster, err);
            if (ret < 0 || cluster >= end) {
                break;
            }
            if (l1_index != UINT64_MAX && cluster / L2_COUNT != l1_index) {
                ret = finish_l2(seal, l1_index, err);
            }
            l1_index = cluster / L2_COUNT;
            if (ret == 0) {
                ret = enter_cluster(seal, cluster, err);
            }
        }
    }
    if (ret == 0 && l1_index != UINT64_MAX) {
        ret = finish_l2(seal, l1_index, err);
    }
    return ret;
}

/* How many refcount blocks the runs, and the appended part up to `end`, need.
 * The appended part is the highest. */
static uint64_t count_blocks(const struct seal *seal,
                             uint64_t appended_at,
                             uint64_t end)
{
    uint64_t next_block = 0;
    uint64_t blocks = 0;

    for (guint i = 0; i <= seal->runs->len; i++) {
        struct run run = { .first = appended_at / CLUSTER,
                           .count = (end - appended_at) / CLUSTER };
        if (i < seal->runs->len) {
            run = g_array_index(seal->runs, struct run, i);
        }
        uint64_t first = max_u64(run.first / RB_COUNT, next_block);
        uint64_t last = (run.first + run.count - 1) / RB_COUNT;
        if (last >= first) {
            blocks += last - first + 1;
            next_block = last + 1;
        }
    }
    return blocks;
}

/* Fills refcount block `index` from the runs; moves `*run_index` past those
 * that end in it. False if no cluster of the block is in use. */
static bool fill_block(struct seal *seal, uint64_t index, guint *run_index)
{
    uint64_t start = index * RB_COUNT;
    uint64_t end = start + RB_COUNT;
    bool used = false;

    while (*run_index < seal->runs->len) {
        const struct run *run =
            &g_array_index(seal->runs, struct run, *run_index);
        uint64_t run_end = run->first + run->count;
        for (uint64_t cluster = max_u64(run->first, start);
             cluster < min_u64(run_end, end); cluster++) {
            store_be16(seal->table + (cluster - start) * sizeof(uint16_t), 1);
            used = true;
        }
        if (run_end > end) {
            break;
        }
        (*run_index)++;
    }
    return used;
}

/* How many refcount blocks, and clusters of the table that lists them, the
 * image needs; both count themselves. */
static void size_refcounts(const struct seal *seal,
                           uint64_t appended_at,
                           uint64_t *ret_blocks,
                           uint64_t *ret_table_clusters)
{
    uint64_t blocks = 1;
    uint64_t table_clusters = 1;
    uint64_t found = 0;

    do {
        blocks = max_u64(blocks, found);
        uint64_t end = seal->next + (table_clusters + blocks) * CLUSTER;
        uint64_t entries = divide_round_up(end / CLUSTER, RB_COUNT);
        /* Grows only: one more cluster of table is room for 256 TiB. */
        table_clusters =
            max_u64(table_clusters,
                    divide_round_up(entries * sizeof(uint64_t), CLUSTER));
        end = seal->next + (table_clusters + blocks) * CLUSTER;
        found = count_blocks(seal, appended_at, end);
    } while (found > blocks);
    *ret_blocks = blocks;
    *ret_table_clusters = table_clusters;
}

/* Writes the blocks from `block_at` on and enters them into the table. */
static int write_blocks(struct seal *seal,
                        uint64_t block_at,
                        uint64_t *table,
                        GError **err)
{
    uint64_t index = 0;
    guint run_index = 0;

    for (; run_index < seal->runs->len; index++) {
        const struct run *run =
            &g_array_index(seal->runs, struct run, run_index);
        index = max_u64(index, run->first / RB_COUNT);
        if (!fill_block(seal, index, &run_index)) {
            continue;
        }
        g_assert(block_at < seal->next);
        store_be64(&table[index], block_at);
        int ret = write_table(seal, block_at, err);
        if (ret < 0) {
            return ret;
        }
        block_at += CLUSTER;
    }
    return 0;
}

static int write_refcounts(struct seal *seal,
                           uint64_t appended_at,
                           uint64_t *ret_table_at,
                           uint64_t *ret_table_clusters,
                           GError **err)
{
    uint64_t blocks, table_clusters;

    size_refcounts(seal, appended_at, &blocks, &table_clusters);
    uint64_t table_at = allocate(seal, table_clusters);
    uint64_t block_at = allocate(seal, blocks);
    add_run(seal, appended_at / CLUSTER, (seal->next - appended_at) / CLUSTER);
    g_autofree uint64_t *table = g_malloc0_n(table_clusters, (gsize)CLUSTER);
    int ret = write_blocks(seal, block_at, table, err);
    if (ret < 0) {
        return ret;
    }
    ret = pwrite_fully(seal->fd, table, table_clusters * CLUSTER, table_at);
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot write the refcount table");
    }
    *ret_table_at = table_at;
    *ret_table_clusters = table_clusters;
    return 0;
}

static int write_header(struct seal *seal,
                        uint64_t refcounts_at,
                        uint64_t refcount_clusters,
                        const char *backing_name,
                        const char *backing_format,
                        GError **err)
{
    g_autoptr(qcow2_header) header = qcow2_header_new();
    g_autoptr(GByteArray) cluster = NULL;
    int ret;

    header->version = 3;
    header->cluster_bits = CLUSTER_BITS;
    header->refcount_order = 4;
    /* Who counts in sectors would otherwise drop the end of the disk. */
    header->size_bytes = round_up(seal->disk_bytes, QCOW2_SECTOR_BYTES);
    header->l1_count = (uint32_t)seal->l1_count;
    header->l1_offset = seal->l1_at;
    header->refcount_table_offset = refcounts_at;
    header->refcount_table_clusters = (uint32_t)refcount_clusters;
    header->backing_file = g_strdup(backing_name);
    header->backing_format = g_strdup(backing_format);
    ret = qcow2_header_format(header, &cluster, err);
    if (ret < 0) {
        return ret;
    }
    ret = pwrite_fully(seal->fd, cluster->data, cluster->len, 0);
    return ret == 0
               ? 0
               : error_set_errno(err, ret, "cannot write the image's header");
}

static int seal_image(struct seal *seal,
                      const struct increment_extent *extents,
                      size_t count,
                      const char *backing_name,
                      const char *backing_format,
                      GError **err)
{
    uint64_t appended_at = seal->next;
    uint64_t refcounts_at = 0;
    uint64_t refcount_clusters = 0;
    int ret = 0;

    add_run(seal, 0, 1); /* the header */
    if (count > 0 && extents[0].offset == 0) {
        ret = move_first_cluster(seal, err);
    }
    seal->l1_at = allocate(
        seal, divide_round_up(seal->l1_count * sizeof(uint64_t), CLUSTER));
    if (ret == 0) {
        ret = write_l2_tables(seal, extents, count, err);
    }
    if (ret == 0) {
        ret = pwrite_fully(seal->fd, seal->l1,
                           seal->l1_count * sizeof(uint64_t), seal->l1_at);
        if (ret < 0) {
            return error_set_errno(err, ret, "cannot write the L1 table");
        }
        ret = write_refcounts(seal, appended_at, &refcounts_at,
                              &refcount_clusters, err);
    }
    if (ret == 0 && ftruncate(seal->fd, (off_t)seal->next) < 0) {
        ret = error_set_errno(err, -errno, "cannot extend the image");
    }
    if (ret == 0) {
        ret = write_header(seal, refcounts_at, refcount_clusters, backing_name,
                           backing_format, err);
    }
    return ret;
}

int increment_seal(int fd,
                   uint64_t disk_bytes,
                   const struct increment_extent *extents,
                   size_t count,
                   const char *backing_name,
                   const char *backing_format,
                   GError **err)
{
    struct seal seal = {
        .fd = fd,
        .data = { .fd = fd },
        .disk_bytes = disk_bytes,
        .has_backing = backing_name != NULL,
        .next = max_u64(round_up(disk_bytes, CLUSTER), CLUSTER),
        .runs = g_array_new(FALSE, FALSE, sizeof(struct run)),
        .l1_count = divide_round_up(disk_bytes, CLUSTER * L2_COUNT),
        .table = g_malloc0((gsize)CLUSTER),
    };
    int ret = increment_check_extents(extents, count, disk_bytes, err);

    seal.l1 = g_new0(uint64_t, seal.l1_count);
    if (ret == 0) {
        ret = seal_image(&seal, extents, count, backing_name, backing_format,
                         err);
    }
    if (ret == 0) {
        ret = durable_sync(fd, "increment", err);
    }
    g_array_unref(seal.runs);
    g_free(seal.l1);
    g_free(seal.table);
    return ret;
}
