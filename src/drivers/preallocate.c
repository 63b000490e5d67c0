/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/preallocate.h"

#include "base/bytes.h"
#include "block/request.h"

#define CHUNK_BYTES MIB

const char *const preallocation_names[] = { "off", "metadata", "falloc", "full",
                                            NULL };

static int co_write_zero_data(struct block_node *node,
                              uint64_t offset,
                              uint64_t bytes)
{
    g_autofree uint8_t *zeroes = g_malloc0(CHUNK_BYTES);
    int ret = 0;

    for (uint64_t done = 0; ret == 0 && done < bytes; done += CHUNK_BYTES) {
        ret = co_block_pwrite(node, offset + done,
                              min_u64(CHUNK_BYTES, bytes - done), zeroes,
                              BLOCK_FLUSHED_SOON);
    }
    return ret;
}

/* What is a hole already stays one. */
static int co_clear(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        struct block_extent extent;

        ret = co_block_status(node, offset, bytes, &extent);
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
                   enum preallocation how)
{
    if (bytes == 0) {
        return 0;
    }
    switch (how) {
    case PREALLOCATION_OFF:
    case PREALLOCATION_METADATA: return co_clear(node, offset, bytes);
    case PREALLOCATION_FALLOC:
        return co_block_write_zeroes(node, offset, bytes, 0);
    case PREALLOCATION_FULL: return co_write_zero_data(node, offset, bytes);
    }
    g_assert_not_reached();
}
