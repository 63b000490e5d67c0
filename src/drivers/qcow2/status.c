/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a range is: this layer's data or zeroes, or whatever the backing file
 * says. Data is asked about once more in the file itself: a preallocated image
 * is data from end to end, and mostly holes.
 */
#include "base/bytes.h"
#include "drivers/qcow2/image.h"

/* How many stretches without an L2 table are joined into one answer; an empty
 * disk of a petabyte would have very many. */
#define STRETCHES_MAX 4096

/* Goes on through what follows and is stored the same way, as far as that can
 * be seen without waiting. */
static void extend_unallocated(struct qcow2_image *image,
                               uint64_t offset,
                               uint64_t bytes,
                               struct qcow2_mapping *mapping)
{
    struct qcow2_mapping next;

    for (unsigned int i = 0; i < STRETCHES_MAX && mapping->bytes < bytes; i++) {
        if (qcow2_try_mapping(image, offset + mapping->bytes,
                              bytes - mapping->bytes, &next) < 0 ||
            next.kind != mapping->kind) {
            return;
        }
        mapping->bytes += next.bytes;
    }
}

/* `node`'s answer about its own range, in which what is behind its end is a
 * hole. */
static int co_ask(struct block_node *node,
                  uint64_t offset,
                  uint64_t bytes,
                  struct block_extent *ret)
{
    uint64_t size_bytes = block_size(node);

    if (offset >= size_bytes) {
        ret->bytes = bytes;
        ret->status = BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE;
        return 0;
    }
    return co_block_child_status(node, offset,
                                 min_u64(bytes, size_bytes - offset), ret);
}

/* The file's holes are zeroes of ours. */
static int co_data_status(struct qcow2_image *image,
                          const struct qcow2_mapping *mapping,
                          struct block_extent *ret)
{
    int error = co_ask(image->data, mapping->host_offset, mapping->bytes, ret);

    if (error == 0) {
        ret->status |= BLOCK_STATUS_ALLOCATED;
        if ((ret->status & BLOCK_STATUS_ZERO) == 0) {
            ret->status &= ~(unsigned int)BLOCK_STATUS_HOLE;
        }
    }
    return error;
}

static int co_unallocated_status(struct qcow2_image *image,
                                 uint64_t offset,
                                 struct qcow2_mapping *mapping,
                                 uint64_t bytes,
                                 struct block_extent *ret)
{
    int error = 0;

    extend_unallocated(image, offset, bytes, mapping);
    ret->bytes = mapping->bytes;
    ret->status = BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE;
    if (image->backing != NULL) {
        error = co_ask(image->backing, offset, mapping->bytes, ret);
    }
    ret->status &= ~(unsigned int)BLOCK_STATUS_ALLOCATED;
    return error;
}

int co_qcow2_status(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    struct block_extent *ret)
{
    struct qcow2_image *image = block_state(node);
    struct qcow2_mapping mapping;
    struct qcow2_io io;
    int error;

    qcow2_io_begin(image, &io);
    error = co_qcow2_mapping(image, offset, bytes, &mapping);
    if (error == 0) {
        ret->bytes = mapping.bytes;
        ret->status = BLOCK_STATUS_ALLOCATED;
        switch (mapping.kind) {
        case QCOW2_MAPPING_DATA:
            error = co_data_status(image, &mapping, ret);
            break;
        case QCOW2_MAPPING_COMPRESSED: break;
        case QCOW2_MAPPING_ZERO:
            ret->status |= BLOCK_STATUS_ZERO | BLOCK_STATUS_HOLE;
            break;
        case QCOW2_MAPPING_ZERO_ALLOCATED:
            ret->status |= BLOCK_STATUS_ZERO;
            break;
        case QCOW2_MAPPING_UNALLOCATED:
        case QCOW2_MAPPING_UNALLOCATED_HOST:
            error = co_unallocated_status(image, offset, &mapping, bytes, ret);
            break;
        }
    }
    qcow2_io_end(image, &io);
    return error;
}
