/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads one image of a repository: a raw file, or a qcow2 file that holds what
 * changed since its backing file.
 *
 * qcow2: version 3 as the published specification (docs/interop/qcow2.txt of
 * QEMU) defines it, without encryption, snapshots, external data file or extended
 * L2 entries. Everything read from the file is checked before it is used; what is
 * wrong is -EINVAL with a sentence.
 *
 * One owner at a time; any thread. Blocking.
 */
#ifndef REPO_IMAGE_H
#define REPO_IMAGE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum image_kind {
    IMAGE_UNALLOCATED, /* look in the image below */
    IMAGE_ZERO,
    IMAGE_DATA,
};

struct image_run {
    enum image_kind kind;
    uint64_t bytes;       /* how far this holds */
    uint64_t host_offset; /* IMAGE_DATA: where in the file */
    /* IMAGE_DATA, if not 0: a stream of that many bytes at most is there; the run
     * begins `skip` bytes into what it becomes. */
    uint64_t compressed_bytes;
    uint64_t skip;
};

/* The typedef exists for g_autoptr(image_auto) only. */
typedef struct image image_auto;
struct image;

/* The disk must have exactly `disk_bytes`. NULL with err set. */
struct image *image_open_raw(int directory_fd,
                             const char *name,
                             uint64_t disk_bytes,
                             GError **err);
struct image *image_open_qcow2(int directory_fd,
                               const char *name,
                               uint64_t disk_bytes,
                               GError **err);
void image_close(struct image *image);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(image_auto, image_close)

/* The backing file as the image names it; NULL: none. Borrowed. */
const char *image_backing_name(const struct image *image);

/* What is at `offset`, for at most `bytes` (both within the disk). */
int image_map(struct image *image,
              uint64_t offset,
              uint64_t bytes,
              struct image_run *ret_run,
              GError **err);

/* Reads the first `bytes` (at most all) of what image_map() gave as IMAGE_DATA. */
int image_read(struct image *image,
               const struct image_run *run,
               void *buffer,
               size_t bytes,
               GError **err);

#endif
