/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An open qcow2 image: what the files of this folder share.
 *
 *     guest offset --L1--> L2 table --slice--> entry --> host cluster
 *
 * The L1 table and the refcount table are in memory, whole. L2 tables are
 * cached in slices, refcount blocks likewise (table_cache.h). What changes in
 * them stays in memory and reaches the file in the order that keeps it right at
 * any instant (metadata_commit.h):
 *
 *     data, refcounts that grew, new tables  |sync|  L2 slices, L1, header
 *     |sync|  refcounts that shrank; only now may a freed cluster be used again
 *
 * so a crash leaves clusters that are counted and not used, never the reverse.
 *
 * Coroutines of the node's home thread. A mapping that was looked up holds
 * until the caller yields; who yields between the look-up and the end of the
 * I/O holds a qcow2_io (below), which keeps freed clusters from being used
 * again under it. Who changes a mapping holds the range of whole clusters in
 * `ranges`; who writes in place holds the bytes it writes.
 */
#ifndef DRIVERS_QCOW2_IMAGE_H
#define DRIVERS_QCOW2_IMAGE_H

#include "block/driver.h"
#include "drivers/qcow2/header.h"
#include "drivers/qcow2/table_cache.h"
#include "loop/co_lock.h"

struct qcow2_refcounts;    /* refcount.h */
struct qcow2_commit;       /* metadata_commit.h */
struct qcow2_frees;        /* free_later.h */
struct cluster_set;        /* cluster_set.h */
struct qcow2_snapshots;    /* snapshot.h */
struct decompressed_cache; /* decompressed.h */
struct qcow2_bitmaps;      /* bitmaps_priv.h */

struct qcow2_image {
    struct block_node *node;
    struct block_node *file;    /* child "file": metadata, and data unless... */
    struct block_node *data;    /* ... there is a child "data-file" */
    struct block_node *backing; /* child "backing"; NULL: none */
    struct qcow2_header *header; /* as the file has it, or is about to */
    bool writable;
    bool file_claimed; /* against other processes; see open.c */

    /* Derived from the header once. */
    uint64_t cluster_bytes;
    uint64_t cluster_mask;       /* cluster_bytes - 1 */
    unsigned int l2_bits;        /* an L2 table has 1 << l2_bits entries */
    unsigned int l2_entry_bytes; /* 8, or 16 with subclusters */
    unsigned int slice_bits;     /* a slice has 1 << slice_bits entries */
    bool has_subclusters;
    uint64_t subcluster_bytes; /* cluster_bytes without subclusters */
    bool external_data;        /* there is a data file */
    bool data_is_raw;     /* ... and host offset equals guest offset in it */
    uint64_t raw_named;   /* raw_data.c: how often clusters were named ... */
    uint64_t raw_durable; /* ... and how many of these times are durable */

    uint64_t *l1; /* header->l1_count entries, host byte order */
    struct table_cache *l2_slices;
    struct qcow2_refcounts *refcounts; /* NULL: not writable */
    struct qcow2_commit *commit;       /* NULL: not writable */
    struct qcow2_frees *frees;         /* NULL: not writable */
    struct cluster_set
        *metadata;             /* active metadata: nothing else may be written
                                     there. NULL: not writable */
    struct co_mutex l2_tables; /* held by who makes or copies an L2 table, and
                                     so changes the L1 table */
    struct co_mutex header_write;
    bool corrupt;   /* found to be, or marked so: no write */
    bool untouched; /* before the first change of the disk: co_qcow2_touch() */
    struct qcow2_bitmaps *bitmaps;
    struct qcow2_snapshots *snapshots;
    bool shows_snapshot; /* l1 is that of a snapshot; never writable */
    struct decompressed_cache *decompressed;
    unsigned int reads_beside; /* pieces of requests in coroutines of their own
                                  (read.c) */
    uint64_t refcount_cache_bytes; /* bound of the cache of refcount blocks */

    struct range_lock ranges; /* guest bytes whose mapping or data changes */
    /* Options pass-discard-request, pass-discard-other: what a discard frees,
     * and what is freed otherwise, is punched out of the file. */
    bool pass_discard_request;
    bool pass_discard_other;
    bool discard_no_unref; /* option: discarded clusters keep their place */
};

/* I/O on host clusters under way, see above. Embedded by the caller; a few
 * instructions. free_later.c */
struct qcow2_io {
    unsigned int epoch;
};

void qcow2_io_begin(struct qcow2_image *image, struct qcow2_io *io);
void qcow2_io_end(struct qcow2_image *image, struct qcow2_io *io);

/* The file contradicts itself. Says so once, with what and where; if writable,
 * sets the corrupt bit durably and fails every write from now on. Returns -EIO,
 * for the request that came upon it. corrupt.c */
int co_qcow2_mark_corrupt(struct qcow2_image *image, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* How a piece of the disk is stored. */
enum qcow2_mapping_kind {
    QCOW2_MAPPING_UNALLOCATED,      /* reads from the backing file, or zeroes */
    QCOW2_MAPPING_ZERO,             /* reads as zeroes, has no cluster */
    QCOW2_MAPPING_ZERO_ALLOCATED,   /* reads as zeroes, has a host cluster */
    QCOW2_MAPPING_UNALLOCATED_HOST, /* subclusters: unallocated, in a cluster
                                       that has a host cluster */
    QCOW2_MAPPING_DATA,
    QCOW2_MAPPING_COMPRESSED, /* always one whole cluster */
};

struct qcow2_mapping {
    enum qcow2_mapping_kind kind;
    bool owned; /* the host cluster is ours alone (refcount 1): may be written
                   in place */
    uint64_t bytes;       /* how far it is one thing, contiguous in the host */
    uint64_t host_offset; /* where the byte asked about is; compressed: where
                             the stream begins */
    uint64_t compressed_bytes; /* of the stream, rounded up to sectors */
};

/* Looks up the guest byte `offset` and how far (at most `bytes`) it goes on in
 * the same way, within one slice. Host offsets are aligned and within bounds.
 * The try_ form: -EAGAIN when that needs a slice that is not in memory. */
int qcow2_try_mapping(struct qcow2_image *image,
                      uint64_t offset,
                      uint64_t bytes,
                      struct qcow2_mapping *ret_mapping);
int co_qcow2_mapping(struct qcow2_image *image,
                     uint64_t offset,
                     uint64_t bytes,
                     struct qcow2_mapping *ret_mapping);

/* Reads, through all kinds of mapping and from the backing file (behind whose
 * end are zeroes). read.c */
int qcow2_try_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count);
int co_qcow2_preadv(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    const struct iovec *iov,
                    int iov_count);
int co_qcow2_status(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    struct block_extent *ret);

/* Writes. write.c, zero.c, resize.c, metadata_commit.c */
int qcow2_try_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count);
int co_qcow2_pwritev(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count,
                     unsigned int flags);
int co_qcow2_write_zeroes(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          unsigned int flags);
int co_qcow2_discard(struct block_node *node, uint64_t offset, uint64_t bytes);
int co_qcow2_flush(struct block_node *node);
int co_qcow2_truncate(struct block_node *node,
                      uint64_t size_bytes,
                      bool shrink,
                      GError **err);
/* Prepares for writing, at open: refcounts, unknown autoclear bits cleared, a
 * dirty image repaired, clusters behind the end of the file known. And the
 * reverse: all that is dirty is written. writable.c */
int co_qcow2_start_writing(struct qcow2_image *image, GError **err);
int co_qcow2_stop_writing(struct qcow2_image *image);
void qcow2_drained(struct block_node *node);
void qcow2_undrained(struct block_node *node);

/* Writes the fields of fixed place (sizes, tables, feature bits) from `header`
 * into the header and syncs it. They lie in one sector, so a crash leaves either
 * the old or the new ones; all else in the header stays as it is.
 * header_write.c */
int co_qcow2_write_header(struct qcow2_image *image, GError **err);
/* Such a write has failed with `error`, and the fields in memory are again as
 * they were: makes the file say so, too. If that cannot be done nobody knows what
 * it says, and commits fail for good. Returns `error`. */
int co_qcow2_header_undo(struct qcow2_image *image, int error);
/* Rewrites the whole header of an image of version 3, names and extensions
 * included; durable, and a crash leaves the old one or the new one. -EFBIG: it does
 * not fit into its cluster, and nothing was written. */
int co_qcow2_rewrite_header(struct qcow2_image *image, GError **err);

#endif
