/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file in memory that grows and shrinks, up to a bound: the driver
 * "memory-file", for targets that need a disk image.
 */
#ifndef TESTS_FUZZ_MEMORY_FILE_H
#define TESTS_FUZZ_MEMORY_FILE_H

#include "block/driver.h"

/* Growing beyond it is -ENOSPC. */
#define MEMORY_FILE_BYTES_MAX (UINT64_C(64) << 20)

extern const struct block_driver driver_memory_file;

/* Replaces the content; NULL: zeroes. Nothing may be under way. */
void memory_file_fill(struct block_node *node, const void *data, size_t bytes);
GBytes *memory_file_copy(struct block_node *node);

#endif
