/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes of the commit log: what is written is read, and nothing else. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "journal/commit_log_format.h"

static const struct journal_id txid = { { 1, 2, 3 } };
static const struct journal_id disk = { { 9 } };

struct reading {
    GString *seen; /* types of records, as digits */
    struct commit_transaction *last;
};

static int note(void *opaque, struct commit_record *record, GError **err)
{
    struct reading *reading = opaque;

    (void)err;
    g_string_append_printf(reading->seen, "%d", (int)record->type);
    if (record->transaction != NULL) {
        commit_transaction_free(reading->last);
        reading->last = g_steal_pointer(&record->transaction);
    }
    return 0;
}

static struct commit_transaction *make_transaction(void)
{
    struct commit_transaction *transaction =
        commit_transaction_new(&txid, "a label", 77);
    struct commit_member *member =
        commit_transaction_add(transaction, &disk, "node", "job", "bitmap");

    member->gets_base = true;
    member->old_base.kind = BITMAP_BASE_EITHER;
    member->old_base.points[0].txid.bytes[0] = 5;
    member->old_base.points[1].disk.bytes[0] = 6;
    (void)commit_transaction_add(transaction, &disk, "n", "", "b");
    return transaction;
}

/* A log of `frames` frames, each with one BEGIN; their ends as offsets. */
static GByteArray *make_log(uint32_t frames, uint64_t *ends)
{
    const struct commit_header header = { .kind = COMMIT_FILE_LOG,
                                          .run = { { 4 } } };
    struct commit_transaction *transaction = make_transaction();
    GByteArray *log = g_byte_array_new();

    g_byte_array_set_size(log, COMMIT_HEADER_BYTES);
    commit_header_encode(&header, log->data);
    for (uint32_t i = 0; i < frames; i++) {
        g_autoptr(GByteArray) payload = g_byte_array_new();
        g_autoptr(GByteArray) frame = NULL;

        commit_payload_add_transaction(payload, COMMIT_RECORD_BEGIN,
                                       transaction);
        frame = commit_frame_encode(&header, i, payload);
        g_byte_array_append(log, frame->data, frame->len);
        ends[i] = log->len;
    }
    commit_transaction_free(transaction);
    return log;
}

/* 0 or the error; the records seen. */
static int parse(const uint8_t *bytes,
                 uint64_t size,
                 struct reading *reading,
                 struct commit_file_end *ret_end)
{
    struct commit_header header;

    *reading = (struct reading){ .seen = g_string_new(NULL) };
    return commit_file_parse(bytes, size, "log", note, reading, &header,
                             ret_end, NULL);
}

static void reading_release(struct reading *reading)
{
    commit_transaction_free(reading->last);
    g_string_free(reading->seen, TRUE);
}

static void test_what_is_written_is_read(void **state)
{
    uint64_t ends[1];
    g_autoptr(GByteArray) log = make_log(1, ends);
    struct reading reading;
    struct commit_file_end end;
    const struct commit_member *member;

    (void)state;
    assert_int_equal(parse(log->data, log->len, &reading, &end), 0);
    assert_string_equal(reading.seen->str, "1");
    assert_int_equal(end.offset, ends[0]);
    assert_string_equal(reading.last->client_id, "a label");
    assert_int_equal(reading.last->began_us, 77);
    assert_int_equal(reading.last->members->len, 2);
    member = g_ptr_array_index(reading.last->members, 0);
    assert_string_equal(member->bitmap, "bitmap");
    assert_true(member->gets_base);
    assert_int_equal(member->old_base.kind, BITMAP_BASE_EITHER);
    assert_int_equal(member->old_base.points[1].disk.bytes[0], 6);
    member = g_ptr_array_index(reading.last->members, 1);
    assert_string_equal(member->job, "");
    assert_int_equal(member->old_base.kind, BITMAP_BASE_NONE);
    reading_release(&reading);
}

static void test_a_torn_last_frame_is_absent(void **state)
{
    uint64_t ends[3];
    g_autoptr(GByteArray) log = make_log(3, ends);

    (void)state;
    /* Cut short, or with any byte of it wrong. */
    for (uint64_t at = ends[1]; at < ends[2]; at++) {
        struct reading reading;
        struct commit_file_end end;

        assert_int_equal(parse(log->data, at, &reading, &end), 0);
        assert_string_equal(reading.seen->str, "11");
        assert_int_equal(end.offset, ends[1]);
        reading_release(&reading);
    }
}

static void test_damage_before_a_good_frame_is_told(void **state)
{
    uint64_t ends[3];
    g_autoptr(GByteArray) log = make_log(3, ends);

    (void)state;
    for (uint64_t at = COMMIT_HEADER_BYTES; at < ends[0]; at += 3) {
        struct reading reading;
        struct commit_file_end end;

        log->data[at] ^= 0x40;
        assert_int_equal(parse(log->data, log->len, &reading, &end), -EINVAL);
        log->data[at] ^= 0x40;
        reading_release(&reading);
    }
}

static void test_a_frame_of_another_file_does_not_count(void **state)
{
    uint64_t ends[2];
    g_autoptr(GByteArray) log = make_log(2, ends);
    struct commit_header header = { .kind = COMMIT_FILE_LOG, .run = { { 5 } } };
    struct reading reading;
    struct commit_file_end end;

    (void)state;
    commit_header_encode(&header, log->data);
    assert_int_equal(parse(log->data, log->len, &reading, &end), 0);
    assert_string_equal(reading.seen->str, "");
    reading_release(&reading);
}

static void test_a_newer_version_is_refused_by_name(void **state)
{
    struct commit_header header = { .kind = COMMIT_FILE_LOG };
    uint8_t bytes[COMMIT_HEADER_BYTES];
    g_autoptr(GError) err = NULL;

    (void)state;
    commit_header_encode(&header, bytes);
    assert_int_equal(load_le16(bytes + 8), 1);
    assert_int_equal(
        commit_header_decode(bytes, sizeof(bytes), "log", &header, &err), 0);
    bytes[8] = 2;
    store_le32(bytes + 124, crc32c(0, bytes, 124));
    assert_int_equal(
        commit_header_decode(bytes, sizeof(bytes), "log", &header, &err),
        -ENOTSUP);
    assert_non_null(strstr(err->message, "version 2"));
}

/* Any bytes with a right CRC: reading stays within them and ends. */
static void test_nonsense_in_a_good_frame_is_damage(void **state)
{
    const struct commit_header header = { .kind = COMMIT_FILE_LOG,
                                          .run = { { 4 } } };
    uint64_t ends[1];
    g_autoptr(GByteArray) good = make_log(1, ends);
    uint64_t payload_at = COMMIT_HEADER_BYTES + 16;
    uint32_t payload_bytes = load_le32(good->data + COMMIT_HEADER_BYTES + 4);

    (void)state;
    for (uint32_t at = 0; at < payload_bytes; at++) {
        g_autoptr(GByteArray) payload = g_byte_array_new();
        g_autoptr(GByteArray) frame = NULL;
        g_autoptr(GByteArray) log = g_byte_array_new();
        struct reading reading;
        struct commit_file_end end;

        g_byte_array_append(payload, good->data + payload_at, payload_bytes);
        payload->data[at] = 0xff;
        frame = commit_frame_encode(&header, 0, payload);
        g_byte_array_append(log, good->data, COMMIT_HEADER_BYTES);
        g_byte_array_append(log, frame->data, frame->len);
        (void)parse(log->data, log->len, &reading, &end);
        reading_release(&reading);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_a_torn_last_frame_is_absent),
        cmocka_unit_test(test_damage_before_a_good_frame_is_told),
        cmocka_unit_test(test_a_frame_of_another_file_does_not_count),
        cmocka_unit_test(test_a_newer_version_is_refused_by_name),
        cmocka_unit_test(test_nonsense_in_a_good_frame_is_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
