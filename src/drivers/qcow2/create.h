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
#include "drivers/preallocate.h"
#include "drivers/qcow2/format.h"

/* Zero and NULL members take the format's usual values. All borrowed. */
struct qcow2_create_options {
    uint64_t size_bytes;
    unsigned int version;       /* 3 */
    uint32_t cluster_bytes;     /* 64 KiB; extended_l2: at least 16 KiB */
    unsigned int refcount_bits; /* 16 */
    bool lazy_refcounts;
    bool extended_l2;
    enum qcow2_compression compression;
    enum preallocation preallocation;
    const char *backing_file; /* written as it is; not opened */
    const char *backing_format;
    struct block_node *data_file; /* NULL: none */
    const char *data_file_name;
    bool data_file_raw;
    const struct preallocation_stop *stop; /* NULL: nobody will */
};

/* `file` is emptied first; a data file grows to the size of the disk if it is
 * smaller, and what a raw one holds stays. Coroutines of the home thread that
 * both share. 0, or a negative errno with a sentence; the content of `file` is
 * then undefined. */
int co_qcow2_create(struct block_node *file,
                    const struct qcow2_create_options *options,
                    GError **err);

/* The same from the main thread. _begin brings the nodes to one home and keeps
 * everyone else away from them; with the graph's lock held, as _end is. `id` (to
 * be there until _end) names who does it to others that want the nodes. _run
 * needs no lock. After a _begin that failed nothing is to be ended. */
struct qcow2_creation {
    struct block_user file_user;
    struct block_user data_user;
};

int co_qcow2_creation_begin(struct qcow2_creation *creation,
                            struct block_node *file,
                            const struct qcow2_create_options *options,
                            const char *id,
                            GError **err);
int co_qcow2_creation_run(struct qcow2_creation *creation,
                          const struct qcow2_create_options *options,
                          GError **err);
void qcow2_creation_end(struct qcow2_creation *creation);

/* The main thread's, with the graph's lock held: makes the file at `path` (it
 * must not be open anywhere), its directory entry durable, and the image in
 * it. */
int co_image_create(struct block_graph *graph,
                    const char *path,
                    const struct qcow2_create_options *options,
                    GError **err);

#endif
