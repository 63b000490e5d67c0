/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/preallocate.h"

#include <errno.h>

#include "base/bytes.h"
#include "block/request.h"

#define DATA_BYTES    MIB /* zeroes that are written at a time */
#define RESERVE_BYTES GIB /* ... or reserved */

const char *const preallocation_names[] = { "off", "metadata", "falloc", "full",
                                            NULL };

static bool is_stopped(const struct preallocation_stop *stop)
{
    return stop != NULL && stop->is_asked(stop->opaque);
}

static int co_write_zero_data(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes,
                              const struct preallocation_stop *stop)
{
    g_autofree uint8_t *zeroes = g_malloc0(DATA_BYTES);
    int ret = 0;

    for (uint64_t done = 0; ret == 0 && done < bytes; done += DATA_BYTES) {
        ret = is_stopped(stop)
                  ? -ECANCELED
                  : co_block_pwrite(node, offset + done,
                                    min_u64(DATA_BYTES, bytes - done), zeroes,
                                    BLOCK_FLUSHED_SOON);
    }
    return ret;
}

static int co_reserve(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct preallocation_stop *stop)
{
    int ret = 0;

    for (uint64_t done = 0; ret == 0 && done < bytes; done += RESERVE_BYTES) {
        ret = is_stopped(stop)
                  ? -ECANCELED
                  : co_block_write_zeroes(node, offset + done,
                                          min_u64(RESERVE_BYTES, bytes - done),
                                          0);
    }
    return ret;
}

/* What is a hole already stays one. */
static int co_clear(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct preallocation_stop *stop)
{
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        struct block_extent extent;

        ret = is_stopped(stop) ? -ECANCELED
                               : co_block_status(node, offset, bytes, &extent);
        if (ret == 0 && (extent.status & BLOCK_STATUS_ZERO) == 0) {
            ret = co_block_write_zeroes(node, offset, extent.bytes,
                                        BLOCK_MAY_UNMAP);
        }
        if (ret == 0) {
            offset += extent.bytes;
            bytes -= extent.bytes;
        }
    }
    return ret;
}

int co_preallocate(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   enum preallocation how,
                   const struct preallocation_stop *stop)
{
    switch (how) {
    case PREALLOCATION_OFF:
    case PREALLOCATION_METADATA: return co_clear(node, offset, bytes, stop);
    case PREALLOCATION_FALLOC: return co_reserve(node, offset, bytes, stop);
    case PREALLOCATION_FULL:
        return co_write_zero_data(node, offset, bytes, stop);
    }
    g_assert_not_reached();
}
