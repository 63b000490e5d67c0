/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Header, pages and intent sectors. Superblocks: tracking_superblock.c.
 */
#include "journal/tracking_file_format.h"

#include <errno.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "base/limits.h"

static const char header_magic[8] = "cohortbt";

/* The CRC of bytes in which the four at `at` count as zeroes. */
static uint32_t crc_without(const uint8_t *bytes, size_t length, size_t at)
{
    static const uint8_t zeroes[4];
    uint32_t crc = crc32c(0, bytes, at);

    crc = crc32c(crc, zeroes, sizeof(zeroes));
    return crc32c(crc, bytes + at + 4, length - at - 4);
}

uint64_t tracking_layout_bytes(const struct tracking_layout *layout)
{
    return layout->pages_offset + layout->page_count * TRACKING_PAGE_BYTES;
}

void tracking_header_encode(const struct tracking_layout *layout,
                            uint8_t ret_bytes[TRACKING_HEADER_BYTES])
{
    memset(ret_bytes, 0, TRACKING_HEADER_BYTES);
    memcpy(ret_bytes, header_magic, sizeof(header_magic));
    store_le16(ret_bytes + 8, TRACKING_MAJOR);
    memcpy(ret_bytes + 16, layout->disk_id.bytes, JOURNAL_ID_BYTES);
    store_le64(ret_bytes + 32, layout->region_bytes);
    store_le64(ret_bytes + 40, layout->region_count);
    store_le64(ret_bytes + 48, layout->slot_offset[0]);
    store_le64(ret_bytes + 56, layout->slot_offset[1]);
    store_le64(ret_bytes + 64, layout->slot_bytes);
    store_le64(ret_bytes + 72, layout->intent_offset);
    store_le64(ret_bytes + 80, layout->intent_sectors);
    store_le64(ret_bytes + 88, layout->pages_offset);
    store_le64(ret_bytes + 96, layout->page_count);
    store_le32(ret_bytes + 12,
               crc_without(ret_bytes, TRACKING_HEADER_BYTES, 12));
}

/* A checksum says that nobody damaged it, not that it makes sense. */
static bool layout_makes_sense(const struct tracking_layout *layout)
{
    const uint64_t offset_max = UINT64_C(1) << 50;

    if (!is_power_of_two(layout->region_bytes) ||
        layout->region_bytes > LIMIT_DISK_BYTES ||
        layout->slot_bytes < TRACKING_HEADER_BYTES ||
        layout->slot_bytes > TRACKING_SLOT_BYTES_MAX ||
        layout->intent_sectors > UINT32_MAX / 16 ||
        layout->page_count > UINT32_MAX) {
        return false;
    }
    return layout->slot_offset[0] < offset_max &&
           layout->slot_offset[1] < offset_max &&
           layout->intent_offset < offset_max &&
           layout->pages_offset < offset_max &&
           layout->region_count <=
               layout->intent_sectors * TRACKING_SECTOR_REGIONS;
}

int tracking_header_decode(const uint8_t bytes[TRACKING_HEADER_BYTES],
                           const char *path,
                           struct tracking_layout *ret_layout,
                           GError **err)
{
    struct tracking_layout layout = {
        .region_bytes = load_le64(bytes + 32),
        .region_count = load_le64(bytes + 40),
        .slot_offset = { load_le64(bytes + 48), load_le64(bytes + 56) },
        .slot_bytes = load_le64(bytes + 64),
        .intent_offset = load_le64(bytes + 72),
        .intent_sectors = load_le64(bytes + 80),
        .pages_offset = load_le64(bytes + 88),
        .page_count = load_le64(bytes + 96),
    };

    memcpy(layout.disk_id.bytes, bytes + 16, JOURNAL_ID_BYTES);
    if (memcmp(bytes, header_magic, sizeof(header_magic)) != 0) {
        return error_set(err, -EINVAL, "'%s' is no tracking file", path);
    }
    if (load_le16(bytes + 8) > TRACKING_MAJOR) {
        return error_set(err, -ENOTSUP,
                         "tracking file '%s' has format version %u, and this "
                         "cohortd knows versions up to %u: use a newer one",
                         path, load_le16(bytes + 8), TRACKING_MAJOR);
    }
    if (load_le32(bytes + 12) !=
            crc_without(bytes, TRACKING_HEADER_BYTES, 12) ||
        !layout_makes_sense(&layout)) {
        return error_set(err, -EINVAL,
                         "the header of tracking file '%s' is damaged", path);
    }
    *ret_layout = layout;
    return 0;
}

uint32_t tracking_page_encode(uint32_t bitmap_id,
                              enum tracked_set set,
                              uint64_t index,
                              uint64_t generation,
                              const uint64_t *words,
                              uint64_t word_count,
                              uint8_t ret_bytes[TRACKING_PAGE_BYTES])
{
    uint32_t crc;

    g_assert(word_count <= TRACKING_PAGE_WORDS);
    memset(ret_bytes, 0, TRACKING_PAGE_BYTES);
    store_le32(ret_bytes + 4, bitmap_id * 2 + (set == TRACKED_SECOND));
    store_le64(ret_bytes + 8, index);
    store_le64(ret_bytes + 16, generation);
    for (uint64_t i = 0; i < word_count; i++) {
        store_le64(ret_bytes + 32 + 8 * i, words[i]);
    }
    crc = crc_without(ret_bytes, TRACKING_PAGE_BYTES, 0);
    store_le32(ret_bytes, crc);
    return crc;
}

bool tracking_page_decode(const uint8_t bytes[TRACKING_PAGE_BYTES],
                          uint32_t bitmap_id,
                          enum tracked_set set,
                          uint64_t index,
                          uint32_t crc,
                          uint64_t ret_words[TRACKING_PAGE_WORDS])
{
    if (load_le32(bytes) != crc ||
        crc_without(bytes, TRACKING_PAGE_BYTES, 0) != crc ||
        load_le32(bytes + 4) != bitmap_id * 2 + (set == TRACKED_SECOND) ||
        load_le64(bytes + 8) != index) {
        return false;
    }
    for (size_t i = 0; i < TRACKING_PAGE_WORDS; i++) {
        ret_words[i] = load_le64(bytes + 32 + 8 * i);
    }
    return true;
}

uint64_t tracking_set_pages(uint64_t size_bytes, unsigned int granularity_shift)
{
    uint64_t segments =
        divide_round_up(size_bytes, UINT64_C(1) << granularity_shift);

    return divide_round_up(segments, TRACKING_PAGE_WORDS * 64);
}

void tracking_sector_seal(uint8_t *sector, uint32_t index, uint64_t sequence)
{
    store_le32(sector + 4, index);
    store_le64(sector + 8, sequence);
    store_le32(sector, crc_without(sector, STORAGE_SECTOR_BYTES, 0));
}

void tracking_sector_check(uint8_t *sector,
                           uint32_t index,
                           uint64_t *ret_sequence)
{
    if (load_le32(sector + 4) == index &&
        load_le32(sector) == crc_without(sector, STORAGE_SECTOR_BYTES, 0)) {
        *ret_sequence = load_le64(sector + 8);
        return;
    }
    memset(sector + 16, 0xff, STORAGE_SECTOR_BYTES - 16);
    *ret_sequence = 0;
}
