/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of a bitmap, for the files of this folder.
 *
 * Level 0 holds the segments' bits, and bit n of level k + 1 says that word n
 * of level k is not zero. The top level is one word.
 *
 *     level 2                  1
 *     level 1          0100...0         1000...
 *     level 0    0 | 0011.. | 0 | ...    1... | 0 | ...
 *
 * Bits past the last segment are always zero, on every level.
 */
#ifndef BITMAP_BITMAP_PRIV_H
#define BITMAP_BITMAP_PRIV_H

#include "base/bytes.h"
#include "bitmap/bitmap.h"

enum {
    BITMAP_WORD_BITS = 64,
    BITMAP_LEVELS_MAX = 7, /* 2^36 bits; LIMIT_BITMAP_BYTES allows 2^33 */
};

struct bitmap {
    /* The first cache line is all that looking up one bit takes. */
    unsigned int granularity_shift;
    unsigned int level_count;
    uint64_t segment_count;
    uint64_t size_bytes;
    uint64_t set_count;
    uint64_t *levels[BITMAP_LEVELS_MAX]; /* one allocation, levels[0] first */
    uint64_t word_counts[BITMAP_LEVELS_MAX];
};

static inline uint64_t bitmap_popcount(uint64_t word)
{
    return (uint64_t)__builtin_popcountll(word);
}

static inline unsigned int bitmap_lowest_bit(uint64_t word)
{
    return (unsigned int)__builtin_ctzll(word);
}

/* The first set bit of `level` at or after `index`; UINT64_MAX: there is none.
 * So bitmap_find_bit(b, 1, n) finds the first word of level 0, from n on, that
 * is not zero. */
uint64_t bitmap_find_bit(const struct bitmap *bitmap,
                         unsigned int level,
                         uint64_t index);

/* ORs `bits` into a word of level 0. */
void bitmap_or_word(struct bitmap *bitmap, uint64_t word_index, uint64_t bits);

/* Clears bits [first, last] of level 0. */
void bitmap_clear_bits(struct bitmap *bitmap, uint64_t first, uint64_t last);

#endif
