/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * BLOCK_STATUS in the context base:allocation.
 *
 * The happy path: ask the node extent by extent, join neighbours of the same
 * state, stop at the end of the request or when the reply is full; the client
 * asks again for the rest. An error after the first extent ends the reply
 * early, too; it comes back when the client asks for what is missing.
 *
 * Source: "The NBD protocol", sections "Metadata contexts" and
 * "NBD_CMD_BLOCK_STATUS".
 */
#include "base/bytes.h"
#include "block/request.h"
#include "nbd/connection_priv.h"

static uint32_t allocation_state(unsigned int status)
{
    return (status & BLOCK_STATUS_HOLE ? NBD_STATE_HOLE : 0U) |
           (status & BLOCK_STATUS_ZERO ? NBD_STATE_ZERO : 0U);
}

int co_nbd_block_status(struct nbd_request *request)
{
    size_t extents_max = request->header.flags & NBD_COMMAND_REQ_ONE
                             ? 1
                             : NBD_STATUS_EXTENTS_MAX;
    uint64_t offset = request->header.offset;
    uint64_t end = offset + request->header.length;
    uint8_t *last = request->buffer + 4; /* one behind the last descriptor */
    uint32_t last_bytes = 0;
    uint32_t last_state = 0;
    size_t count = 0;

    store_be32(request->buffer, NBD_CONTEXT_ALLOCATION_ID);
    while (offset < end) {
        struct block_extent extent;
        uint32_t state;
        int ret = co_block_status(nbd_connection_node(request->connection),
                                  offset, end - offset, &extent);

        if (ret < 0 && count == 0) {
            return ret;
        }
        if (ret < 0) {
            break;
        }
        state = allocation_state(extent.status);
        if (count == 0 || state != last_state) {
            if (count == extents_max) {
                break;
            }
            count++;
            last += 8;
            last_bytes = 0;
            last_state = state;
        }
        last_bytes += (uint32_t)min_u64(extent.bytes, end - offset);
        store_be32(last - 8, last_bytes);
        store_be32(last - 4, state);
        offset += min_u64(extent.bytes, end - offset);
    }
    request->payload_bytes = (size_t)(last - request->buffer);
    return 0;
}
