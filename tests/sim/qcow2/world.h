/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One simulated life of a qcow2 image, and what crashes would have left of it.
 *
 * The real driver runs on a crash-disk, under guests that write, zero, discard,
 * compress, flush and resize side by side. Then the log of the file is gone
 * through again, and at many places a crash is made: the image must check without
 * corruption, open, and hold in each sector what was flushed there, or what was
 * written after; and go on being right when it is written to again.
 */
#ifndef SIM_QCOW2_WORLD_H
#define SIM_QCOW2_WORLD_H

#include <limits.h>

#include <glib.h>

#include "qcow2/crash_disk.h"

#define WORLD_SECTORS_MAX 2048

/* What a version of a sector holds. */
enum content {
    CONTENT_STAMP,
    CONTENT_ZERO,
    CONTENT_DISCARDED, /* zeroes, or what was there before, or the base's */
};

/* A sector as its guests know it: versions from 0, the base's. */
struct sector {
    GByteArray *contents;      /* enum content of each version */
    unsigned int acknowledged; /* the newest that is written */
    bool is_busy;
};

/* What the crashes came upon; none may stay empty. */
enum bucket {
    CRASH_CLEAN,        /* everything was synced */
    CRASH_FEW_UNSYNCED, /* up to 8 sectors */
    CRASH_MANY_UNSYNCED,
    CRASH_IN_FLUSH, /* a guest waited for a flush */
    CRASH_IN_RESIZE,
    CRASH_IN_WRITE, /* guests waited for writes */
    CRASH_AFTER_DISCARD,
    CRASH_AFTER_COMPRESSED,
    CRASH_LOST_WRITES, /* an acknowledged, unflushed write was lost */
    CRASH_LEAKED,      /* clusters were leaked */
    CRASH_WITH_BASE,
    CRASH_WITH_SUBCLUSTERS,
    CRASH_IN_PARTS, /* a cluster has some of its subclusters, and not all */
    CRASH_SMALL_CACHE,
    CRASH_VERSION_2,
    BUCKETS,
};

struct histogram {
    uint64_t buckets[BUCKETS];
    uint64_t worlds;
    uint64_t requests;
    uint64_t crashes;
};

struct shape {
    unsigned int cluster_bits;
    unsigned int version;
    unsigned int refcount_bits;
    bool extended_l2;
    bool has_base;
    uint64_t l2_cache_bytes;
    unsigned int sectors; /* of the disk, at first */
    unsigned int base_sectors;
};

struct world {
    uint64_t seed;
    struct random random;
    struct shape shape;
    struct crash_disk disk;
    struct crash_disk base;
    struct crash_disk crashed; /* a copy that a crash has left */
    struct sector sectors[WORLD_SECTORS_MAX];
    unsigned int sector_count; /* of the disk, as guests know it */
    struct histogram *histogram;
    struct block_node *node; /* while it lives */
    unsigned int guests;
    unsigned int guests_waiting; /* for the one that wants to be alone */
    bool wants_alone;
    unsigned int requests_left;
    bool has_compressed;
};

/* Marks in the log of the disk. */
enum mark {
    MARK_ISSUED, /* sectors get version `number` (each its own: see contents) */
    MARK_WRITTEN,
    MARK_FLUSH_BEGIN,
    MARK_FLUSH_END,
    MARK_RESIZE_BEGIN, /* offset: old sectors, bytes: new sectors */
    MARK_RESIZE_END,
};

/* Runs one seed; ends the process with a sentence when a promise is broken. */
void world_run(uint64_t seed,
               unsigned int crashes,
               struct histogram *histogram);

/* life.c: the image is made, used and left. */
void life_run(struct world *world, uint8_t **ret_begun, uint64_t *ret_bytes);
struct block_node *co_life_open(struct world *world,
                                struct block_graph *graph,
                                const char *file);

/* oracle.c: what a sector may hold. A stamp is repeated all over it. */
#define ORACLE_NONE UINT_MAX
uint64_t oracle_stamp(unsigned int sector, unsigned int version);
void oracle_fill(uint8_t *bytes, unsigned int sector, unsigned int version);
/* The first version from `least` to `most` that `bytes` can be; ORACLE_NONE. */
unsigned int oracle_find(const struct world *world,
                         unsigned int sector,
                         unsigned int least,
                         unsigned int most,
                         const uint8_t *bytes);

/* death.c: crashes, and what is found after. */
void death_run(struct world *world,
               const uint8_t *begun,
               uint64_t begun_bytes,
               unsigned int crashes);

void world_fail(const struct world *world, const char *format, ...)
    G_GNUC_PRINTF(2, 3) G_GNUC_NORETURN;

#endif
