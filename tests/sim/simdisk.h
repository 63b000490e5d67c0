/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver `simdisk`: a disk in memory that takes its time and fails.
 *
 * Its content outlives the node. A request may be served at once, late, in two
 * halves with others in between, after a stall or after a hang of seconds, or
 * fail before, after or in the middle of its effect: all as the seed will have
 * it. Option `file`: the index of the disk in the world.
 */
#ifndef SIM_SIMDISK_H
#define SIM_SIMDISK_H

#include "block/driver.h"

#include "world.h"

extern const struct block_driver driver_simdisk;

/* Counts it if a guest's write comes while a job reads what it overwrites. */
void simdisk_note_write(struct disk *disk, uint64_t offset, uint64_t bytes);

#endif
