/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Headers and frames; what is in a frame is commit_log_record.c.
 *
 * A file is read frame by frame until one is not good. If no good frame follows
 * anywhere, that was the end, and perhaps a write that a crash cut short. If one
 * follows, something that had been synced is gone: damage.
 */
#include "journal/commit_log_format.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "journal/commit_log_priv.h"

#define MAGIC         "COHORTCL"
#define MAGIC_BYTES   8
#define FRAME_MAGIC   "CLfr"
#define FRAME_PREFIX  16
#define MAJOR_VERSION 1
#define HEADER_CRC    (COMMIT_HEADER_BYTES - 4)

void commit_header_encode(const struct commit_header *header,
                          uint8_t *ret_bytes)
{
    memset(ret_bytes, 0, COMMIT_HEADER_BYTES);
    memcpy(ret_bytes, MAGIC, MAGIC_BYTES);
    store_le16(ret_bytes + 8, MAJOR_VERSION);
    store_le32(ret_bytes + 12, header->part);
    memcpy(ret_bytes + 16, header->run.bytes, JOURNAL_ID_BYTES);
    store_le64(ret_bytes + 32, header->made_us);
    ret_bytes[40] = (uint8_t)header->kind;
    ret_bytes[41] = header->is_process;
    store_le32(ret_bytes + 44, header->first_part);
    memcpy(ret_bytes + 48, header->boot_id, STORAGE_BOOT_ID_BYTES);
    store_le32(ret_bytes + HEADER_CRC, crc32c(0, ret_bytes, HEADER_CRC));
}

int commit_header_decode(const uint8_t *bytes,
                         uint64_t size,
                         const char *name,
                         struct commit_header *ret_header,
                         GError **err)
{
    if (size < COMMIT_HEADER_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0 ||
        load_le32(bytes + HEADER_CRC) != crc32c(0, bytes, HEADER_CRC) ||
        bytes[40] > COMMIT_FILE_RETIRED || bytes[41] > 1) {
        return error_set(
            err, -EINVAL,
            "The header of '%s' is damaged, or it is no commit log", name);
    }
    if (load_le16(bytes + 8) != MAJOR_VERSION) {
        return error_set(err, -ENOTSUP,
                         "'%s' is a commit log of version %u; this program "
                         "knows version %d",
                         name, load_le16(bytes + 8), MAJOR_VERSION);
    }
    *ret_header = (struct commit_header){
        .kind = (enum commit_file_kind)bytes[40],
        .part = load_le32(bytes + 12),
        .first_part = load_le32(bytes + 44),
        .made_us = load_le64(bytes + 32),
        .is_process = bytes[41] == 1,
    };
    memcpy(ret_header->run.bytes, bytes + 16, JOURNAL_ID_BYTES);
    memcpy(ret_header->boot_id, bytes + 48, STORAGE_BOOT_ID_BYTES);
    return 0;
}

/* What of the header goes into each frame's CRC: part number and run, so that a
 * frame of another file is not good here. */
static uint32_t frame_crc(const uint8_t *header,
                          const uint8_t *frame,
                          const uint8_t *payload,
                          uint64_t payload_bytes)
{
    uint32_t crc = crc32c(0, frame, 12);

    crc = crc32c(crc, header + 12, 20);
    return crc32c(crc, payload, payload_bytes);
}

uint64_t commit_frame_bytes(uint64_t payload_bytes)
{
    return FRAME_PREFIX + round_up(payload_bytes, COMMIT_FRAME_ALIGN);
}

GByteArray *commit_frame_encode(const struct commit_header *header,
                                uint32_t number,
                                const GByteArray *payload)
{
    GByteArray *frame = g_byte_array_new();
    uint8_t encoded[COMMIT_HEADER_BYTES];

    g_assert(payload->len > 0 && payload->len <= COMMIT_PAYLOAD_BYTES_MAX);
    commit_header_encode(header, encoded);
    g_byte_array_set_size(frame, (guint)commit_frame_bytes(payload->len));
    memset(frame->data, 0, frame->len);
    memcpy(frame->data, FRAME_MAGIC, 4);
    store_le32(frame->data + 4, payload->len);
    store_le32(frame->data + 8, number);
    memcpy(frame->data + FRAME_PREFIX, payload->data, payload->len);
    store_le32(frame->data + 12,
               frame_crc(encoded, frame->data, payload->data, payload->len));
    return frame;
}

/* Is there a good frame at `offset`, whose number is at least `number`? */
static bool frame_is_good(const uint8_t *bytes,
                          uint64_t size,
                          uint64_t offset,
                          uint32_t number)
{
    const uint8_t *frame = bytes + offset;
    uint32_t payload_bytes;

    if (!bytes_range_within(offset, FRAME_PREFIX, size) ||
        memcmp(frame, FRAME_MAGIC, 4) != 0 || load_le32(frame + 8) < number) {
        return false;
    }
    payload_bytes = load_le32(frame + 4);
    return payload_bytes > 0 && payload_bytes <= COMMIT_PAYLOAD_BYTES_MAX &&
           bytes_range_within(offset, commit_frame_bytes(payload_bytes),
                              size) &&
           load_le32(frame + 12) ==
               frame_crc(bytes, frame, frame + FRAME_PREFIX, payload_bytes);
}

/* Nothing good after the place where the frames end? */
static int check_tail(const uint8_t *bytes,
                      uint64_t size,
                      const char *name,
                      const struct commit_file_end *end,
                      GError **err)
{
    for (uint64_t offset = end->offset + COMMIT_FRAME_ALIGN;
         bytes_range_within(offset, FRAME_PREFIX, size);
         offset += COMMIT_FRAME_ALIGN) {
        if (frame_is_good(bytes, size, offset, end->frames)) {
            return error_set(err, -EINVAL,
                             "'%s' is damaged: frame %" PRIu32 " at offset "
                             "%" PRIu64 " cannot be read, though a later one "
                             "can",
                             name, end->frames, end->offset);
        }
    }
    return 0;
}

int commit_file_parse(const uint8_t *bytes,
                      uint64_t size,
                      const char *name,
                      commit_record_fn call,
                      void *opaque,
                      struct commit_header *ret_header,
                      struct commit_file_end *ret_end,
                      GError **err)
{
    struct commit_file_end end = { .offset = COMMIT_HEADER_BYTES };
    int ret = commit_header_decode(bytes, size, name, ret_header, err);

    while (ret == 0 && frame_is_good(bytes, size, end.offset, end.frames) &&
           load_le32(bytes + end.offset + 8) == end.frames) {
        uint32_t payload_bytes = load_le32(bytes + end.offset + 4);

        ret = commit_payload_parse(bytes + end.offset + FRAME_PREFIX,
                                   payload_bytes, name, call, opaque, err);
        end.offset += commit_frame_bytes(payload_bytes);
        end.frames++;
    }
    if (ret == 0) {
        ret = check_tail(bytes, size, name, &end, err);
    }
    if (ret == 0) {
        *ret_end = end;
    }
    return ret;
}
