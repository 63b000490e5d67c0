/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file and host_device: an image in a file, or a block device.
 *
 * Opening may take long (network file systems), so it all happens on the
 * offload pool: open, look at what it is, lock, find out alignment. With
 * auto-read-only a file that cannot be opened for writing is opened for
 * reading. What is neither a regular file nor a block device is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "drivers/file_priv.h"
#include "loop/coroutine.h"

static const char *const aio_words[] = { "threads", "native", "io_uring",
                                         NULL };

static const struct schema_type aio_type = {
    .kind = SCHEMA_ENUM,
    .name = "BlockdevAioOptions",
    .values = aio_words,
};

static const char *const on_off_auto_words[] = { "auto", "on", "off", NULL };

static const struct schema_type on_off_auto_type = {
    .kind = SCHEMA_ENUM,
    .name = "OnOffAuto",
    .values = on_off_auto_words,
};

static const struct schema_member file_members[] = {
    { .name = "filename",
      .type = &schema_string,
      .doc = "Path of the image.",
      .required = true },
    { .name = "aio",
      .type = &aio_type,
      .doc = "Accepted for compatibility, has no effect: the daemon chooses "
             "how to do I/O.",
      .fallback = "threads" },
    { .name = "locking",
      .type = &on_off_auto_type,
      .doc = "Lock the image against other processes; auto: where the file "
             "system can.",
      .fallback = "auto" },
    { .name = NULL },
};

const struct schema_type driver_file_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsFile",
    .members = file_members,
};

/* What the offload pool is asked to open. */
struct file_opening {
    struct file_state *state;
    const char *node_name;
    bool want_device;
    bool auto_read_only;
    bool lock;
    bool lock_required;
    GError *err;
};

static int open_descriptor(const struct file_state *state, bool writable)
{
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

    flags |= writable ? O_RDWR : O_RDONLY;
    if (state->direct) {
        flags |= O_DIRECT;
    }
    return open(state->filename, flags);
}

static int open_file(struct file_opening *opening)
{
    struct file_state *state = opening->state;

    state->fd = open_descriptor(state, state->writable);
    if (state->fd < 0 && state->writable && opening->auto_read_only &&
        (errno == EACCES || errno == EPERM || errno == EROFS)) {
        state->writable = false;
        state->fd = open_descriptor(state, false);
    }
    if (state->fd >= 0) {
        return 0;
    }
    if (errno == EINVAL && state->direct) {
        return error_set(&opening->err, -EINVAL,
                         "cannot open '%s' with cache.direct=on: its file "
                         "system has no direct I/O",
                         state->filename);
    }
    if (errno == ENXIO) { /* a FIFO, a socket */
        return error_set(&opening->err, -EINVAL,
                         "cannot open '%s': it is no regular file",
                         state->filename);
    }
    return error_set_errno(&opening->err, -errno, "cannot open '%s'",
                           state->filename);
}

/* Opening must not wait for the other end of a FIFO, so it was done with
 * O_NONBLOCK; I/O shall wait, else io_uring gives up where it would have to. */
static int make_blocking(struct file_opening *opening)
{
    int flags = fcntl(opening->state->fd, F_GETFL);

    if (flags < 0 ||
        fcntl(opening->state->fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        return error_set_errno(&opening->err, -errno, "cannot prepare '%s'",
                               opening->state->filename);
    }
    return 0;
}

/* Is it the kind of file the driver is for, and how large? */
static int examine_file(struct file_opening *opening)
{
    struct file_state *state = opening->state;
    struct stat found;

    if (fstat(state->fd, &found) < 0) {
        return error_set_errno(&opening->err, -errno, "cannot examine '%s'",
                               state->filename);
    }
    state->is_device = S_ISBLK(found.st_mode);
    if (S_ISDIR(found.st_mode)) {
        return error_set_errno(&opening->err, -EISDIR, "cannot open '%s'",
                               state->filename);
    }
    if (!opening->want_device && !S_ISREG(found.st_mode)) {
        return error_set(&opening->err, -EINVAL,
                         "cannot open '%s': it is no regular file; driver "
                         "'host_device' opens block devices",
                         state->filename);
    }
    if (opening->want_device && !state->is_device) {
        return error_set(&opening->err, -EINVAL,
                         "cannot open '%s': it is no block device; driver "
                         "'file' opens regular files",
                         state->filename);
    }
    state->size_bytes = (uint64_t)found.st_size;
    if (state->is_device &&
        ioctl(state->fd, BLKGETSIZE64, &state->size_bytes) < 0) {
        return error_set_errno(&opening->err, -errno,
                               "cannot find out the size of '%s'",
                               state->filename);
    }
    return 0;
}

static int prepare_io(struct file_opening *opening)
{
    struct file_state *state = opening->state;
    int ret;

    inline_writer_probe(&state->inline_writer, state->fd);
    if (state->inline_writer.writes == INLINE_WRITES_NEVER) {
        state->threads = offload_pool_new();
    }
    if (state->direct) {
        ret = file_probe_direct(state->fd, state->is_device,
                                &state->offset_alignment_bytes,
                                &state->memory_alignment_bytes);
        if (ret < 0) {
            return error_set_errno(&opening->err, ret,
                                   "cannot find out how to access '%s' with "
                                   "cache.direct=on",
                                   state->filename);
        }
        return 0;
    }
    /* Our own read-ahead is better informed, and keeps the page cache in small
     * pieces, which makes small writes cheap. Only advice: it may fail. */
    (void)posix_fadvise(state->fd, 0, 0, POSIX_FADV_RANDOM);
    return 0;
}

/* Offload pool. */
static int run_opening(void *opaque)
{
    struct file_opening *opening = opaque;
    struct file_state *state = opening->state;
    int ret = open_file(opening);

    if (ret == 0) {
        ret = examine_file(opening);
    }
    if (ret == 0) {
        ret = make_blocking(opening);
    }
    if (ret == 0 && opening->lock) {
        ret = file_lock_take(state->fd, state->filename, state->writable,
                             opening->lock_required, &opening->err);
    }
    if (ret == 0) {
        ret = prepare_io(opening);
    }
    if (ret < 0 && state->fd >= 0) {
        (void)close(state->fd); /* nothing was written */
        state->fd = -1;
    }
    return ret;
}

static void file_state_free(struct file_state *state)
{
    offload_pool_free(state->threads);
    g_free(state->filename);
    g_free(state);
}

static struct file_state *file_state_new(struct block_node *node,
                                         const struct json_value *options)
{
    const struct json_value *cache = json_dict_get(options, "cache");
    struct file_state *state = g_new0(struct file_state, 1);

    state->node = node;
    state->fd = -1;
    state->filename = g_strdup(json_dict_string(options, "filename", ""));
    state->direct = cache != NULL && json_dict_bool(cache, "direct", false);
    state->writable = !block_is_read_only(node);
    state->offset_alignment_bytes = 1;
    state->memory_alignment_bytes = 1;
    state->writes = FILE_WRITES_AT_OPEN;
    co_queue_init(&state->background_ended);
    return state;
}

static int co_file_open_kind(struct block_node *node,
                             const struct json_value *options,
                             bool want_device,
                             GError **err)
{
    const char *locking = json_dict_string(options, "locking", "auto");
    struct file_state *state = file_state_new(node, options);
    struct file_opening opening = {
        .state = state,
        .node_name = block_name(node),
        .want_device = want_device,
        .auto_read_only = json_dict_bool(options, "auto-read-only", false),
        .lock = strcmp(locking, "off") != 0 &&
                !json_dict_bool(options, "force-share", false),
        .lock_required = strcmp(locking, "on") == 0,
    };
    struct block_limits limits;
    int ret = co_offload(run_opening, &opening);

    if (ret < 0) {
        file_state_free(state);
        g_propagate_error(err, opening.err);
        return ret;
    }
    state->locks = opening.lock;
    if (!state->writable) {
        block_set_read_only(node);
    }
    limits = (struct block_limits){
        .request_alignment_bytes = state->offset_alignment_bytes,
    };
    block_set_limits(node, &limits);
    block_set_size(node, state->size_bytes);
    block_set_filename(node, state->filename);
    block_set_state(node, state);
    return 0;
}

static int co_file_open(struct block_node *node,
                        const struct json_value *options,
                        GError **err)
{
    return co_file_open_kind(node, options, false, err);
}

static int co_device_open(struct block_node *node,
                          const struct json_value *options,
                          GError **err)
{
    return co_file_open_kind(node, options, true, err);
}

static int run_closing(void *opaque)
{
    const struct file_state *state = opaque;

    if (state->locks) {
        file_lock_release(state->fd);
    }
    return close(state->fd) < 0 ? -errno : 0;
}

static void co_file_close(struct block_node *node)
{
    struct file_state *state = block_state(node);

    co_file_background_finish(state);
    /* Whoever needed durability has flushed; close() can tell no more. */
    (void)co_file_call(state, run_closing, state);
    file_state_free(state);
}

#define FILE_FUNCTIONS                                                     \
 .options = &driver_file_options,                                          \
 .write_flags = BLOCK_FUA | BLOCK_FLUSHED_SOON, .co_close = co_file_close, \
 .try_preadv = file_try_read, .try_pwritev = file_try_write,               \
 .co_preadv = co_file_read, .co_pwritev = co_file_write,                   \
 .co_pwrite_from_file = co_file_copy_in,                                   \
 .co_write_zeroes = co_file_write_zeroes, .co_discard = co_file_discard,   \
 .co_flush = co_file_flush, .co_forget_cache = co_file_forget_cache,       \
 .co_status = co_file_status, .co_claim = co_file_claim,                   \
 .try_map = file_try_map, .co_info = co_file_info

const struct block_driver driver_file = {
    .name = "file",
    .doc = "A regular file.",
    .co_open = co_file_open,
    .co_truncate = co_file_truncate,
    FILE_FUNCTIONS,
};

const struct block_driver driver_host_device = {
    .name = "host_device",
    .doc = "A block device of the host.",
    .co_open = co_device_open,
    FILE_FUNCTIONS,
};
