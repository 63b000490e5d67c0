/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The files of a repository: per attempt to make a point
 *
 *     started-N     from before the transaction is sent
 *     data-N-DISK   what the restored disk is: the parent's, and what was copied
 *     prepared-N    the manifest; becomes point-N when the transaction is committed
 *
 * Coroutines of the main loop. False: the storage is dead.
 */
#ifndef SIM_MIXED_REPOSITORY_H
#define SIM_MIXED_REPOSITORY_H

#include "mixed/world.h"

struct manifest_member {
    uint32_t is_in;
    uint32_t is_full;
    struct journal_id disk;
};

struct manifest {
    uint64_t magic;
    uint64_t number;
    struct journal_id txid;
    struct manifest_member members[DISKS];
};

struct repository_scan {
    GArray *points;   /* struct manifest, oldest first */
    GArray *prepared; /* struct manifest */
    GArray *started;  /* uint64_t: numbers, of prepared ones, too */
    uint64_t newest;  /* number of the newest point; 0: none */
};

bool co_repository_scan(struct repository *repository,
                        struct repository_scan *ret_scan);
void repository_scan_release(struct repository_scan *scan);
/* The newest point of a disk; NULL: none. */
const struct manifest *repository_newest(const struct repository_scan *scan,
                                         unsigned int disk);

char *repository_path(const struct repository *repository,
                      const char *kind,
                      uint64_t number);
/* What jobs, targets and transactions of an attempt are called. */
char *repository_label(const struct repository *repository, uint64_t number);

/* What was found is durable. */
bool co_repository_sync(struct repository *repository);
/* Comes into being whole and durably. */
bool co_repository_write(struct repository *repository,
                         const char *kind,
                         const struct manifest *manifest);
bool co_repository_publish(struct repository *repository, uint64_t number);
/* Of one that has been published. */
bool co_repository_drop_start(struct repository *repository, uint64_t number);
/* All files of an attempt that came to nothing. */
bool co_repository_discard(struct repository *repository, uint64_t number);
/* A new file of that size, with what the parent's holds (NULL: nothing). Not
 * synced. */
bool co_repository_make_data(struct repository *repository,
                             const char *path,
                             const char *parent_path,
                             uint64_t size_bytes);
/* Drops points that nobody needs. */
bool co_repository_prune(struct repository *repository,
                         const struct repository_scan *scan);

#endif
