/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * null-co: a disk of any size that keeps nothing.
 *
 * For measuring what surrounds it. Reads give zeroes (never what happens to be
 * in a buffer); `read-zeroes` says so to those who ask for extents.
 */
#include <string.h>

#include "base/bytes.h"
#include "drivers/drivers.h"
#include "loop/coroutine.h"

#define DEFAULT_SIZE_BYTES GIB

struct null_state {
    uint64_t latency_ns;
    bool read_zeroes;
};

static const struct schema_member null_members[] = {
    { .name = "size",
      .type = &schema_size,
      .doc = "Size of the disk in bytes.",
      .fallback = "1 GiB" },
    { .name = "latency-ns",
      .type = &schema_size,
      .doc = "How long each request takes, in nanoseconds.",
      .fallback = "0" },
    { .name = "read-zeroes",
      .type = &schema_bool,
      .doc = "Report the disk as all zeroes. (Reads give zeroes in any case.)",
      .fallback = "false" },
    { .name = NULL },
};

const struct schema_type driver_null_options = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsNull",
    .members = null_members,
};

static int co_null_open(struct block_node *node,
                        const struct json_value *options,
                        GError **err)
{
    struct null_state *state = g_new0(struct null_state, 1);

    (void)err; /* nothing can go wrong */
    state->latency_ns = json_dict_uint(options, "latency-ns", 0);
    state->read_zeroes = json_dict_bool(options, "read-zeroes", false);
    block_set_state(node, state);
    block_set_size(node, json_dict_uint(options, "size", DEFAULT_SIZE_BYTES));
    return 0;
}

static void co_null_close(struct block_node *node)
{
    g_free(block_state(node));
}

static void co_take_time(const struct null_state *state)
{
    uint64_t now_ns;

    if (state->latency_ns > 0) {
        now_ns = loop_now_ns();
        co_sleep_until(now_ns +
                       min_u64(state->latency_ns, UINT64_MAX - now_ns));
    }
}

static void clear_all(const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count; i++) {
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    }
}

static int null_try_preadv(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count)
{
    const struct null_state *state = block_state(node);

    (void)offset;
    (void)bytes;
    if (state->latency_ns > 0) {
        return -EAGAIN;
    }
    clear_all(iov, iov_count);
    return 0;
}

static int null_try_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count)
{
    const struct null_state *state = block_state(node);

    (void)offset;
    (void)bytes;
    (void)iov;
    (void)iov_count;
    return state->latency_ns > 0 ? -EAGAIN : 0;
}

static int co_null_preadv(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count)
{
    (void)offset;
    (void)bytes;
    co_take_time(block_state(node));
    clear_all(iov, iov_count);
    return 0;
}

static int co_null_pwritev(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count,
                           unsigned int flags)
{
    (void)offset;
    (void)bytes;
    (void)iov;
    (void)iov_count;
    (void)flags;
    co_take_time(block_state(node));
    return 0;
}

static int co_null_write_zeroes(struct block_node *node,
                                uint64_t offset,
                                uint64_t bytes,
                                unsigned int flags)
{
    (void)offset;
    (void)bytes;
    (void)flags;
    co_take_time(block_state(node));
    return 0;
}

static int co_null_flush(struct block_node *node)
{
    co_take_time(block_state(node));
    return 0;
}

static int co_null_status(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          struct block_extent *ret)
{
    const struct null_state *state = block_state(node);

    (void)offset;
    ret->bytes = bytes;
    ret->status = BLOCK_STATUS_ALLOCATED;
    if (state->read_zeroes) {
        ret->status |= BLOCK_STATUS_ZERO;
    }
    return 0;
}

static void co_null_info(struct block_node *node, struct json_value *image)
{
    (void)node;
    json_dict_set_string(image, "filename", "null-co://");
    json_dict_set_uint(image, "actual-size", 0);
}

const struct block_driver driver_null = {
    .name = "null-co",
    .doc = "A disk that keeps nothing, for measurements.",
    .options = &driver_null_options,
    .write_flags = BLOCK_FUA,
    .co_open = co_null_open,
    .co_close = co_null_close,
    .try_preadv = null_try_preadv,
    .try_pwritev = null_try_pwritev,
    .co_preadv = co_null_preadv,
    .co_pwritev = co_null_pwritev,
    .co_write_zeroes = co_null_write_zeroes,
    .co_flush = co_null_flush,
    .co_status = co_null_status,
    .co_info = co_null_info,
};
