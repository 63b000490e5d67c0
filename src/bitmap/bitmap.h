/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bits: one per segment of a disk, found fast.
 *
 * Flat 64-bit words with summary levels above (a summary bit says that its word
 * below is not zero), so the next dirty segment of an empty terabyte is found
 * in microseconds and setting a bit that is set costs one load. A segment is
 * `granularity` bytes, a power of two; the last one may be cut by the disk's
 * end. Ranges are bytes. Setting rounds outwards, clearing inwards (except at
 * the disk's end, which counts as whole).
 *
 * No locks: one thread at a time.
 */
#ifndef BITMAP_BITMAP_H
#define BITMAP_BITMAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* The typedef exists for g_autoptr(owned_bitmap) only. */
typedef struct bitmap owned_bitmap;
struct bitmap;

/* All clear. NULL with err set when granularity is not a power of two within
 * LIMIT_BITMAP_GRANULARITY_*, or the memory would pass LIMIT_BITMAP_BYTES or
 * is not to be had. */
struct bitmap *bitmap_new(uint64_t size_bytes,
                          uint64_t granularity_bytes,
                          GError **err);
void bitmap_free(struct bitmap *bitmap);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(owned_bitmap, bitmap_free)

uint64_t bitmap_size_bytes(const struct bitmap *bitmap);
uint64_t bitmap_granularity_bytes(const struct bitmap *bitmap);
/* Number of set bits; O(1). */
uint64_t bitmap_count(const struct bitmap *bitmap);

bool bitmap_get(const struct bitmap *bitmap, uint64_t offset);
/* Is every segment that the range touches set? */
bool bitmap_is_set(const struct bitmap *bitmap,
                   uint64_t offset,
                   uint64_t bytes);
void bitmap_set(struct bitmap *bitmap, uint64_t offset, uint64_t bytes);
void bitmap_clear(struct bitmap *bitmap, uint64_t offset, uint64_t bytes);
void bitmap_set_all(struct bitmap *bitmap);
void bitmap_clear_all(struct bitmap *bitmap);

/* Finds the first run of set bits at or after `offset`: false if there is
 * none; else its start (not before `offset`) and length, at most `max_bytes`,
 * cut at the disk's end. */
bool bitmap_next_set(const struct bitmap *bitmap,
                     uint64_t offset,
                     uint64_t max_bytes,
                     uint64_t *ret_offset,
                     uint64_t *ret_bytes);
/* The same for clear bits. */
bool bitmap_next_clear(const struct bitmap *bitmap,
                       uint64_t offset,
                       uint64_t max_bytes,
                       uint64_t *ret_offset,
                       uint64_t *ret_bytes);

/* target := target OR source. Same size (assertion). Granularities may differ:
 * every byte that is dirty in the source is dirty in the target after. */
void bitmap_merge(struct bitmap *target, const struct bitmap *source);
struct bitmap *bitmap_copy(const struct bitmap *bitmap, GError **err);
/* Exchanges the contents of two bitmaps of equal size and granularity; O(1). */
void bitmap_swap(struct bitmap *a, struct bitmap *b);

/* Resizes; what is new is set if `grown_is_set`, else clear. On failure
 * nothing has changed. */
int bitmap_resize(struct bitmap *bitmap,
                  uint64_t size_bytes,
                  bool grown_is_set,
                  GError **err);

/* The bits themselves, for who stores them: bit n of the disk is bit n % 64 of
 * word n / 64; bits past the end are clear. Borrowed until the bitmap changes its
 * size. */
const uint64_t *bitmap_words(const struct bitmap *bitmap, uint64_t *ret_count);
/* ORs words in, from word `first` on; bits past the end are dropped. */
void bitmap_or_words(struct bitmap *bitmap,
                     uint64_t first,
                     const uint64_t *words,
                     uint64_t count);

/* SHA-256 of the bits, hex, as x-debug-block-dirty-bitmap-sha256 gives it: the
 * words of the lowest level, bit n of the disk is bit n%64 of word n/64. */
char *bitmap_sha256(const struct bitmap *bitmap);

#endif
