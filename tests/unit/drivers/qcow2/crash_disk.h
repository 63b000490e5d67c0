/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file in memory that remembers what was written since the last sync, and can
 * tell at any moment what a power cut would leave: of the sectors written since
 * then any that chance likes. Driver "crash-disk", option `size`.
 */
#ifndef TESTS_UNIT_DRIVERS_QCOW2_CRASH_DISK_H
#define TESTS_UNIT_DRIVERS_QCOW2_CRASH_DISK_H

#include "block/driver.h"

extern const struct block_driver driver_crash_disk;

struct crash_disk {
    GByteArray *now;     /* as it reads */
    GByteArray *durable; /* as of the last sync */
    GPtrArray *pending;  /* writes since then */
    GRand *chance;       /* borrowed; set before the first request */
    /* Called at each write and sync, before and after. May be NULL. */
    void (*moment)(struct crash_disk *disk, void *opaque);
    void *opaque;
    int fail_writes; /* a negative errno for each write and zeroing, 0: none */
    int fail_flushes;
    unsigned int flushes;
};

struct crash_disk *crash_disk_of(struct block_node *node);
/* What is left after a crash now; a new array. */
GByteArray *crash_disk_cut(struct crash_disk *disk);
/* Becomes that content, all of it durable; `bytes` is copied. */
void crash_disk_load(struct block_node *node, const GByteArray *bytes);

#endif
