/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A raw image is mapped by asking the file system for its holes. A qcow2 image
 * is mapped through its L1 table, held in memory, and one L2 table at a time.
 * Whatever the tables say must lie within the file, on a cluster boundary unless
 * it is compressed, and use no feature that the header did not allow. Of compressed
 * clusters the last one read is kept.
 */
#include "repo/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/qcow2/codec.h"
#include "drivers/qcow2/entry.h"
#include "drivers/qcow2/header.h"
#include "repo/durable.h"
#include "repo/fd.h"

struct image {
    int fd;
    char *name;
    uint64_t disk_bytes;
    uint64_t file_bytes;
    bool is_qcow2;

    /* Raw: the last stretch that was looked up. */
    uint64_t known_start;
    uint64_t known_end;
    bool known_is_data;

    /* qcow2 */
    char *backing_name;
    uint32_t cluster_bits;
    uint64_t *l1; /* host order, masked offsets */
    uint64_t l1_count;
    uint8_t *l2; /* the table of `l2_index`, as in the file */
    uint64_t l2_index;
    enum qcow2_compression compression;
    uint8_t *unpacked; /* the cluster whose stream is at `unpacked_from` */
    uint64_t unpacked_from;
};

static struct image *open_file(int directory_fd,
                               const char *name,
                               uint64_t disk_bytes,
                               GError **err)
{
    struct stat status;
    auto_fd int fd = openat(directory_fd, name,
                            O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0) {
        (void)error_set_errno(err, -errno, "cannot open image '%s'", name);
        return NULL;
    }
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        (void)error_set(err, -EINVAL, "image '%s' is not a plain file", name);
        return NULL;
    }
    struct image *image = g_new0(struct image, 1);
    image->fd = fd_steal(&fd);
    image->name = g_strdup(name);
    image->disk_bytes = disk_bytes;
    image->file_bytes = (uint64_t)status.st_size;
    return image;
}

struct image *image_open_raw(int directory_fd,
                             const char *name,
                             uint64_t disk_bytes,
                             GError **err)
{
    g_autoptr(image_auto) image =
        open_file(directory_fd, name, disk_bytes, err);

    if (image == NULL) {
        return NULL;
    }
    if (image->file_bytes != disk_bytes) {
        (void)error_set(err, -EINVAL,
                        "image '%s' has %" G_GUINT64_FORMAT
                        " bytes, its disk %" G_GUINT64_FORMAT,
                        name, image->file_bytes, disk_bytes);
        return NULL;
    }
    return g_steal_pointer(&image);
}

void image_close(struct image *image)
{
    if (image == NULL) {
        return;
    }
    (void)close(image->fd); /* read only */
    g_free(image->name);
    g_free(image->backing_name);
    g_free(image->l1);
    g_free(image->l2);
    g_free(image->unpacked);
    g_free(image);
}

const char *image_backing_name(const struct image *image)
{
    return image->backing_name;
}

static int damaged(const struct image *image, GError **err, const char *what)
{
    return error_set(err, -EINVAL, "image '%s' is damaged: %s", image->name,
                     what);
}

static int read_file(struct image *image,
                     uint64_t host_offset,
                     void *buffer,
                     size_t bytes,
                     GError **err)
{
    ssize_t done = pread_fully(image->fd, buffer, bytes, host_offset);

    if (done < 0) {
        return error_set_errno(err, (int)done,
                               "cannot read image '%s' at %" G_GUINT64_FORMAT,
                               image->name, host_offset);
    }
    if ((size_t)done < bytes) {
        return damaged(image, err, "the file ends too early");
    }
    return 0;
}

static uint64_t cluster_bytes(const struct image *image)
{
    return UINT64_C(1) << image->cluster_bits;
}

/* How many guest clusters one L2 table describes. */
static uint64_t l2_count(const struct image *image)
{
    return cluster_bytes(image) / sizeof(uint64_t);
}

static int check_header(struct image *image,
                        const struct qcow2_header *header,
                        GError **err)
{
    if (header->version != 3) {
        return damaged(image, err, "it is no qcow2 file of version 3");
    }
    if ((header->incompatible & ~QCOW2_INCOMPATIBLE_COMPRESSION) != 0 ||
        header->snapshot_count != 0) {
        return damaged(image, err,
                       "it uses features that images of a repository never "
                       "have, or was left open");
    }
    if (header->size_bytes != image->disk_bytes &&
        header->size_bytes != round_up(image->disk_bytes, QCOW2_SECTOR_BYTES)) {
        return damaged(image, err, "its disk has another size");
    }
    image->cluster_bits = header->cluster_bits;
    image->compression = header->compression;
    image->backing_name = g_strdup(header->backing_file);
    return 0;
}

/* The header, with all that lies in its cluster. */
static struct qcow2_header *read_header(struct image *image, GError **err)
{
    uint8_t start[QCOW2_HEADER_BYTES_V2];
    g_autofree uint8_t *cluster = NULL;
    uint32_t bits;
    size_t bytes;

    if (read_file(image, 0, start, sizeof(start), err) < 0) {
        return NULL;
    }
    bits = load_be32(start + QCOW2_CLUSTER_BITS);
    bits = MIN(bits, QCOW2_CLUSTER_BITS_MAX); /* too many are told below */
    bytes = (size_t)min_u64(UINT64_C(1) << bits, image->file_bytes);
    bytes = MAX(bytes, sizeof(start));
    cluster = g_malloc(bytes);
    if (read_file(image, 0, cluster, bytes, err) < 0) {
        return NULL;
    }
    return qcow2_header_parse(cluster, bytes, image->name, err);
}

/* A table must be a whole number of clusters into the file, and within it. */
static bool table_is_within(const struct image *image,
                            uint64_t offset,
                            uint64_t bytes)
{
    return offset != 0 && offset % cluster_bytes(image) == 0 &&
           bytes_range_within(offset, bytes, image->file_bytes);
}

static int read_l1(struct image *image,
                   const struct qcow2_header *header,
                   GError **err)
{
    uint64_t offset = header->l1_offset;
    uint64_t count = header->l1_count;
    uint64_t needed = divide_round_up(image->disk_bytes,
                                      cluster_bytes(image) * l2_count(image));

    if (count < needed || count > QCOW2_L1_COUNT_MAX ||
        !table_is_within(image, offset, count * sizeof(uint64_t))) {
        return damaged(image, err, "its L1 table is not where it should be");
    }
    image->l1_count = needed;
    image->l1 = g_new0(uint64_t, needed);
    int ret = read_file(image, offset, image->l1,
                        (size_t)needed * sizeof(uint64_t), err);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < needed; i++) {
        uint64_t table =
            load_be64((uint8_t *)&image->l1[i]) & ~QCOW2_ENTRY_COPIED;
        if (table != 0 &&
            !table_is_within(image, table, cluster_bytes(image))) {
            return damaged(image, err, "an L2 table lies outside the file");
        }
        image->l1[i] = table;
    }
    return 0;
}

struct image *image_open_qcow2(int directory_fd,
                               const char *name,
                               uint64_t disk_bytes,
                               GError **err)
{
    g_autoptr(image_auto) image =
        open_file(directory_fd, name, disk_bytes, err);
    g_autoptr(qcow2_header) header = NULL;

    if (image == NULL) {
        return NULL;
    }
    image->is_qcow2 = true;
    image->l2_index = UINT64_MAX;
    image->unpacked_from = UINT64_MAX;
    header = read_header(image, err);
    if (header == NULL || check_header(image, header, err) < 0 ||
        read_l1(image, header, err) < 0) {
        return NULL;
    }
    return g_steal_pointer(&image);
}

/* Raw: find the stretch of data or hole around `offset`. A file system that
 * knows no holes shows one stretch of data. */
static int look_up_hole(struct image *image, uint64_t offset, GError **err)
{
    off_t data = lseek(image->fd, (off_t)offset, SEEK_DATA);
    off_t end;

    if (data < 0 && errno != ENXIO) {
        return error_set_errno(err, -errno, "cannot find the holes of '%s'",
                               image->name);
    }
    image->known_start = offset;
    image->known_is_data = data == (off_t)offset;
    if (data < 0) {
        image->known_end = image->file_bytes;
        return 0;
    }
    end = image->known_is_data ? lseek(image->fd, (off_t)offset, SEEK_HOLE)
                               : data;
    if (end < 0) {
        return error_set_errno(err, -errno, "cannot find the holes of '%s'",
                               image->name);
    }
    image->known_end = (uint64_t)end;
    return 0;
}

static int map_raw(struct image *image,
                   uint64_t offset,
                   uint64_t bytes,
                   struct image_run *ret_run,
                   GError **err)
{
    if (offset < image->known_start || offset >= image->known_end) {
        int ret = look_up_hole(image, offset, err);
        if (ret < 0) {
            return ret;
        }
        if (image->known_end <= offset) {
            return damaged(image, err, "the file shrank while it was read");
        }
    }
    *ret_run = (struct image_run){
        .kind = image->known_is_data ? IMAGE_DATA : IMAGE_ZERO,
        .bytes = min_u64(bytes, image->known_end - offset),
        .host_offset = offset,
    };
    return 0;
}

static int load_l2(struct image *image, uint64_t index, GError **err)
{
    if (image->l2_index == index) {
        return 0;
    }
    if (image->l2 == NULL) {
        image->l2 = g_malloc(cluster_bytes(image));
    }
    image->l2_index = UINT64_MAX;
    int ret = read_file(image, image->l1[index], image->l2,
                        cluster_bytes(image), err);
    if (ret == 0) {
        image->l2_index = index;
    }
    return ret;
}

/* A stream may end anywhere in its last sector, which the file need not have
 * whole. */
static int decode_compressed(const struct image *image,
                             const struct qcow2_entry *entry,
                             struct image_run *ret_run,
                             GError **err)
{
    if (entry->host_offset >= image->file_bytes) {
        return damaged(image, err, "a cluster lies outside the file");
    }
    ret_run->kind = IMAGE_DATA;
    ret_run->host_offset = entry->host_offset;
    ret_run->compressed_bytes = min_u64(entry->compressed_bytes,
                                        image->file_bytes - entry->host_offset);
    return 0;
}

/* What one L2 entry says; -EINVAL if it may not say that. */
static int decode_entry(const struct image *image,
                        const uint8_t *bytes,
                        struct image_run *ret_run,
                        GError **err)
{
    struct qcow2_entry entry;

    *ret_run = (struct image_run){ .kind = IMAGE_UNALLOCATED };
    if (!qcow2_entry_load(bytes, image->cluster_bits, false, &entry)) {
        return damaged(image, err, "a cluster uses reserved bits");
    }
    if (entry.compressed) {
        return decode_compressed(image, &entry, ret_run, err);
    }
    if (entry.zero) {
        ret_run->kind = IMAGE_ZERO;
        return 0;
    }
    if (entry.host_offset == 0) {
        return 0;
    }
    if (entry.host_offset % cluster_bytes(image) != 0 ||
        entry.host_offset >= image->file_bytes) {
        return damaged(image, err, "a cluster lies outside the file");
    }
    ret_run->kind = IMAGE_DATA;
    ret_run->host_offset = entry.host_offset;
    return 0;
}

/* May the cluster of `next` be read in one go with the run before it? */
static bool run_continues(const struct image_run *run,
                          const struct image_run *next,
                          uint64_t host_expected)
{
    return run->kind == next->kind && run->compressed_bytes == 0 &&
           next->compressed_bytes == 0 &&
           (run->kind != IMAGE_DATA || next->host_offset == host_expected);
}

static int map_qcow2(struct image *image,
                     uint64_t offset,
                     uint64_t bytes,
                     struct image_run *ret_run,
                     GError **err)
{
    uint64_t cluster = offset >> image->cluster_bits;
    uint64_t within = offset % cluster_bytes(image);
    uint64_t l1_index = cluster / l2_count(image);
    uint64_t l2_index = cluster % l2_count(image);
    uint64_t covered =
        (l2_count(image) - l2_index) * cluster_bytes(image) - within;
    struct image_run next;
    int ret;

    if (image->l1[l1_index] == 0) {
        *ret_run = (struct image_run){ .kind = IMAGE_UNALLOCATED,
                                       .bytes = min_u64(bytes, covered) };
        return 0;
    }
    ret = load_l2(image, l1_index, err);
    if (ret < 0) {
        return ret;
    }
    ret = decode_entry(image, image->l2 + l2_index * 8, ret_run, err);
    if (ret < 0) {
        return ret;
    }
    uint64_t host = ret_run->host_offset;
    uint64_t length = cluster_bytes(image);
    while (++l2_index < l2_count(image) && length - within < bytes) {
        ret = decode_entry(image, image->l2 + l2_index * 8, &next, err);
        if (ret < 0) {
            return ret;
        }
        if (!run_continues(ret_run, &next, host + length)) {
            break;
        }
        length += cluster_bytes(image);
    }
    ret_run->bytes = min_u64(bytes, length - within);
    if (ret_run->compressed_bytes > 0) {
        ret_run->skip = within;
    } else {
        ret_run->host_offset = host + within;
    }
    return 0;
}

int image_map(struct image *image,
              uint64_t offset,
              uint64_t bytes,
              struct image_run *ret_run,
              GError **err)
{
    g_assert(bytes > 0 && bytes_range_within(offset, bytes, image->disk_bytes));
    if (image->is_qcow2) {
        return map_qcow2(image, offset, bytes, ret_run, err);
    }
    return map_raw(image, offset, bytes, ret_run, err);
}

/* What the stream at the run's beginning becomes, in image->unpacked. */
static int unpack(struct image *image,
                  const struct image_run *run,
                  GError **err)
{
    g_autofree uint8_t *stream = NULL;
    int ret;

    if (image->unpacked_from == run->host_offset) {
        return 0;
    }
    if (image->unpacked == NULL) {
        image->unpacked = g_malloc(cluster_bytes(image));
    }
    image->unpacked_from = UINT64_MAX;
    stream = g_malloc(run->compressed_bytes);
    ret = read_file(image, run->host_offset, stream,
                    (size_t)run->compressed_bytes, err);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_decompress(image->compression, stream,
                           (size_t)run->compressed_bytes, image->unpacked,
                           cluster_bytes(image));
    if (ret == -EIO) {
        return damaged(image, err, "a compressed cluster is broken");
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "cannot decompress");
    }
    image->unpacked_from = run->host_offset;
    return 0;
}

int image_read(struct image *image,
               const struct image_run *run,
               void *buffer,
               size_t bytes,
               GError **err)
{
    int ret;

    g_assert(run->kind == IMAGE_DATA && bytes <= run->bytes);
    if (run->compressed_bytes == 0) {
        return read_file(image, run->host_offset, buffer, bytes, err);
    }
    ret = unpack(image, run, err);
    if (ret == 0) {
        memcpy(buffer, image->unpacked + run->skip, bytes);
    }
    return ret;
}
