/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The qcow2 header and its extensions, as values.
 *
 * No I/O: from bytes and to bytes, for the driver, for creating images, for
 * checking them and for the repository. What it does not know (extensions,
 * compatible bits, header fields behind those it knows) is kept and written
 * back as it was. Source: docs/interop/qcow2.txt, "Header", "Header
 * extensions". Any thread.
 */
#ifndef DRIVERS_QCOW2_HEADER_H
#define DRIVERS_QCOW2_HEADER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "drivers/qcow2/format.h"

/* An extension that has no field of its own below; in the order of the file. */
struct qcow2_extension {
    uint32_t type;
    GBytes *data;
};

/* The bitmaps extension ("Bitmaps extension"). */
struct qcow2_bitmaps_extension {
    uint32_t count; /* 0: there is none */
    uint64_t directory_bytes;
    uint64_t directory_offset;
};

/* The typedef exists for g_autoptr only. */
typedef struct qcow2_header qcow2_header;

struct qcow2_header {
    unsigned int version; /* 2 or 3 */
    unsigned int cluster_bits;
    unsigned int refcount_order; /* a refcount has 1 << this bits */
    uint64_t size_bytes;
    uint64_t l1_offset;
    uint32_t l1_count;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint64_t snapshots_offset;
    uint32_t snapshot_count;
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    enum qcow2_compression compression;
    char *backing_file;   /* owned; NULL: none */
    char *backing_format; /* owned; NULL: not said */
    char *data_file;      /* owned; NULL: not said */
    struct qcow2_bitmaps_extension bitmaps;
    bool has_stamp; /* ours, and nobody else has written since */
    uint8_t stamp[QCOW2_STAMP_BYTES];
    GPtrArray *extensions;  /* struct qcow2_extension, all others; owned */
    GBytes *unknown_fields; /* header bytes behind compression type, without
                               zeroes at their end; NULL: none */
};

/* Reads the header from the first bytes of an image: `bytes` holds `length` of
 * them, which must be the whole first cluster or, if shorter, the whole file.
 * Checks all that can be checked without the file: magic, version, sizes and
 * counts within bounds, alignment of offsets, extensions within the cluster,
 * bits that are not known (by the name that the image's own feature table gives
 * them), encryption refused by name. `name`: of the image, for the sentences.
 * NULL with err set (-EINVAL not a valid qcow2 image; -ENOTSUP: valid, and not
 * supported). */
struct qcow2_header *qcow2_header_parse(const uint8_t *bytes,
                                        size_t length,
                                        const char *name,
                                        GError **err);
/* Version 3, clusters of 64 KiB, 16 refcount bits; all else zero. */
struct qcow2_header *qcow2_header_new(void);
struct qcow2_header *qcow2_header_copy(const struct qcow2_header *header);
void qcow2_header_free(struct qcow2_header *header);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(qcow2_header, qcow2_header_free)

/* The bytes of the whole header cluster, zero-padded to the cluster size, with
 * a feature name table of ours; a new array. -ENOSPC with a sentence when names
 * and extensions do not fit. */
int qcow2_header_format(const struct qcow2_header *header,
                        GByteArray **ret_cluster,
                        GError **err);
/* The same without a feature name table. */
int qcow2_header_format_brief(const struct qcow2_header *header,
                              GByteArray **ret_cluster,
                              GError **err);
/* The same header, of version 3, with all that follows the bitmaps extension and
 * the stamp from `tail_offset` on (a multiple of 8), and nothing of interest
 * between: for who replaces a header step by step. */
int qcow2_header_format_apart(const struct qcow2_header *header,
                              uint32_t tail_offset,
                              GByteArray **ret_cluster,
                              GError **err);

/* How many L1 entries a disk of that size needs at least, with the cluster size
 * and entries that `header` has. */
uint64_t qcow2_l1_count_for(const struct qcow2_header *header,
                            uint64_t size_bytes);

/* Is it qcow2 at all? `bytes` are the first 4 or more. */
bool qcow2_magic_matches(const uint8_t *bytes, size_t length);

#endif
