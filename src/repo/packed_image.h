/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Turns the raw file that a backup job has filled into a compressed qcow2 image in
 * another file.
 *
 * Where increment.h keeps the data at its place and only adds tables, this copies
 * it: 64 KiB at a time, each a zstd stream of its own, one behind the other. What
 * does not become smaller is stored as it is, and zeroes take no space. The raw file
 * is emptied on the way, where the file system can do that, so that both together
 * never need much more space than it had.
 *
 * Any reader of qcow2 that knows zstd reads it (QEMU since 5.1). Source:
 * docs/interop/qcow2.txt, "Compressed Clusters Descriptor".
 *
 * Blocking; any thread.
 */
#ifndef REPO_PACKED_IMAGE_H
#define REPO_PACKED_IMAGE_H

#include <stdbool.h>

#include "repo/increment.h"

struct packed_image_source {
    int fd; /* the raw file, open for reading and writing; spoilt afterwards */
    uint64_t disk_bytes;
    const struct increment_extent *extents;
    size_t extent_count;
    const char *backing_name;   /* NULL: none; then holes are not entered */
    const char *backing_format; /* "raw" or "qcow2"; NULL likewise */
    /* How far it is; false stops it with -ECANCELED. May be NULL. */
    bool (*step)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);
    void *opaque;
};

/* `fd`: an empty file, open for writing. It is synced. */
int packed_image_write(int fd,
                       const struct packed_image_source *source,
                       GError **err);

#endif
