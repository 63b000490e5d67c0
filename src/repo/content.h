/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work on the content of a disk at a point, piece by piece: hash it for a new
 * point, check it, copy it out.
 *
 * Each tells a watcher how far it is and stops with -ECANCELED when that says
 * so. Blocking; any thread.
 */
#ifndef REPO_CONTENT_H
#define REPO_CONTENT_H

#include "repo/hash_list.h"
#include "repo/increment.h"
#include "repo/repository.h"

/* Returns false to stop. */
struct content_watch {
    bool (*step)(void *opaque,
                 const char *disk,
                 uint64_t done_bytes,
                 uint64_t total_bytes);
    void *opaque;
};

/* Something found wrong. */
struct content_problem {
    char *point; /* where it shows */
    char *disk;  /* NULL: the point as a whole */
    bool has_offset;
    uint64_t offset; /* bytes */
    char *sentence;
};

void content_problem_free(void *problem);

/* The stored list of a disk's hashes at a point, checked against its root.
 * NULL with err set. */
struct hash_list *content_load_hashes(const struct repository *repository,
                                      const struct manifest *point,
                                      const struct manifest_disk *disk,
                                      GError **err);

/* Hashes the disk at a point that is being made, and writes its .hashes file
 * and disk->hash_root. An increment inherits the list of the point before it;
 * only pieces that `extents` touch are read, through the chain. */
int content_hash(const struct repository *repository,
                 struct manifest *point,
                 struct manifest_disk *disk,
                 const struct increment_extent *extents,
                 size_t extent_count,
                 const struct content_watch *watch,
                 GError **err);

/* Checks a disk at a point and appends to `problems` (struct content_problem *)
 * what is wrong. With `whole`, every byte of it; else what this point alone
 * adds, for a caller who checks the points before it too. Fails only for being
 * told to stop. */
int content_verify(const struct repository *repository,
                   const struct manifest *point,
                   const struct manifest_disk *disk,
                   bool whole,
                   const struct content_watch *watch,
                   GPtrArray *problems);

/* Writes the disk's content, checked, to NODE.raw in the directory. It appears
 * there whole and durable or not at all. -EEXIST when it is there already and
 * not `replace`. -EBADMSG when the content is damaged. */
int content_restore(const struct repository *repository,
                    const struct manifest *point,
                    const struct manifest_disk *disk,
                    int directory_fd,
                    bool replace,
                    const struct content_watch *watch,
                    GError **err);

#endif
