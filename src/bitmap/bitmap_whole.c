/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is done to bitmaps as wholes: merging, copying, resizing, hashing.
 *
 * All of it walks the words that are not zero, found through the summaries.
 */
#include "bitmap/bitmap.h"

#include <errno.h>

#include "bitmap/bitmap_priv.h"

/* The first word of level 0, from `from` on, that is not zero; UINT64_MAX:
 * there is none. */
static uint64_t next_word(const struct bitmap *bitmap, uint64_t from)
{
    if (bitmap->level_count == 1) {
        return from == 0 && bitmap->levels[0][0] != 0 ? 0 : UINT64_MAX;
    }
    return bitmap_find_bit(bitmap, 1, from);
}

/* ORs the words of a bitmap with the same granularity; words past the end of
 * a shorter target are left out. */
static void or_words(struct bitmap *target, const struct bitmap *source)
{
    uint64_t end = target->word_counts[0];

    for (uint64_t i = next_word(source, 0); i < end;
         i = next_word(source, i + 1)) {
        bitmap_or_word(target, i, source->levels[0][i]);
    }
}

void bitmap_merge(struct bitmap *target, const struct bitmap *source)
{
    uint64_t offset = 0;
    uint64_t bytes = 0;

    g_assert(target->size_bytes == source->size_bytes);
    if (target == source) {
        return;
    }
    if (target->granularity_shift == source->granularity_shift) {
        or_words(target, source);
        return;
    }
    while (bitmap_next_set(source, offset, UINT64_MAX, &offset, &bytes)) {
        bitmap_set(target, offset, bytes);
        offset += bytes;
    }
}

struct bitmap *bitmap_copy(const struct bitmap *bitmap, GError **err)
{
    struct bitmap *copy =
        bitmap_new(bitmap->size_bytes, bitmap_granularity_bytes(bitmap), err);

    if (copy != NULL) {
        or_words(copy, bitmap);
    }
    return copy;
}

void bitmap_swap(struct bitmap *a, struct bitmap *b)
{
    struct bitmap kept = *a;

    g_assert(a->size_bytes == b->size_bytes);
    g_assert(a->granularity_shift == b->granularity_shift);
    *a = *b;
    *b = kept;
}

int bitmap_resize(struct bitmap *bitmap,
                  uint64_t size_bytes,
                  bool grown_is_set,
                  GError **err)
{
    g_autoptr(GError) cause = NULL;
    g_autoptr(owned_bitmap) resized =
        bitmap_new(size_bytes, bitmap_granularity_bytes(bitmap), &cause);

    if (resized == NULL) {
        g_propagate_error(err, g_steal_pointer(&cause));
        return -ENOMEM;
    }
    or_words(resized, bitmap);
    if (size_bytes < bitmap->size_bytes) {
        /* The last word kept may hold bits of segments that are gone. */
        uint64_t held = resized->word_counts[0] * BITMAP_WORD_BITS;
        if (resized->segment_count < held) {
            bitmap_clear_bits(resized, resized->segment_count, held - 1);
        }
    } else if (grown_is_set) {
        bitmap_set(resized, bitmap->size_bytes,
                   size_bytes - bitmap->size_bytes);
    }

    struct bitmap kept = *bitmap;
    *bitmap = *resized;
    *resized = kept;
    return 0;
}

const uint64_t *bitmap_words(const struct bitmap *bitmap, uint64_t *ret_count)
{
    *ret_count = divide_round_up(bitmap->segment_count, BITMAP_WORD_BITS);
    return bitmap->levels[0];
}

void bitmap_or_words(struct bitmap *bitmap,
                     uint64_t first,
                     const uint64_t *words,
                     uint64_t count)
{
    uint64_t end = divide_round_up(bitmap->segment_count, BITMAP_WORD_BITS);
    uint64_t tail = bitmap->segment_count % BITMAP_WORD_BITS;

    for (uint64_t i = 0; i < count && first + i < end; i++) {
        uint64_t word = words[i];

        if (first + i == end - 1 && tail != 0) {
            word &= (UINT64_C(1) << tail) - 1;
        }
        if (word != 0) {
            bitmap_or_word(bitmap, first + i, word);
        }
    }
}

char *bitmap_sha256(const struct bitmap *bitmap)
{
    g_autoptr(GChecksum) checksum = g_checksum_new(G_CHECKSUM_SHA256);
    uint64_t words = divide_round_up(bitmap->segment_count, BITMAP_WORD_BITS);

    g_checksum_update(checksum, (const guchar *)bitmap->levels[0],
                      (gssize)(words * sizeof(uint64_t)));
    return g_strdup(g_checksum_get_string(checksum));
}
