/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Turns the raw file that a backup job has filled with a disk, or with the
 * changed parts of one, into a qcow2 image of exactly that, in place.
 *
 * That way any daemon can have written the file, and nothing of a large, sparse
 * disk is allocated or mapped that is not there.
 *
 * The job writes each changed cluster at its own offset; the rest of the file
 * are holes. What is missing for a qcow2 image is appended after the disk's
 * end, so no data moves but the first cluster's, whose place the header takes:
 *
 *     0        64 KiB                      disk's end, rounded up
 *     | header | changed clusters, holes ...| cluster 0 | L1 | L2s | refcount
 *                                                          table | blocks |
 *
 * A table is written only where it has entries, so that the file stays sparse.
 *
 * Blocking; any thread.
 */
#ifndef REPO_INCREMENT_H
#define REPO_INCREMENT_H

#include <glib.h>
#include <stdint.h>

#define INCREMENT_CLUSTER_BYTES (UINT64_C(64) << 10)

/* A changed part of the disk. */
struct increment_extent {
    uint64_t offset; /* a multiple of INCREMENT_CLUSTER_BYTES */
    uint64_t bytes;  /* likewise, unless it ends where the disk ends */
};

/* Do the extents, in order and without overlap, lie within the disk, on
 * cluster boundaries? 0, or -EINVAL with a sentence. */
int increment_check_extents(const struct increment_extent *extents,
                            size_t count,
                            uint64_t disk_bytes,
                            GError **err);

/* `fd`: the raw file, open for reading and writing. The image's backing file
 * is `backing_name`, of format `backing_format` ("raw" or "qcow2"). Extents as
 * above. Clusters of theirs that are holes in the file become zero clusters; if
 * there is no backing file (both names NULL), unallocated ones. The file is
 * synced. */
int increment_seal(int fd,
                   uint64_t disk_bytes,
                   const struct increment_extent *extents,
                   size_t count,
                   const char *backing_name,
                   const char *backing_format,
                   GError **err);

#endif
