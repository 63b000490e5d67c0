/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Makes a new, empty qcow2 image in an open node.
 *
 * The image is complete, and durable, when the call returns: header, one
 * refcount table, the refcount blocks and, with preallocation, all L2 tables.
 * The header goes last, so that a crash leaves no half image that opens.
 */
#ifndef DRIVERS_QCOW2_CREATE_H
#define DRIVERS_QCOW2_CREATE_H

#include "block/node.h"
#include "drivers/qcow2/format.h"

enum qcow2_preallocation {
    QCOW2_PREALLOCATION_OFF,
    QCOW2_PREALLOCATION_METADATA,
    QCOW2_PREALLOCATION_FALLOC,
    QCOW2_PREALLOCATION_FULL,
};

/* Zero and NULL members take the format's usual values. All borrowed. */
struct qcow2_create_options {
    uint64_t size_bytes;
    unsigned int version;       /* 3 */
    uint32_t cluster_bytes;     /* 64 KiB; extended_l2: at least 16 KiB */
    unsigned int refcount_bits; /* 16 */
    bool lazy_refcounts;
    bool extended_l2;
    enum qcow2_compression compression;
    enum qcow2_preallocation preallocation;
    const char *backing_file; /* written as it is; not opened */
    const char *backing_format;
    struct block_node *data_file; /* NULL: none */
    const char *data_file_name;
    bool data_file_raw;
};

/* `file` is emptied first. Coroutines of its home thread. 0, or a negative
 * errno with a sentence; the file's content is then undefined. */
int co_qcow2_create(struct block_node *file,
                    const struct qcow2_create_options *options,
                    GError **err);

/* The main thread's: makes the file at `path` (it must not be open anywhere),
 * its directory entry durable, and the image in it. */
int co_image_create(struct block_graph *graph,
                    const char *path,
                    const struct qcow2_create_options *options,
                    GError **err);

#endif
