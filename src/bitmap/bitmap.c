/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting a range fills words of level 0, then the (64 times smaller) range of
 * their summary bits, and so on up. Clearing looks for words that are not zero
 * through the summaries. So the cost follows what is or gets dirty, and memory
 * that was never dirty is never touched: it comes zeroed from the kernel and
 * takes no room until a bit is set.
 *
 * What can fail is memory, and only when a bitmap is made. Ranges are the
 * caller's promise to lie within the disk (asserted).
 */
#include "bitmap/bitmap.h"

#include <errno.h>
#include <inttypes.h>

#include "base/error.h"
#include "base/limits.h"
#include "bitmap/bitmap_priv.h"

G_STATIC_ASSERT(LIMIT_BITMAP_BYTES * 8 <= UINT64_C(1) << 36);

static uint64_t bit_of(uint64_t index)
{
    return UINT64_C(1) << (index % BITMAP_WORD_BITS);
}

/* Bits [first % 64, 63], and bits [0, last % 64]. */
static uint64_t mask_from(uint64_t first)
{
    return UINT64_MAX << (first % BITMAP_WORD_BITS);
}

static uint64_t mask_up_to(uint64_t last)
{
    return UINT64_MAX >> (BITMAP_WORD_BITS - 1 - last % BITMAP_WORD_BITS);
}

/* Sizes the levels; returns the words of all. */
static uint64_t plan_levels(struct bitmap *bitmap)
{
    uint64_t words =
        max_u64(divide_round_up(bitmap->segment_count, BITMAP_WORD_BITS), 1);
    uint64_t total = words;

    bitmap->word_counts[0] = words;
    bitmap->level_count = 1;
    while (words > 1) {
        words = divide_round_up(words, BITMAP_WORD_BITS);
        bitmap->word_counts[bitmap->level_count++] = words;
        total += words;
    }
    return total;
}

struct bitmap *bitmap_new(uint64_t size_bytes,
                          uint64_t granularity_bytes,
                          GError **err)
{
    if (!is_power_of_two(granularity_bytes) ||
        granularity_bytes < LIMIT_BITMAP_GRANULARITY_MIN ||
        granularity_bytes > LIMIT_BITMAP_GRANULARITY_MAX) {
        error_set(err, -EINVAL,
                  "A bitmap's granularity must be a power of two from %" PRIu64
                  " to %" PRIu64 ", not %" PRIu64,
                  LIMIT_BITMAP_GRANULARITY_MIN, LIMIT_BITMAP_GRANULARITY_MAX,
                  granularity_bytes);
        return NULL;
    }

    g_autoptr(owned_bitmap) bitmap = g_new0(struct bitmap, 1);
    bitmap->granularity_shift = bitmap_lowest_bit(granularity_bytes);
    bitmap->size_bytes = size_bytes;
    bitmap->segment_count = divide_round_up(size_bytes, granularity_bytes);
    if (divide_round_up(bitmap->segment_count, 8) > LIMIT_BITMAP_BYTES) {
        error_set(err, -EFBIG,
                  "A bitmap with a granularity of %" PRIu64
                  " bytes for a disk of %" PRIu64
                  " bytes needs more than %" PRIu64
                  " bytes of memory; choose a coarser granularity",
                  granularity_bytes, size_bytes, LIMIT_BITMAP_BYTES);
        return NULL;
    }

    uint64_t *memory = g_try_new0(uint64_t, plan_levels(bitmap));
    if (memory == NULL) {
        error_set(
            err, -ENOMEM,
            "There is no memory for a bitmap with a granularity of %" PRIu64
            " bytes for a disk of %" PRIu64 " bytes",
            granularity_bytes, size_bytes);
        return NULL;
    }
    for (unsigned int level = 0; level < bitmap->level_count; level++) {
        bitmap->levels[level] = memory;
        memory += bitmap->word_counts[level];
    }
    return g_steal_pointer(&bitmap);
}

void bitmap_free(struct bitmap *bitmap)
{
    if (bitmap == NULL) {
        return;
    }
    g_free(bitmap->levels[0]);
    g_free(bitmap);
}

uint64_t bitmap_size_bytes(const struct bitmap *bitmap)
{
    return bitmap->size_bytes;
}

uint64_t bitmap_granularity_bytes(const struct bitmap *bitmap)
{
    return UINT64_C(1) << bitmap->granularity_shift;
}

uint64_t bitmap_count(const struct bitmap *bitmap)
{
    return bitmap->set_count;
}

/* Climbs to the first level that has a set bit from here on, then descends
 * along lowest bits. */
uint64_t bitmap_find_bit(const struct bitmap *bitmap,
                         unsigned int level,
                         uint64_t index)
{
    unsigned int at = level;
    uint64_t word = 0;

    for (;;) {
        uint64_t word_index = index / BITMAP_WORD_BITS;
        if (at == bitmap->level_count ||
            word_index >= bitmap->word_counts[at]) {
            return UINT64_MAX;
        }
        word = bitmap->levels[at][word_index] & mask_from(index);
        if (word != 0) {
            index = word_index * BITMAP_WORD_BITS + bitmap_lowest_bit(word);
            break;
        }
        index = word_index + 1;
        at++;
    }
    while (at > level) {
        at--;
        word = bitmap->levels[at][index];
        index = index * BITMAP_WORD_BITS + bitmap_lowest_bit(word);
    }
    return index;
}

/* The first clear bit in [index, end); `end` if there is none. */
static uint64_t find_clear_bit(const struct bitmap *bitmap,
                               uint64_t index,
                               uint64_t end)
{
    const uint64_t *words = bitmap->levels[0];
    uint64_t word_index = index / BITMAP_WORD_BITS;
    uint64_t last_word = (end - 1) / BITMAP_WORD_BITS;
    uint64_t clear = ~words[word_index] & mask_from(index);

    while (clear == 0 && word_index < last_word) {
        clear = ~words[++word_index];
    }
    if (clear == 0) {
        return end;
    }
    return min_u64(word_index * BITMAP_WORD_BITS + bitmap_lowest_bit(clear),
                   end);
}

bool bitmap_get(const struct bitmap *bitmap, uint64_t offset)
{
    uint64_t segment = offset >> bitmap->granularity_shift;

    g_assert(offset < bitmap->size_bytes);
    return (bitmap->levels[0][segment / BITMAP_WORD_BITS] & bit_of(segment)) !=
           0;
}

bool bitmap_is_set(const struct bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> bitmap->granularity_shift;
    uint64_t last = (offset + bytes - 1) >> bitmap->granularity_shift;

    if (bytes == 0) {
        return true;
    }
    if (G_LIKELY(first == last && first < bitmap->segment_count)) {
        return (bitmap->levels[0][first / BITMAP_WORD_BITS] & bit_of(first)) !=
               0;
    }
    g_assert(bytes_range_within(offset, bytes, bitmap->size_bytes));
    return find_clear_bit(bitmap, first, last + 1) > last;
}

/* The summary bits of words [first, last], none of which is zero, from
 * `level` upwards. A range that is set already ends the climb. */
static void set_summaries(struct bitmap *bitmap,
                          unsigned int level,
                          uint64_t first,
                          uint64_t last)
{
    for (; level < bitmap->level_count; level++) {
        uint64_t *words = bitmap->levels[level];
        uint64_t first_word = first / BITMAP_WORD_BITS;
        uint64_t last_word = last / BITMAP_WORD_BITS;
        uint64_t changed = 0;

        for (uint64_t i = first_word; i <= last_word; i++) {
            uint64_t mask = (i == first_word ? mask_from(first) : UINT64_MAX) &
                            (i == last_word ? mask_up_to(last) : UINT64_MAX);
            changed |= mask & ~words[i];
            words[i] |= mask;
        }
        if (changed == 0) {
            return;
        }
        first = first_word;
        last = last_word;
    }
}

void bitmap_or_word(struct bitmap *bitmap, uint64_t word_index, uint64_t bits)
{
    uint64_t *word = &bitmap->levels[0][word_index];

    if ((bits & ~*word) == 0) {
        return;
    }
    bitmap->set_count += bitmap_popcount(bits & ~*word);
    *word |= bits;
    set_summaries(bitmap, 1, word_index, word_index);
}

static void set_bits(struct bitmap *bitmap, uint64_t first, uint64_t last)
{
    uint64_t *words = bitmap->levels[0];
    uint64_t first_word = first / BITMAP_WORD_BITS;
    uint64_t last_word = last / BITMAP_WORD_BITS;

    if (first_word == last_word) {
        bitmap_or_word(bitmap, first_word, mask_from(first) & mask_up_to(last));
        return;
    }
    bitmap_or_word(bitmap, first_word, mask_from(first));
    bitmap_or_word(bitmap, last_word, mask_up_to(last));
    if (first_word + 1 < last_word) {
        for (uint64_t i = first_word + 1; i < last_word; i++) {
            bitmap->set_count += BITMAP_WORD_BITS - bitmap_popcount(words[i]);
            words[i] = UINT64_MAX;
        }
        set_summaries(bitmap, 1, first_word + 1, last_word - 1);
    }
}

void bitmap_set(struct bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    g_assert(bytes_range_within(offset, bytes, bitmap->size_bytes));
    if (bytes > 0) {
        set_bits(bitmap, offset >> bitmap->granularity_shift,
                 (offset + bytes - 1) >> bitmap->granularity_shift);
    }
}

/* Level by level: clears the bits, then the summary bits of the words that have
 * become zero, which are a range again. */
void bitmap_clear_bits(struct bitmap *bitmap, uint64_t first, uint64_t last)
{
    for (unsigned int level = 0; level < bitmap->level_count; level++) {
        uint64_t *words = bitmap->levels[level];
        uint64_t first_word = first / BITMAP_WORD_BITS;
        uint64_t last_word = last / BITMAP_WORD_BITS;
        uint64_t i = first_word;

        while (i <= last_word) {
            uint64_t mask = (i == first_word ? mask_from(first) : UINT64_MAX) &
                            (i == last_word ? mask_up_to(last) : UINT64_MAX);
            if (level == 0) {
                bitmap->set_count -= bitmap_popcount(words[i] & mask);
            }
            if ((words[i] & mask) != 0) {
                words[i] &= ~mask;
            }
            i = level + 1 < bitmap->level_count
                    ? bitmap_find_bit(bitmap, level + 1, i + 1)
                    : i + 1;
        }
        /* Only the words at the two ends may have kept bits. */
        first = first_word + (words[first_word] != 0);
        if (words[last_word] != 0) {
            if (last_word == 0) {
                return;
            }
            last_word--;
        }
        last = last_word;
        if (first > last) {
            return;
        }
    }
}

void bitmap_clear(struct bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t mask = bitmap_granularity_bytes(bitmap) - 1;
    uint64_t first = offset >> bitmap->granularity_shift;
    uint64_t end = offset + bytes;

    g_assert(bytes_range_within(offset, bytes, bitmap->size_bytes));
    /* Inwards: a segment that the range only touches stays as it is. */
    first += (offset & mask) != 0;
    end = end == bitmap->size_bytes ? bitmap->segment_count
                                    : end >> bitmap->granularity_shift;
    if (first < end) {
        bitmap_clear_bits(bitmap, first, end - 1);
    }
}

void bitmap_set_all(struct bitmap *bitmap)
{
    bitmap_set(bitmap, 0, bitmap->size_bytes);
}

void bitmap_clear_all(struct bitmap *bitmap)
{
    bitmap_clear(bitmap, 0, bitmap->size_bytes);
}

/* Turns the run of segments [first, end), found from `offset` on, to bytes. */
static void report_run(const struct bitmap *bitmap,
                       uint64_t first,
                       uint64_t end,
                       uint64_t offset,
                       uint64_t max_bytes,
                       uint64_t *ret_offset,
                       uint64_t *ret_bytes)
{
    uint64_t start = max_u64(first << bitmap->granularity_shift, offset);
    uint64_t stop = end == bitmap->segment_count
                        ? bitmap->size_bytes
                        : end << bitmap->granularity_shift;

    *ret_offset = start;
    *ret_bytes = min_u64(stop - start, max_bytes);
}

/* Where a run that begins in segment `first` need not be followed further. */
static uint64_t run_limit(const struct bitmap *bitmap,
                          uint64_t first,
                          uint64_t max_bytes)
{
    uint64_t most = (max_bytes >> bitmap->granularity_shift) + 2;

    return most < bitmap->segment_count - first ? first + most
                                                : bitmap->segment_count;
}

bool bitmap_next_set(const struct bitmap *bitmap,
                     uint64_t offset,
                     uint64_t max_bytes,
                     uint64_t *ret_offset,
                     uint64_t *ret_bytes)
{
    if (offset >= bitmap->size_bytes || max_bytes == 0) {
        return false;
    }
    uint64_t first =
        bitmap_find_bit(bitmap, 0, offset >> bitmap->granularity_shift);
    if (first == UINT64_MAX) {
        return false;
    }
    uint64_t end =
        find_clear_bit(bitmap, first, run_limit(bitmap, first, max_bytes));
    report_run(bitmap, first, end, offset, max_bytes, ret_offset, ret_bytes);
    return true;
}

bool bitmap_next_clear(const struct bitmap *bitmap,
                       uint64_t offset,
                       uint64_t max_bytes,
                       uint64_t *ret_offset,
                       uint64_t *ret_bytes)
{
    if (offset >= bitmap->size_bytes || max_bytes == 0) {
        return false;
    }
    uint64_t first = find_clear_bit(bitmap, offset >> bitmap->granularity_shift,
                                    bitmap->segment_count);
    if (first == bitmap->segment_count) {
        return false;
    }
    uint64_t end =
        min_u64(bitmap_find_bit(bitmap, 0, first), bitmap->segment_count);
    report_run(bitmap, first, end, offset, max_bytes, ret_offset, ret_bytes);
    return true;
}
