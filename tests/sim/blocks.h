/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk's content and sets of its blocks, as the model keeps them.
 *
 * Content is one 64-bit stamp for each block of 4 KiB, which stands in the
 * block's first eight bytes; what else a block holds, nobody looks at. So a
 * request costs a few loads per block, and a snapshot is a short copy. Zero
 * stands for a block of zeroes.
 */
#ifndef SIM_BLOCKS_H
#define SIM_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define BLOCK_BYTES        UINT64_C(4096)
#define CLUSTER_BYTES      UINT64_C(65536) /* the copy engine's */
#define BLOCKS_MAX         2688            /* of one disk */
#define BLOCK_WORDS_MAX    (BLOCKS_MAX / 64)
#define BLOCKS_PER_CLUSTER (CLUSTER_BYTES / BLOCK_BYTES)

struct block_set {
    uint64_t words[BLOCK_WORDS_MAX];
};

static inline bool block_set_has(const struct block_set *set,
                                 unsigned int block)
{
    return (set->words[block / 64] >> (block % 64) & 1) != 0;
}

static inline void block_set_add(struct block_set *set, unsigned int block)
{
    set->words[block / 64] |= UINT64_C(1) << (block % 64);
}

static inline void block_set_merge(struct block_set *set,
                                   const struct block_set *other,
                                   unsigned int words)
{
    for (unsigned int i = 0; i < words; i++) {
        set->words[i] |= other->words[i];
    }
}

/* The blocks that a range of bytes touches, [*first, *end), the range rounded
 * outwards to `granularity` bytes and cut at `block_count`. */
static inline void blocks_touched(uint64_t offset,
                                  uint64_t bytes,
                                  uint64_t granularity,
                                  unsigned int block_count,
                                  unsigned int *first,
                                  unsigned int *end)
{
    uint64_t start = offset & ~(granularity - 1);
    uint64_t stop = (offset + bytes + granularity - 1) & ~(granularity - 1);
    uint64_t last = (stop + BLOCK_BYTES - 1) / BLOCK_BYTES;

    *first = (unsigned int)(start / BLOCK_BYTES);
    *end = (unsigned int)(last < block_count ? last : block_count);
}

/* Adds what a range touches. */
static inline void block_set_add_range(struct block_set *set,
                                       uint64_t offset,
                                       uint64_t bytes,
                                       uint64_t granularity,
                                       unsigned int block_count)
{
    unsigned int first, end;

    blocks_touched(offset, bytes, granularity, block_count, &first, &end);
    for (unsigned int block = first; block < end; block++) {
        block_set_add(set, block);
    }
}

#endif
