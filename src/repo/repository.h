/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A backup repository: a directory of restore points.
 *
 *     REPO/repository.json      what it is, its random id
 *     REPO/lock                 locked by the one command that writes
 *     REPO/distrusted.json      bitmaps never to be built upon again, if any
 *     REPO/POINT/manifest.json  a restore point: its directory has its final
 *     REPO/POINT/NODE.qcow2     name only when it is whole and durable
 *     REPO/POINT/NODE.hashes
 *     REPO/.partial-POINT/      one that is being made, or was left behind
 *
 * Formats: docs/reference/repository.md. Reading needs no lock: points appear
 * whole. Blocking; one thread.
 */
#ifndef REPO_REPOSITORY_H
#define REPO_REPOSITORY_H

#include <glib.h>
#include <stdbool.h>

#include "repo/manifest.h"

#define REPOSITORY_ID_DIGITS 32
/* The longest chain of increments; the next backup is a full one. */
#define REPOSITORY_CHAIN_MAX 250

/* The typedef exists for g_autoptr(repository_auto) only. */
typedef struct repository repository_auto;

struct repository {
    int fd;
    char *path;        /* absolute */
    char *id;          /* REPOSITORY_ID_DIGITS hexadecimal digits */
    char *prefix;      /* "cohort-" and 8 digits of the id: starts the names of
                          all our jobs, nodes and bitmaps */
    GPtrArray *points; /* struct manifest *, by sequence; owned */
    GPtrArray *broken; /* char *: why a point could not be read; owned */
    int lock_fd;       /* -1: not ours */
};

/* Opens it and reads all manifests. -ENOENT when `path` is no repository. A
 * point that cannot be read is in `broken`, not an error. */
int repository_open(const char *path,
                    struct repository **ret_repository,
                    GError **err);
/* As repository_open(), and makes a new one of a missing or empty directory. */
int repository_open_or_create(const char *path,
                              struct repository **ret_repository,
                              GError **err);
void repository_close(struct repository *repository);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(repository_auto, repository_close)

/* Reads all manifests again. What was borrowed from `points` is gone. */
int repository_reload(struct repository *repository, GError **err);

/* Takes the one writer's lock and enters who holds it. -EBUSY, with a sentence
 * that names the holder, when it is taken. Reads the points again. */
int repository_lock(struct repository *repository, GError **err);
/* Who holds the lock, a new string; NULL: nobody. */
char *repository_lock_holder(struct repository *repository);

/* Borrowed; NULL when there is none. */
struct manifest *repository_find(const struct repository *repository,
                                 const char *point);
struct manifest *repository_newest(const struct repository *repository);
/* The newest point that holds this disk. */
struct manifest *repository_newest_with(const struct repository *repository,
                                        const char *node);
/* How many points the disk's chain at `point` has; 0: it is broken. */
unsigned repository_chain_length(const struct repository *repository,
                                 const struct manifest *point,
                                 const char *node);
/* One more than every sequence number in sight. */
uint64_t repository_next_sequence(const struct repository *repository);

/* The names of the .partial- directories; owned strings, NULL with err set. */
GPtrArray *repository_partials(const struct repository *repository,
                               GError **err);
/* The manifest in a directory, from MANIFEST_FILE or STARTED_FILE; -ENOENT when
 * it has none. */
int repository_read_manifest(const struct repository *repository,
                             const char *directory,
                             const char *file,
                             struct manifest **ret_manifest,
                             GError **err);

/* Writes it there, durably. */
int repository_write_manifest(const struct repository *repository,
                              const struct manifest *point,
                              const char *file,
                              GError **err);

/* Makes durable what an earlier command may have left in the page cache only: names
 * in the repository, and what partial points say of themselves. Nothing that is
 * read there may be acted upon before. */
int repository_sync_found(const struct repository *repository, GError **err);

/* Gives a partial point its final name, durably, and adds it to `points`. Its
 * files have been synced. Takes the manifest over. */
int repository_publish(struct repository *repository,
                       struct manifest **point,
                       GError **err);

/* Bitmaps of which it is not known what they are relative to. */
bool repository_is_distrusted(const struct repository *repository,
                              const char *bitmap);
int repository_distrust(struct repository *repository,
                        const char *bitmap,
                        GError **err);

#endif
