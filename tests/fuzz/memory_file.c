/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory_file.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"

struct memory_file {
    uint8_t *data;
    uint64_t bytes;
};

static int co_open(struct block_node *node,
                   const struct json_value *options,
                   GError **err)
{
    (void)options;
    (void)err;
    block_set_state(node, g_new0(struct memory_file, 1));
    block_set_size(node, 0);
    return 0;
}

static void co_close(struct block_node *node)
{
    struct memory_file *file = block_state(node);

    g_free(file->data);
    g_free(file);
}

static int try_preadv(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count)
{
    const struct memory_file *file = block_state(node);

    g_assert(offset <= file->bytes && bytes <= file->bytes - offset);
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, file->data + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static int try_pwritev(struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes,
                       const struct iovec *iov,
                       int iov_count)
{
    struct memory_file *file = block_state(node);

    g_assert(offset <= file->bytes && bytes <= file->bytes - offset);
    for (int i = 0; i < iov_count; i++) {
        memcpy(file->data + offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static int co_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    (void)flags;
    return try_pwritev(node, offset, bytes, iov, iov_count);
}

static int co_write_zeroes(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           unsigned int flags)
{
    struct memory_file *file = block_state(node);

    (void)flags;
    memset(file->data + offset, 0, bytes);
    return 0;
}

static int co_truncate(struct block_node *node,
                       uint64_t size_bytes,
                       bool shrink,
                       GError **err)
{
    struct memory_file *file = block_state(node);

    (void)shrink;
    if (size_bytes > MEMORY_FILE_BYTES_MAX) {
        return error_set(err, -ENOSPC, "this file cannot be so large");
    }
    file->data = g_realloc(file->data, MAX(size_bytes, 1));
    if (size_bytes > file->bytes) {
        memset(file->data + file->bytes, 0, size_bytes - file->bytes);
    }
    file->bytes = size_bytes;
    return 0;
}

const struct block_driver driver_memory_file = {
    .name = "memory-file",
    .co_open = co_open,
    .co_close = co_close,
    .try_preadv = try_preadv,
    .try_pwritev = try_pwritev,
    .co_preadv = try_preadv,
    .co_pwritev = co_pwritev,
    .co_write_zeroes = co_write_zeroes,
    .co_truncate = co_truncate,
};

void memory_file_fill(struct block_node *node, const void *data, size_t bytes)
{
    struct memory_file *file = block_state(node);

    g_free(file->data);
    file->data = g_malloc0(MAX(bytes, 1));
    file->bytes = bytes;
    if (data != NULL) {
        memcpy(file->data, data, bytes);
    }
    block_set_size(node, bytes);
}

GBytes *memory_file_copy(struct block_node *node)
{
    const struct memory_file *file = block_state(node);

    return g_bytes_new(file->data, file->bytes);
}
