/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bytes of a tracking file; docs/reference/tracking-file.md, section by
 * section. Encoding and decoding only; whatever the bytes are, decoding ends and
 * stays within them. Pure; any thread.
 */
#ifndef JOURNAL_TRACKING_FILE_FORMAT_H
#define JOURNAL_TRACKING_FILE_FORMAT_H

#include <glib.h>

#include "base/bytes.h"
#include "journal/bitmap_base.h"
#include "journal/identity.h"
#include "journal/storage.h"
#include "journal/tracker.h"

#define TRACKING_MAJOR          1
#define TRACKING_HEADER_BYTES   4096
#define TRACKING_PAGE_BYTES     4096
#define TRACKING_PAGE_WORDS     508
#define TRACKING_SECTOR_REGIONS 3968
#define TRACKING_LAYER_BYTES    16
/* Of each reason why something is not to be believed; a slot has room for one
 * per bitmap and one more. */
#define TRACKING_REASON_BYTES_MAX 200
/* Memory that decoding one superblock may take. */
#define TRACKING_SLOT_BYTES_MAX (512 * MIB)

/* "Header". */
struct tracking_layout {
    struct journal_id disk_id;
    uint64_t region_bytes;
    uint64_t region_count;
    uint64_t slot_offset[2];
    uint64_t slot_bytes;
    uint64_t intent_offset;
    uint64_t intent_sectors;
    uint64_t pages_offset;
    uint64_t page_count;
};

/* Where the file ends. */
uint64_t tracking_layout_bytes(const struct tracking_layout *layout);
void tracking_header_encode(const struct tracking_layout *layout,
                            uint8_t ret_bytes[TRACKING_HEADER_BYTES]);
/* -EINVAL: damaged or impossible; -ENOTSUP: a newer version. `path`: for the
 * sentence. */
int tracking_header_decode(const uint8_t bytes[TRACKING_HEADER_BYTES],
                           const char *path,
                           struct tracking_layout *ret_layout,
                           GError **err);

/* "A bitmap". */
struct tracked_page {
    uint32_t number; /* 0: all bits are clear */
    uint32_t crc;
};

enum tracked_change_state {
    TRACKED_PLAIN,
    TRACKED_FROZEN,
    TRACKED_PREPARED,
};

struct tracked_change {
    enum tracker_change kind;
    enum tracked_change_state state;
    enum tracker_mode mode;
    struct log_segment segment;
    struct journal_id txid;
};

enum tracked_set {
    TRACKED_FIRST,
    TRACKED_SECOND,
    TRACKED_SETS,
};

struct tracked_bitmap {
    uint32_t id;
    bool recording;
    bool inconsistent;
    bool has_second;
    unsigned int granularity_shift;
    struct bitmap_base base;
    struct tracked_change change;
    uint32_t page_count;                      /* of a set */
    struct tracked_page *pages[TRACKED_SETS]; /* owned; second: or NULL */
    char *name;                               /* owned */
    char *reason;                             /* owned; NULL: consistent */
};

struct tracked_bitmap *tracked_bitmap_new(const char *name);
void tracked_bitmap_free(struct tracked_bitmap *bitmap);

/* "Superblock". */
struct tracking_superblock {
    uint64_t sequence;
    struct journal_id disk_id;
    uint64_t size_bytes;
    bool is_clean;
    bool is_poisoned;
    bool is_process;
    bool is_resizing;
    uint32_t next_bitmap_id;
    uint8_t boot_id[STORAGE_BOOT_ID_BYTES];
    uint64_t resize_old_bytes;
    uint64_t resize_new_bytes;
    struct identity identity;
    struct identity_stamps stamps;
    char layer[TRACKING_LAYER_BYTES + 1];
    GPtrArray *bitmaps; /* struct tracked_bitmap, owned */
    char *reason;       /* owned; NULL: not poisoned */
};

typedef struct tracking_superblock tracking_superblock;
struct tracking_superblock *tracking_superblock_new(void);
void tracking_superblock_free(struct tracking_superblock *superblock);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(tracking_superblock, tracking_superblock_free)

/* New; owned by the caller. */
GByteArray *tracking_superblock_encode(
    const struct tracking_superblock *superblock);
/* How many bytes an entry takes. */
uint64_t tracked_bitmap_encoded_bytes(uint32_t page_count,
                                      bool has_second,
                                      size_t name_bytes,
                                      size_t reason_bytes);
/* The first 4096 bytes of a slot: how long the superblock in it says it is;
 * 0: there is none. */
uint64_t tracking_superblock_length(const uint8_t *bytes,
                                    const struct tracking_layout *layout);
/* NULL: not valid. */
struct tracking_superblock *tracking_superblock_decode(
    const uint8_t *bytes,
    uint64_t length,
    const struct tracking_layout *layout);

/* "A page". `words`: TRACKING_PAGE_WORDS of them. Returns the CRC. */
uint32_t tracking_page_encode(uint32_t bitmap_id,
                              enum tracked_set set,
                              uint64_t index,
                              uint64_t generation,
                              const uint64_t *words,
                              uint64_t word_count,
                              uint8_t ret_bytes[TRACKING_PAGE_BYTES]);
/* False: it does not count. */
bool tracking_page_decode(const uint8_t bytes[TRACKING_PAGE_BYTES],
                          uint32_t bitmap_id,
                          enum tracked_set set,
                          uint64_t index,
                          uint32_t crc,
                          uint64_t ret_words[TRACKING_PAGE_WORDS]);
/* Pages of one set of a bitmap. */
uint64_t tracking_set_pages(uint64_t size_bytes,
                            unsigned int granularity_shift);

/* "Intent map". A sector in memory is as on disk; sealing makes its CRC right. */
void tracking_sector_seal(uint8_t *sector, uint32_t index, uint64_t sequence);
/* A bad sector becomes all ones, with sequence 0. */
void tracking_sector_check(uint8_t *sector,
                           uint32_t index,
                           uint64_t *ret_sequence);

static inline uint8_t *tracking_sector_byte(uint8_t *map, uint64_t region)
{
    return map + region / TRACKING_SECTOR_REGIONS * STORAGE_SECTOR_BYTES + 16 +
           region % TRACKING_SECTOR_REGIONS / 8;
}

static inline uint8_t tracking_sector_bit(uint64_t region)
{
    return (uint8_t)(1U << (region % TRACKING_SECTOR_REGIONS % 8));
}

#endif
