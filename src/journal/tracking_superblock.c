/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Superblocks to bytes and back: docs/reference/tracking-file.md, "Superblock"
 * and "A bitmap".
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/limits.h"
#include "journal/tracking_file_format.h"

#define FIXED_BYTES 256
#define ENTRY_BYTES 128

enum superblock_flags {
    FLAG_CLEAN = 1 << 0,
    FLAG_POISONED = 1 << 1,
    FLAG_PROCESS = 1 << 2,
    FLAG_RESIZING = 1 << 3,
};

enum bitmap_flags {
    BITMAP_RECORDING = 1 << 0,
    BITMAP_INCONSISTENT = 1 << 2,
    BITMAP_HAS_SECOND = 1 << 3,
};

static const char superblock_magic[8] = "cohortsb";

struct tracked_bitmap *tracked_bitmap_new(const char *name)
{
    struct tracked_bitmap *bitmap = g_new0(struct tracked_bitmap, 1);

    bitmap->name = g_strdup(name);
    return bitmap;
}

void tracked_bitmap_free(struct tracked_bitmap *bitmap)
{
    if (bitmap == NULL) {
        return;
    }
    g_free(bitmap->pages[TRACKED_FIRST]);
    g_free(bitmap->pages[TRACKED_SECOND]);
    g_free(bitmap->name);
    g_free(bitmap->reason);
    g_free(bitmap);
}

static void free_bitmap(void *opaque)
{
    tracked_bitmap_free(opaque);
}

struct tracking_superblock *tracking_superblock_new(void)
{
    struct tracking_superblock *superblock =
        g_new0(struct tracking_superblock, 1);

    superblock->bitmaps = g_ptr_array_new_with_free_func(free_bitmap);
    return superblock;
}

void tracking_superblock_free(struct tracking_superblock *superblock)
{
    if (superblock == NULL) {
        return;
    }
    g_ptr_array_unref(superblock->bitmaps);
    g_free(superblock->reason);
    g_free(superblock);
}

static size_t text_bytes(const char *text)
{
    return text == NULL ? 0 : strlen(text);
}

uint64_t tracked_bitmap_encoded_bytes(uint32_t page_count,
                                      bool has_second,
                                      size_t name_bytes,
                                      size_t reason_bytes)
{
    uint64_t tables = (uint64_t)page_count * 8 * (has_second ? 2 : 1);

    return round_up(ENTRY_BYTES + tables + name_bytes + reason_bytes, 8);
}

/*
 * Encoding.
 */

static void encode_identity(const struct identity *identity, uint8_t *to)
{
    store_le32(to, identity->kind);
    store_le32(to + 4, identity->below);
    store_le64(to + 8, identity->size_bytes);
    store_le64(to + 16, (uint64_t)identity->modified_ns);
    store_le64(to + 24, (uint64_t)identity->changed_ns);
    store_le64(to + 32, identity->device);
    store_le64(to + 40, identity->inode);
    store_le64(to + 48, (uint64_t)identity->born_ns);
    store_le64(to + 56, identity->sectors_written);
    store_le64(to + 64, (uint64_t)identity->durable_modified_ns);
    memcpy(to + 72, identity->samples, IDENTITY_SAMPLE_BYTES);
}

static void encode_point(const struct bitmap_point *point, uint8_t *to)
{
    memcpy(to, point->txid.bytes, JOURNAL_ID_BYTES);
    memcpy(to + JOURNAL_ID_BYTES, point->disk.bytes, JOURNAL_ID_BYTES);
}

static uint8_t *encode_pages(const struct tracked_bitmap *bitmap,
                             enum tracked_set set,
                             uint8_t *to)
{
    for (uint32_t i = 0; i < bitmap->page_count; i++, to += 8) {
        store_le32(to, bitmap->pages[set][i].number);
        store_le32(to + 4, bitmap->pages[set][i].crc);
    }
    return to;
}

static uint32_t flags_of_bitmap(const struct tracked_bitmap *bitmap)
{
    return (bitmap->recording ? BITMAP_RECORDING : 0) |
           (bitmap->inconsistent ? BITMAP_INCONSISTENT : 0) |
           (bitmap->has_second ? BITMAP_HAS_SECOND : 0);
}

static void encode_bitmap(const struct tracked_bitmap *bitmap, GByteArray *to)
{
    size_t name_bytes = text_bytes(bitmap->name);
    size_t reason_bytes = text_bytes(bitmap->reason);
    uint64_t bytes = tracked_bitmap_encoded_bytes(
        bitmap->page_count, bitmap->has_second, name_bytes, reason_bytes);
    const struct tracked_change *change = &bitmap->change;
    guint start = to->len;
    uint8_t *entry;
    uint8_t *at;

    g_byte_array_set_size(to, start + (guint)bytes);
    entry = to->data + start;
    memset(entry, 0, bytes);
    store_le32(entry, (uint32_t)bytes);
    store_le32(entry + 4, bitmap->id);
    store_le32(entry + 8, flags_of_bitmap(bitmap));
    entry[12] = (uint8_t)bitmap->granularity_shift;
    entry[13] = (uint8_t)bitmap->base.kind;
    entry[14] = (uint8_t)change->kind;
    entry[15] = (uint8_t)change->state;
    entry[16] = (uint8_t)change->mode;
    store_le32(entry + 20, change->segment.part);
    memcpy(entry + 24, change->segment.run.bytes, JOURNAL_ID_BYTES);
    memcpy(entry + 40, change->txid.bytes, JOURNAL_ID_BYTES);
    encode_point(&bitmap->base.points[0], entry + 56);
    encode_point(&bitmap->base.points[1], entry + 88);
    store_le32(entry + 120, bitmap->page_count);
    store_le16(entry + 124, (uint16_t)name_bytes);
    store_le16(entry + 126, (uint16_t)reason_bytes);
    at = encode_pages(bitmap, TRACKED_FIRST, entry + ENTRY_BYTES);
    if (bitmap->has_second) {
        at = encode_pages(bitmap, TRACKED_SECOND, at);
    }
    memcpy(at, bitmap->name, name_bytes);
    if (reason_bytes > 0) {
        memcpy(at + name_bytes, bitmap->reason, reason_bytes);
    }
}

static uint32_t flags_of(const struct tracking_superblock *superblock)
{
    return (superblock->is_clean ? FLAG_CLEAN : 0) |
           (superblock->is_poisoned ? FLAG_POISONED : 0) |
           (superblock->is_process ? FLAG_PROCESS : 0) |
           (superblock->is_resizing ? FLAG_RESIZING : 0);
}

static void encode_fixed(const struct tracking_superblock *superblock,
                         uint8_t *to)
{
    memcpy(to, superblock_magic, sizeof(superblock_magic));
    store_le64(to + 16, superblock->sequence);
    memcpy(to + 24, superblock->disk_id.bytes, JOURNAL_ID_BYTES);
    store_le64(to + 40, superblock->size_bytes);
    store_le32(to + 48, flags_of(superblock));
    store_le32(to + 52, superblock->bitmaps->len);
    store_le32(to + 56, superblock->next_bitmap_id);
    store_le32(to + 60, (uint32_t)text_bytes(superblock->reason));
    memcpy(to + 64, superblock->boot_id, STORAGE_BOOT_ID_BYTES);
    store_le64(to + 80, superblock->resize_old_bytes);
    store_le64(to + 88, superblock->resize_new_bytes);
    encode_identity(&superblock->identity, to + 96);
    memcpy(to + 200, superblock->stamps.old_nonce.bytes, JOURNAL_ID_BYTES);
    memcpy(to + 216, superblock->stamps.new_nonce.bytes, JOURNAL_ID_BYTES);
    memcpy(to + 232, superblock->layer,
           strnlen(superblock->layer, TRACKING_LAYER_BYTES));
}

GByteArray *tracking_superblock_encode(
    const struct tracking_superblock *superblock)
{
    GByteArray *to = g_byte_array_new();

    g_byte_array_set_size(to, FIXED_BYTES);
    memset(to->data, 0, FIXED_BYTES);
    encode_fixed(superblock, to->data);
    for (guint i = 0; i < superblock->bitmaps->len; i++) {
        encode_bitmap(g_ptr_array_index(superblock->bitmaps, i), to);
    }
    if (superblock->reason != NULL) {
        g_byte_array_append(to, (const guint8 *)superblock->reason,
                            (guint)strlen(superblock->reason));
    }
    store_le32(to->data + 12, to->len);
    store_le32(to->data + 8, crc32c(0, to->data, to->len));
    return to;
}

/*
 * Decoding.
 */

static void decode_identity(const uint8_t *from, struct identity *ret)
{
    ret->kind = load_le32(from) <= IDENTITY_DEVICE
                    ? (enum identity_kind)load_le32(from)
                    : IDENTITY_NONE;
    ret->below = load_le32(from + 4);
    ret->size_bytes = load_le64(from + 8);
    ret->modified_ns = (int64_t)load_le64(from + 16);
    ret->changed_ns = (int64_t)load_le64(from + 24);
    ret->device = load_le64(from + 32);
    ret->inode = load_le64(from + 40);
    ret->born_ns = (int64_t)load_le64(from + 48);
    ret->sectors_written = load_le64(from + 56);
    ret->durable_modified_ns = (int64_t)load_le64(from + 64);
    memcpy(ret->samples, from + 72, IDENTITY_SAMPLE_BYTES);
}

static void decode_point(const uint8_t *from, struct bitmap_point *ret)
{
    memcpy(ret->txid.bytes, from, JOURNAL_ID_BYTES);
    memcpy(ret->disk.bytes, from + JOURNAL_ID_BYTES, JOURNAL_ID_BYTES);
}

/* False when a word has no meaning. */
static bool decode_words(const uint8_t *entry, struct tracked_bitmap *bitmap)
{
    uint32_t flags = load_le32(entry + 8);
    struct tracked_change *change = &bitmap->change;

    if (entry[12] < 9 || entry[12] > 31 || entry[13] > BITMAP_BASE_EITHER ||
        entry[14] > TRACKER_CHANGE_MERGE || entry[15] > TRACKED_PREPARED ||
        entry[16] > TRACKER_ALWAYS) {
        return false;
    }
    bitmap->id = load_le32(entry + 4);
    bitmap->recording = (flags & BITMAP_RECORDING) != 0;
    bitmap->inconsistent = (flags & BITMAP_INCONSISTENT) != 0;
    bitmap->has_second = (flags & BITMAP_HAS_SECOND) != 0;
    bitmap->granularity_shift = entry[12];
    bitmap->base.kind = (enum bitmap_base_kind)entry[13];
    decode_point(entry + 56, &bitmap->base.points[0]);
    decode_point(entry + 88, &bitmap->base.points[1]);
    change->kind = (enum tracker_change)entry[14];
    change->state = (enum tracked_change_state)entry[15];
    change->mode = (enum tracker_mode)entry[16];
    change->segment.part = load_le32(entry + 20);
    memcpy(change->segment.run.bytes, entry + 24, JOURNAL_ID_BYTES);
    memcpy(change->txid.bytes, entry + 40, JOURNAL_ID_BYTES);
    return true;
}

static const uint8_t *decode_pages(struct tracked_bitmap *bitmap,
                                   enum tracked_set set,
                                   const struct tracking_layout *layout,
                                   const uint8_t *from)
{
    bitmap->pages[set] = g_new0(struct tracked_page, bitmap->page_count);
    for (uint32_t i = 0; i < bitmap->page_count; i++, from += 8) {
        bitmap->pages[set][i].number = load_le32(from);
        bitmap->pages[set][i].crc = load_le32(from + 4);
        if (bitmap->pages[set][i].number > layout->page_count) {
            return NULL;
        }
    }
    return from;
}

/* The bytes of the entry at `from`; 0: it makes no sense. */
static uint64_t decode_bitmap(const uint8_t *from,
                              uint64_t left,
                              const struct tracking_layout *layout,
                              struct tracked_bitmap *bitmap)
{
    size_t name_bytes, reason_bytes;
    uint64_t bytes;

    if (left < ENTRY_BYTES || !decode_words(from, bitmap)) {
        return 0;
    }
    name_bytes = load_le16(from + 124);
    reason_bytes = load_le16(from + 126);
    bitmap->page_count = load_le32(from + 120);
    bytes = tracked_bitmap_encoded_bytes(bitmap->page_count, bitmap->has_second,
                                         name_bytes, reason_bytes);
    if (bytes > left || bytes != load_le32(from) ||
        name_bytes > LIMIT_BITMAP_NAME_BYTES) {
        return 0;
    }
    from = decode_pages(bitmap, TRACKED_FIRST, layout, from + ENTRY_BYTES);
    if (from != NULL && bitmap->has_second) {
        from = decode_pages(bitmap, TRACKED_SECOND, layout, from);
    }
    if (from == NULL) {
        return 0;
    }
    g_free(bitmap->name);
    bitmap->name = g_strndup((const char *)from, name_bytes);
    if (bitmap->inconsistent) {
        bitmap->reason =
            g_strndup((const char *)from + name_bytes, reason_bytes);
    }
    return bytes;
}

static void decode_fixed(const uint8_t *from,
                         struct tracking_superblock *superblock)
{
    uint32_t flags = load_le32(from + 48);

    superblock->sequence = load_le64(from + 16);
    superblock->size_bytes = load_le64(from + 40);
    superblock->is_clean = (flags & FLAG_CLEAN) != 0;
    superblock->is_poisoned = (flags & FLAG_POISONED) != 0;
    superblock->is_process = (flags & FLAG_PROCESS) != 0;
    superblock->is_resizing = (flags & FLAG_RESIZING) != 0;
    superblock->next_bitmap_id = load_le32(from + 56);
    memcpy(superblock->boot_id, from + 64, STORAGE_BOOT_ID_BYTES);
    superblock->resize_old_bytes = load_le64(from + 80);
    superblock->resize_new_bytes = load_le64(from + 88);
    decode_identity(from + 96, &superblock->identity);
    memcpy(superblock->stamps.old_nonce.bytes, from + 200, JOURNAL_ID_BYTES);
    memcpy(superblock->stamps.new_nonce.bytes, from + 216, JOURNAL_ID_BYTES);
    memcpy(superblock->layer, from + 232, TRACKING_LAYER_BYTES);
}

uint64_t tracking_superblock_length(const uint8_t *bytes,
                                    const struct tracking_layout *layout)
{
    uint64_t length = load_le32(bytes + 12);

    if (memcmp(bytes, superblock_magic, sizeof(superblock_magic)) != 0 ||
        memcmp(bytes + 24, layout->disk_id.bytes, JOURNAL_ID_BYTES) != 0 ||
        length < FIXED_BYTES || length > layout->slot_bytes) {
        return 0;
    }
    return length;
}

static bool crc_is_right(const uint8_t *bytes, uint64_t length)
{
    static const uint8_t zeroes[4];
    uint32_t crc = crc32c(0, bytes, 8);

    crc = crc32c(crc, zeroes, sizeof(zeroes));
    crc = crc32c(crc, bytes + 12, length - 12);
    return crc == load_le32(bytes + 8);
}

struct tracking_superblock *tracking_superblock_decode(
    const uint8_t *bytes,
    uint64_t length,
    const struct tracking_layout *layout)
{
    g_autoptr(tracking_superblock) superblock = tracking_superblock_new();
    uint32_t count, reason_bytes;
    uint64_t at = FIXED_BYTES;

    if (length < FIXED_BYTES ||
        tracking_superblock_length(bytes, layout) != length ||
        !crc_is_right(bytes, length)) {
        return NULL;
    }
    superblock->disk_id = layout->disk_id;
    decode_fixed(bytes, superblock);
    count = load_le32(bytes + 52);
    reason_bytes = load_le32(bytes + 60);
    for (uint32_t i = 0; i < count; i++) {
        struct tracked_bitmap *bitmap = tracked_bitmap_new("");
        uint64_t entry = decode_bitmap(bytes + at, length - at, layout, bitmap);

        g_ptr_array_add(superblock->bitmaps, bitmap);
        if (entry == 0) {
            return NULL;
        }
        at += entry;
    }
    if (reason_bytes > length - at ||
        superblock->size_bytes > LIMIT_DISK_BYTES) {
        return NULL;
    }
    if (superblock->is_poisoned) {
        superblock->reason = g_strndup((const char *)bytes + at, reason_bytes);
    }
    return g_steal_pointer(&superblock);
}
