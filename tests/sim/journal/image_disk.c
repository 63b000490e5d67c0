/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/image_disk.h"

#include <errno.h>

struct image {
    struct storage_file *file;
    int flush_error; /* a failed flush is final, as the file driver has it */
};

static struct storage *used_storage;

static struct storage_file *file_of(struct block_node *node)
{
    const struct image *image = block_state(node);

    return image->file;
}

void image_disk_use(struct storage *storage)
{
    used_storage = storage;
}

static int co_image_open(struct block_node *node,
                         const struct json_value *options,
                         GError **err)
{
    static const struct block_limits limits = {
        .request_alignment_bytes = 1,
    };
    struct storage_file *file;
    struct image *image;
    uint64_t bytes;
    int ret =
        co_storage_open(used_storage, json_dict_string(options, "path", ""),
                        STORAGE_WRITABLE, &file, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_storage_size(file, &bytes);
    if (ret < 0) {
        co_storage_close(&file);
        return ret;
    }
    image = g_new0(struct image, 1);
    image->file = file;
    block_set_state(node, image);
    block_set_size(node, bytes);
    block_set_limits(node, &limits);
    return 0;
}

static void co_image_close(struct block_node *node)
{
    struct image *image = block_state(node);

    co_storage_close(&image->file);
    g_free(image);
}

static int co_image_preadv(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    int ret = 0;

    for (int i = 0; ret == 0 && i < iov_count && bytes > 0; i++) {
        uint64_t part = MIN(bytes, iov[i].iov_len);

        ret = co_storage_read(file_of(node), offset, iov[i].iov_base, part);
        offset += part;
        bytes -= part;
    }
    return ret;
}

static int co_image_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count,
                            unsigned int flags)
{
    int ret = 0;

    (void)flags;
    for (int i = 0; ret == 0 && i < iov_count && bytes > 0; i++) {
        uint64_t part = MIN(bytes, iov[i].iov_len);

        ret = co_storage_write(file_of(node), offset, iov[i].iov_base, part);
        offset += part;
        bytes -= part;
    }
    return ret;
}

static int co_image_flush(struct block_node *node)
{
    struct image *image = block_state(node);

    int ret = co_storage_sync(image->file);

    if (ret < 0) {
        image->flush_error = ret;
    }
    return image->flush_error;
}

static int co_image_truncate(struct block_node *node,
                             uint64_t size_bytes,
                             bool shrink,
                             GError **err)
{
    (void)shrink;
    (void)err;
    return co_storage_truncate(file_of(node), size_bytes);
}

static const struct schema_member image_members[] = {
    { .name = "path", .type = &schema_string, .doc = "Of the image." },
    { .name = NULL },
};

static const struct schema_type image_options = {
    .kind = SCHEMA_STRUCT,
    .members = image_members,
};

static const struct block_driver image_driver = {
    .name = "simimage",
    .options = &image_options,
    .co_open = co_image_open,
    .co_close = co_image_close,
    .co_preadv = co_image_preadv,
    .co_pwritev = co_image_pwritev,
    .co_flush = co_image_flush,
    .co_truncate = co_image_truncate,
};

/* As the real one, as far as the journal looks at it. */
static int co_file_open(struct block_node *node,
                        const struct json_value *options,
                        GError **err)
{
    int ret = co_image_open(node, options, err);

    if (ret == 0) {
        block_set_filename(node, json_dict_string(options, "path", ""));
    }
    return ret;
}

static void co_file_info(struct block_node *node, struct json_value *image)
{
    json_dict_set_string(image, "filename", file_of(node)->path);
}

static const struct block_driver file_driver = {
    .name = "file",
    .options = &image_options,
    .co_open = co_file_open,
    .co_close = co_image_close,
    .co_preadv = co_image_preadv,
    .co_pwritev = co_image_pwritev,
    .co_flush = co_image_flush,
    .co_truncate = co_image_truncate,
    .co_info = co_file_info,
};

const struct block_driver *const image_disk_drivers[] = { &image_driver,
                                                          &file_driver, NULL };
