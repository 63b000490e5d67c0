/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory for blocks of one size, aligned for direct I/O.
 *
 * Thousands of aligned blocks from malloc() would take up twice their size. Here
 * they are cut from large pieces, which go back when all their blocks have.
 * Home thread only.
 */
#ifndef DRIVERS_QCOW2_TABLE_MEMORY_H
#define DRIVERS_QCOW2_TABLE_MEMORY_H

#include <stdint.h>

struct table_memory;

/* Where a block came from. */
struct table_piece;

/* `block_bytes`: a power of two, at least 512. */
struct table_memory *table_memory_new(uint32_t block_bytes);
/* All blocks have been given back. */
void table_memory_free(struct table_memory *memory);

/* A block, its content undefined; NULL: no memory. */
uint8_t *table_memory_take(struct table_memory *memory,
                           struct table_piece **ret_piece);
void table_memory_give(struct table_memory *memory,
                       struct table_piece *piece,
                       uint8_t *block);

#endif
