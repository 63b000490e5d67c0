/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * raw: the bytes of its child, or a window of them.
 *
 * Without `offset` and `size` the node follows its child's size and can be
 * resized; a window is fixed.
 */
#include <errno.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/drivers.h"

struct raw_state {
    struct block_node *file; /* the child; shared with the graph */
    uint64_t offset_bytes;   /* where the window begins in it */
    bool is_window;
};

static const struct schema_member raw_members[] = {
    { .name = "file",
      .type = &blockdev_ref_type,
      .doc = "Where the bytes are.",
      .required = true },
    { .name = "offset",
      .type = &schema_size,
      .doc = "Where the disk begins in `file`, in bytes.",
      .fallback = "0" },
    { .name = "size",
      .type = &schema_size,
      .doc = "The size of the disk in bytes.",
      .fallback = "all that follows the offset" },
    { .name = NULL },
};

const struct schema_type driver_raw_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsRaw",
    .members = raw_members,
};

static int co_raw_open(struct block_node *node,
                       const struct json_value *options,
                       GError **err)
{
    struct block_node *file = block_child(node, "file");
    uint64_t file_bytes = block_size(file);
    uint64_t offset_bytes = json_dict_uint(options, "offset", 0);
    uint64_t size_bytes;
    struct raw_state *state;

    if (offset_bytes > file_bytes) {
        return error_set(err, -EINVAL,
                         "node '%s': the offset %" G_GUINT64_FORMAT
                         " is behind the end of '%s', which has "
                         "%" G_GUINT64_FORMAT " bytes",
                         block_name(node), offset_bytes, block_name(file),
                         file_bytes);
    }
    size_bytes = json_dict_uint(options, "size", file_bytes - offset_bytes);
    if (!bytes_range_within(offset_bytes, size_bytes, file_bytes)) {
        return error_set(err, -EINVAL,
                         "node '%s': %" G_GUINT64_FORMAT
                         " bytes from offset %" G_GUINT64_FORMAT
                         " reach behind the end of '%s', which has "
                         "%" G_GUINT64_FORMAT " bytes",
                         block_name(node), size_bytes, offset_bytes,
                         block_name(file), file_bytes);
    }
    state = g_new0(struct raw_state, 1);
    state->file = file;
    state->offset_bytes = offset_bytes;
    state->is_window = json_dict_get(options, "offset") != NULL ||
                       json_dict_get(options, "size") != NULL;
    block_set_state(node, state);
    block_set_size(node, size_bytes);
    return 0;
}

static void raw_children_changed(struct block_node *node)
{
    struct raw_state *state = block_state(node);

    state->file = block_child(node, "file");
}

static void co_raw_close(struct block_node *node)
{
    g_free(block_state(node));
}

static int raw_try_preadv(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count)
{
    const struct raw_state *state = block_state(node);

    return block_child_try_preadv(state->file, offset + state->offset_bytes,
                                  bytes, iov, iov_count);
}

static int raw_try_pwritev(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    const struct raw_state *state = block_state(node);

    return block_child_try_pwritev(state->file, offset + state->offset_bytes,
                                   bytes, iov, iov_count);
}

static int co_raw_preadv(struct block_node *node,
                         uint64_t offset,
                         uint64_t bytes,
                         const struct iovec *iov,
                         int iov_count)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_preadv(state->file, offset + state->offset_bytes,
                                 bytes, iov, iov_count);
}

static int co_raw_pwritev(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count,
                          unsigned int flags)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_pwritev(state->file, offset + state->offset_bytes,
                                  bytes, iov, iov_count, flags);
}

static int co_raw_pwrite_from_file(struct block_node *node,
                                   uint64_t offset,
                                   uint64_t bytes,
                                   int fd,
                                   uint64_t file_offset)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_pwrite_from_file(
        state->file, offset + state->offset_bytes, bytes, fd, file_offset);
}

static int co_raw_write_zeroes(struct block_node *node,
                               uint64_t offset,
                               uint64_t bytes,
                               unsigned int flags)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_write_zeroes(
        state->file, offset + state->offset_bytes, bytes, flags);
}

static int co_raw_discard(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_discard(state->file, offset + state->offset_bytes,
                                  bytes);
}

static int co_raw_flush(struct block_node *node)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_flush(state->file);
}

static int co_raw_status(struct block_node *node,
                         uint64_t offset,
                         uint64_t bytes,
                         struct block_extent *ret)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_status(state->file, offset + state->offset_bytes,
                                 bytes, ret);
}

static int co_raw_truncate(struct block_node *node,
                           uint64_t size_bytes,
                           bool shrink,
                           GError **err)
{
    const struct raw_state *state = block_state(node);

    if (state->is_window) {
        return error_set(err, -ENOTSUP,
                         "cannot resize node '%s': it is a window that its "
                         "'offset' or 'size' options fix",
                         block_name(node));
    }
    return co_block_child_truncate(state->file, size_bytes, shrink, err);
}

static int co_raw_claim(struct block_node *node,
                        enum block_claim claim,
                        bool begin,
                        GError **err)
{
    const struct raw_state *state = block_state(node);

    return co_block_child_claim(state->file, claim, begin, err);
}

static int raw_try_map(struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes,
                       int *ret_fd,
                       uint64_t *ret_file_offset)
{
    const struct raw_state *state = block_state(node);

    return block_try_map(state->file, offset + state->offset_bytes, bytes,
                         ret_fd, ret_file_offset);
}

static void co_raw_info(struct block_node *node, struct json_value *image)
{
    const struct raw_state *state = block_state(node);

    co_block_child_info(state->file, image);
}

static const struct block_child_role raw_children[] = {
    { .name = "file", .required = true },
    { .name = NULL },
};

const struct block_driver driver_raw = {
    .name = "raw",
    .doc = "The bytes of a child as they are, or a window of them.",
    .options = &driver_raw_options,
    .children = raw_children,
    .write_flags = BLOCK_FUA | BLOCK_FLUSHED_SOON,
    .co_open = co_raw_open,
    .co_close = co_raw_close,
    .try_preadv = raw_try_preadv,
    .try_pwritev = raw_try_pwritev,
    .co_preadv = co_raw_preadv,
    .co_pwritev = co_raw_pwritev,
    .co_pwrite_from_file = co_raw_pwrite_from_file,
    .co_write_zeroes = co_raw_write_zeroes,
    .co_discard = co_raw_discard,
    .co_flush = co_raw_flush,
    .co_status = co_raw_status,
    .co_truncate = co_raw_truncate,
    .co_claim = co_raw_claim,
    .try_map = raw_try_map,
    .children_changed = raw_children_changed,
    .co_info = co_raw_info,
};
