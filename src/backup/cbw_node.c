/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver copy-before-write. A write first has the copy engine save what it
 * overwrites, unless that is done, and then goes to `file`; everything else goes
 * there at once. The instant that is kept is the one at which the node is opened.
 *
 * Writes to the target are part of the guest's request, which has passed the
 * target's gate together with the node's own.
 */
#include "backup/cbw_node.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "backup/block_copy_priv.h"
#include "backup/filter_drivers.h"
#include "base/bytes.h"
#include "base/error.h"
#include "bitmap/dirty_bitmap.h"

#define CLUSTER_BYTES_MAX      (UINT64_C(64) << 20)
#define NANOSECONDS_PER_SECOND UINT64_C(1000000000)

/* --- Opening ---------------------------------------------------------------- */

static void on_copied(void *opaque, uint64_t bytes)
{
    (void)opaque;
    (void)bytes;
}

static bool on_failed(void *opaque,
                      enum block_copy_side side,
                      int error,
                      bool foreground)
{
    const struct block_node *node = opaque;

    (void)foreground; /* there is nothing else */
    g_warning("The snapshot that node '%s' keeps is broken: %s node '%s': %s",
              block_name(node),
              side == BLOCK_COPY_SOURCE ? "cannot read" : "cannot write",
              block_name(block_child(
                  node, side == BLOCK_COPY_SOURCE ? "file" : "target")),
              g_strerror(-error));
    return false;
}

static int check_children(const struct block_node *node,
                          const struct cbw_node *cbw,
                          GError **err)
{
    const struct block_node *common =
        block_find_written(cbw->file, cbw->target);

    if (common != NULL) {
        return error_set(err, -EINVAL,
                         "node '%s': what is saved in '%s' would overwrite "
                         "'%s': both store their data in node '%s'",
                         block_name(node), block_name(cbw->target),
                         block_name(cbw->file), block_name(common));
    }
    if (block_size(cbw->file) == block_size(cbw->target)) {
        return 0;
    }
    return error_set(err, -EINVAL,
                     "node '%s': its target '%s' has %" PRIu64
                     " bytes, and '%s' has %" PRIu64,
                     block_name(node), block_name(cbw->target),
                     block_size(cbw->target), block_name(cbw->file),
                     block_size(cbw->file));
}

static int choose_cluster(const struct cbw_node *cbw,
                          const struct json_value *options,
                          uint64_t *ret_bytes,
                          GError **err)
{
    uint64_t wanted = json_dict_uint(options, "min-cluster-size", 0);

    if (wanted > CLUSTER_BYTES_MAX ||
        (wanted != 0 && !is_power_of_two(wanted))) {
        return error_set(err, -EINVAL,
                         "'min-cluster-size' must be a power of two, at most "
                         "%" PRIu64,
                         CLUSTER_BYTES_MAX);
    }
    *ret_bytes = max_u64(max_u64(BLOCK_COPY_CLUSTER_BYTES_MIN, wanted),
                         block_limits(cbw->target)->cluster_bytes);
    return 0;
}

static int make_copy(struct block_node *node,
                     struct cbw_node *cbw,
                     const struct json_value *options,
                     GError **err)
{
    const struct block_copy_events events = { on_copied, on_failed, node };
    uint64_t wait_s = json_dict_uint(options, "cbw-timeout", 0);
    struct block_copy_options copy_options = {
        .tasks_max = 1,
        .save_wait_ns =
            wait_s == 0 ? UINT64_MAX : wait_s * NANOSECONDS_PER_SECOND,
        .guest_pays = strcmp(json_dict_string(options, "on-cbw-error",
                                              "break-guest-write"),
                             "break-guest-write") == 0,
        .is_read = true,
        .target_over_source =
            block_find_written(cbw->target, cbw->file) != NULL,
        .is_inner = true,
    };
    int ret = choose_cluster(cbw, options, &copy_options.cluster_bytes, err);

    if (ret < 0) {
        return ret;
    }
    copy_options.chunk_bytes =
        max_u64(BLOCK_COPY_CHUNK_BYTES, copy_options.cluster_bytes);
    cbw->copy =
        block_copy_new(cbw->file, cbw->target, &copy_options, &events, err);
    if (cbw->copy != NULL) {
        cbw->access =
            bitmap_new(block_size(cbw->file), copy_options.cluster_bytes, err);
    }
    return cbw->access == NULL ? -ENOMEM : 0;
}

/* Does a format make the node's content of that of its `file`? */
static bool is_format(const struct block_node *node)
{
    const struct block_child_role *role = block_driver_of(node)->children;

    while (role != NULL && role->name != NULL) {
        if (role->grows) {
            return true;
        }
        role++;
    }
    return false;
}

/* `file` or what lies below it and has the same bytes at the same places. */
static struct block_node *find_below(struct block_node *node, const char *name)
{
    uint64_t size_bytes = block_size(node);

    while (strcmp(block_name(node), name) != 0) {
        struct block_node *below =
            is_format(node) ? NULL : block_child(node, "file");

        if (below == NULL || block_size(below) != size_bytes) {
            return NULL;
        }
        node = below;
    }
    return node;
}

static int mark_clusters(struct cbw_node *cbw,
                         const struct json_value *bitmap,
                         GError **err)
{
    const char *node_name;
    struct dirty_bitmap *found;
    struct block_node *node;

    if (bitmap == NULL) {
        bitmap_set_all(block_copy_remaining(cbw->copy));
        bitmap_set_all(cbw->access);
        return 0;
    }
    node_name = json_dict_string(bitmap, "node", "");
    node = find_below(cbw->file, node_name);
    found = node == NULL
                ? NULL
                : dirty_bitmap_find(node, json_dict_string(bitmap, "name", ""));
    if (found == NULL) {
        return error_set(err, -ENOENT,
                         "There is no dirty bitmap '%s' on node '%s', at or "
                         "below node '%s', that tells of the same bytes",
                         json_dict_string(bitmap, "name", ""), node_name,
                         block_name(cbw->file));
    }
    if (dirty_bitmap_check_free(found, err) < 0) {
        return -EBUSY;
    }
    bitmap_merge(block_copy_remaining(cbw->copy), dirty_bitmap_bits(found));
    bitmap_merge(cbw->access, dirty_bitmap_bits(found));
    return 0;
}

static void cbw_free(struct cbw_node *cbw)
{
    if (cbw->watches) {
        block_unwatch_reads(cbw->target);
    }
    block_copy_free(cbw->copy);
    bitmap_free(cbw->access);
    g_free(cbw);
}

static int open_target(struct block_node *node,
                       struct cbw_node *cbw,
                       const struct json_value *options,
                       GError **err)
{
    int ret = check_children(node, cbw, err);

    if (ret == 0) {
        ret = make_copy(node, cbw, options, err);
    }
    if (ret == 0) {
        ret = mark_clusters(cbw, json_dict_get(options, "bitmap"), err);
    }
    if (ret == 0 && cbw->copy->options.target_over_source) {
        block_watch_reads(cbw->target);
        cbw->watches = true;
    }
    return ret;
}

static int co_cbw_open(struct block_node *node,
                       const struct json_value *options,
                       GError **err)
{
    struct cbw_node *cbw = g_new0(struct cbw_node, 1);
    int ret = 0;

    cbw->file = block_child(node, "file");
    cbw->target = block_child(node, "target");
    if (cbw->target != NULL) {
        ret = open_target(node, cbw, options, err);
    }
    if (ret < 0) {
        cbw_free(cbw);
        return ret;
    }
    block_set_state(node, cbw);
    block_set_size(node, block_size(cbw->file));
    return 0;
}

static void co_cbw_close(struct block_node *node)
{
    struct cbw_node *cbw = block_state(node);

    if (cbw->copy != NULL) {
        block_copy_stop(cbw->copy);
        co_block_copy_settle(cbw->copy);
    }
    cbw_free(cbw);
}

/* Nothing is under way, so no save has begun at the old target either. */
static void cbw_children_changed(struct block_node *node)
{
    struct cbw_node *cbw = block_state(node);
    struct block_node *target = block_child(node, "target");

    cbw->file = block_child(node, "file");
    if (cbw->copy == NULL) {
        return;
    }
    cbw->copy->source = cbw->file;
    if (cbw->watches) {
        block_unwatch_reads(cbw->target);
        block_watch_reads(target);
    }
    cbw->target = target;
    cbw->copy->target = target;
}

/* --- Requests --------------------------------------------------------------- */

static bool is_saved(const struct cbw_node *cbw,
                     uint64_t offset,
                     uint64_t bytes)
{
    return cbw->copy == NULL || block_copy_is_saved(cbw->copy, offset, bytes);
}

static int co_save(const struct cbw_node *cbw, uint64_t offset, uint64_t bytes)
{
    return is_saved(cbw, offset, bytes)
               ? 0
               : co_block_copy_save(cbw->copy, offset, bytes);
}

static int cbw_try_preadv(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count)
{
    const struct cbw_node *cbw = block_state(node);

    return block_child_try_preadv(cbw->file, offset, bytes, iov, iov_count);
}

static int cbw_try_pwritev(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    const struct cbw_node *cbw = block_state(node);

    return is_saved(cbw, offset, bytes)
               ? block_child_try_pwritev(cbw->file, offset, bytes, iov,
                                         iov_count)
               : -EAGAIN;
}

static int co_cbw_preadv(struct block_node *node,
                         uint64_t offset,
                         uint64_t bytes,
                         const struct iovec *iov,
                         int iov_count)
{
    const struct cbw_node *cbw = block_state(node);

    return co_block_child_preadv(cbw->file, offset, bytes, iov, iov_count);
}

static int co_cbw_pwritev(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count,
                          unsigned int flags)
{
    const struct cbw_node *cbw = block_state(node);
    int ret = co_save(cbw, offset, bytes);

    return ret < 0 ? ret
                   : co_block_child_pwritev(cbw->file, offset, bytes, iov,
                                            iov_count, flags);
}

static int co_cbw_write_zeroes(struct block_node *node,
                               uint64_t offset,
                               uint64_t bytes,
                               unsigned int flags)
{
    const struct cbw_node *cbw = block_state(node);
    int ret = co_save(cbw, offset, bytes);

    return ret < 0
               ? ret
               : co_block_child_write_zeroes(cbw->file, offset, bytes, flags);
}

static int co_cbw_discard(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes)
{
    const struct cbw_node *cbw = block_state(node);
    int ret = co_save(cbw, offset, bytes);

    return ret < 0 ? ret : co_block_child_discard(cbw->file, offset, bytes);
}

static int co_cbw_flush(struct block_node *node)
{
    const struct cbw_node *cbw = block_state(node);

    return co_block_child_flush(cbw->file);
}

static int co_cbw_status(struct block_node *node,
                         uint64_t offset,
                         uint64_t bytes,
                         struct block_extent *ret)
{
    const struct cbw_node *cbw = block_state(node);

    return co_block_child_status(cbw->file, offset, bytes, ret);
}

static int cbw_try_map(struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes,
                       int *ret_fd,
                       uint64_t *ret_file_offset)
{
    const struct cbw_node *cbw = block_state(node);

    return block_try_map(cbw->file, offset, bytes, ret_fd, ret_file_offset);
}

static void co_cbw_info(struct block_node *node, struct json_value *image)
{
    const struct cbw_node *cbw = block_state(node);

    co_block_child_info(cbw->file, image);
}

static const struct block_child_role children[] = {
    { .name = "file", .required = true },
    { .name = "target", .written = true },
    { .name = NULL },
};

const struct block_driver driver_copy_before_write = {
    .name = "copy-before-write",
    .doc = "Saves the old content of what is overwritten.",
    .children = children,
    .write_flags = BLOCK_FUA | BLOCK_FLUSHED_SOON,
    .co_open = co_cbw_open,
    .co_close = co_cbw_close,
    .children_changed = cbw_children_changed,
    .try_preadv = cbw_try_preadv,
    .try_pwritev = cbw_try_pwritev,
    .co_preadv = co_cbw_preadv,
    .co_pwritev = co_cbw_pwritev,
    .co_write_zeroes = co_cbw_write_zeroes,
    .co_discard = co_cbw_discard,
    .co_flush = co_cbw_flush,
    .co_status = co_cbw_status,
    .try_map = cbw_try_map,
    .co_info = co_cbw_info,
};

const struct block_driver *const backup_drivers[] = {
    &driver_copy_before_write,
    &driver_snapshot_access,
    NULL,
};

struct json_value *filter_node_options(const char *name,
                                       const struct block_node *file)
{
    struct json_value *options = json_dict_new();

    json_dict_set_string(options, "driver", driver_copy_before_write.name);
    json_dict_set_string(options, "node-name", name);
    json_dict_set_string(options, "discard", "unmap");
    json_dict_set_string(options, "file", block_name(file));
    return options;
}

bool filter_node_is(const struct block_node *node)
{
    return block_driver_of(node) == &driver_copy_before_write &&
           block_child(node, "target") == NULL;
}
