/* SPDX-License-Identifier: BSD-3-Clause */
/* Records of the commit log: docs/reference/commit-log.md, "Records". */
#include "journal/commit_log_format.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "journal/commit_log_priv.h"

#define PREFIX_BYTES       8
#define ALIGN              8
#define TRANSACTION_FIXED  48
#define MEMBER_FIXED       96
#define MEMBER_GETS_BASE   1
#define MEMBER_EITHER_BASE 2
#define MEMBER_KEEPS_BASE  4
#define ACKNOWLEDGED_BYTES 48

_Static_assert(LIMIT_BITMAP_NAME_BYTES <= UINT16_MAX, "must fit its field");

/* --- Transactions ------------------------------------------------------------ */

static void free_member(void *opaque)
{
    struct commit_member *member = opaque;

    g_free(member->node);
    g_free(member->job);
    g_free(member->bitmap);
    g_free(member);
}

struct commit_transaction *commit_transaction_new(const struct journal_id *txid,
                                                  const char *client_id,
                                                  uint64_t began_us)
{
    struct commit_transaction *transaction =
        g_new0(struct commit_transaction, 1);

    transaction->txid = *txid;
    transaction->client_id = g_strdup(client_id);
    transaction->began_us = began_us;
    transaction->members = g_ptr_array_new_with_free_func(free_member);
    return transaction;
}

void commit_transaction_free(struct commit_transaction *transaction)
{
    if (transaction != NULL) {
        g_ptr_array_unref(transaction->members);
        g_free(transaction->client_id);
        g_free(transaction);
    }
}

struct commit_member *commit_transaction_add(
    struct commit_transaction *transaction,
    const struct journal_id *disk,
    const char *node,
    const char *job,
    const char *bitmap)
{
    struct commit_member *member = g_new0(struct commit_member, 1);

    member->disk = *disk;
    member->node = g_strdup(node);
    member->job = g_strdup(job);
    member->bitmap = g_strdup(bitmap);
    g_ptr_array_add(transaction->members, member);
    return member;
}

bool commit_transaction_acknowledge(struct commit_transaction *transaction,
                                    const struct journal_id *disk_or_null)
{
    bool is_new = false;

    if (disk_or_null == NULL) {
        is_new = !transaction->client_acknowledged;
        transaction->client_acknowledged = true;
        return is_new;
    }
    for (guint i = 0; i < transaction->members->len; i++) {
        struct commit_member *member =
            g_ptr_array_index(transaction->members, i);

        if (journal_id_equal(&member->disk, disk_or_null)) {
            is_new |= !member->acknowledged;
            member->acknowledged = true;
        }
    }
    return is_new;
}

bool commit_transaction_is_over(const struct commit_transaction *transaction)
{
    if (transaction->client_id[0] != '\0' &&
        !transaction->client_acknowledged) {
        return false;
    }
    if (transaction->verdict == COMMIT_VERDICT_ABORTED) {
        return true; /* what is not found is aborted */
    }
    for (guint i = 0; i < transaction->members->len; i++) {
        const struct commit_member *member =
            g_ptr_array_index(transaction->members, i);

        if (!member->acknowledged) {
            return false;
        }
    }
    return true;
}

/* --- Writing ------------------------------------------------------------------- */

/* Room for `bytes` more, zeroed. */
static uint8_t *grow(GByteArray *payload, uint64_t bytes)
{
    guint before = payload->len;

    g_byte_array_set_size(payload, before + (guint)bytes);
    memset(payload->data + before, 0, bytes);
    return payload->data + before;
}

static uint8_t *start_record(GByteArray *payload,
                             enum commit_record_type type,
                             uint64_t bytes)
{
    uint8_t *record = grow(payload, bytes);

    store_le16(record, (uint16_t)type);
    store_le32(record + 4, (uint32_t)bytes);
    return record;
}

static uint64_t member_bytes(const struct commit_member *member)
{
    return MEMBER_FIXED + round_up(strlen(member->node) + strlen(member->job) +
                                       strlen(member->bitmap),
                                   ALIGN);
}

static void put_point(uint8_t *at, const struct bitmap_point *point)
{
    memcpy(at, point->txid.bytes, JOURNAL_ID_BYTES);
    memcpy(at + 16, point->disk.bytes, JOURNAL_ID_BYTES);
}

/* Into the zeroed fixed part of a member. */
static void put_base(uint8_t *member, const struct bitmap_base *base)
{
    if (base->kind != BITMAP_BASE_NONE) {
        put_point(member + 16, &base->points[0]);
    }
    if (base->kind == BITMAP_BASE_EITHER) {
        put_point(member + 48, &base->points[1]);
        store_le32(member + 80, MEMBER_EITHER_BASE);
    }
}

static uint8_t *put_member(uint8_t *at, const struct commit_member *member)
{
    size_t node_bytes = strlen(member->node);
    size_t job_bytes = strlen(member->job);
    size_t bitmap_bytes = strlen(member->bitmap);

    memcpy(at, member->disk.bytes, JOURNAL_ID_BYTES);
    put_base(at, &member->old_base);
    store_le32(at + 80, load_le32(at + 80) |
                            (member->gets_base ? MEMBER_GETS_BASE : 0) |
                            (member->keeps_base ? MEMBER_KEEPS_BASE : 0));
    store_le16(at + 84, (uint16_t)node_bytes);
    store_le16(at + 86, (uint16_t)job_bytes);
    store_le16(at + 88, (uint16_t)bitmap_bytes);
    memcpy(at + MEMBER_FIXED, member->node, node_bytes);
    memcpy(at + MEMBER_FIXED + node_bytes, member->job, job_bytes);
    memcpy(at + MEMBER_FIXED + node_bytes + job_bytes, member->bitmap,
           bitmap_bytes);
    return at + member_bytes(member);
}

void commit_payload_add_transaction(
    GByteArray *payload,
    enum commit_record_type type,
    const struct commit_transaction *transaction)
{
    size_t client_bytes = strlen(transaction->client_id);
    uint64_t bytes = TRANSACTION_FIXED + round_up(client_bytes, ALIGN);
    uint8_t *at;

    for (guint i = 0; i < transaction->members->len; i++) {
        bytes += member_bytes(g_ptr_array_index(transaction->members, i));
    }
    at = start_record(payload, type, bytes);
    memcpy(at + 8, transaction->txid.bytes, JOURNAL_ID_BYTES);
    store_le64(at + 24, transaction->began_us);
    store_le32(at + 32, type == COMMIT_RECORD_OUTCOME
                            ? (uint32_t)transaction->verdict
                            : 0);
    store_le16(at + 36, (uint16_t)client_bytes);
    store_le32(at + 40, transaction->members->len);
    memcpy(at + TRANSACTION_FIXED, transaction->client_id, client_bytes);
    at += TRANSACTION_FIXED + round_up(client_bytes, ALIGN);
    for (guint i = 0; i < transaction->members->len; i++) {
        at = put_member(at, g_ptr_array_index(transaction->members, i));
    }
}

static void add_id_and_time(GByteArray *payload,
                            enum commit_record_type type,
                            const struct journal_id *id,
                            uint64_t time_us)
{
    uint8_t *at = start_record(payload, type, 32);

    memcpy(at + 8, id->bytes, JOURNAL_ID_BYTES);
    store_le64(at + 24, time_us);
}

void commit_payload_add_abort(GByteArray *payload,
                              const struct journal_id *txid,
                              uint64_t time_us)
{
    add_id_and_time(payload, COMMIT_RECORD_ABORT, txid, time_us);
}

void commit_payload_add_retired(GByteArray *payload,
                                const struct journal_id *run,
                                uint64_t time_us)
{
    add_id_and_time(payload, COMMIT_RECORD_RETIRED, run, time_us);
}

void commit_payload_add_acknowledged(GByteArray *payload,
                                     const struct journal_id *txid,
                                     const struct journal_id *disk_or_null)
{
    uint8_t *at =
        start_record(payload, COMMIT_RECORD_ACKNOWLEDGED, ACKNOWLEDGED_BYTES);

    memcpy(at + 8, txid->bytes, JOURNAL_ID_BYTES);
    store_le32(at + 24, disk_or_null == NULL ? 1 : 0);
    if (disk_or_null != NULL) {
        memcpy(at + 32, disk_or_null->bytes, JOURNAL_ID_BYTES);
    }
}

void commit_payload_add_damaged(GByteArray *payload, const char *text)
{
    size_t text_bytes = MIN(strlen(text), UINT16_MAX);
    uint8_t *at = start_record(payload, COMMIT_RECORD_DAMAGED,
                               16 + round_up(text_bytes, ALIGN));

    store_le16(at + 8, (uint16_t)text_bytes);
    memcpy(at + 16, text, text_bytes);
}

/* --- Reading ------------------------------------------------------------------- */

/* A record on its way out; what is left of it. */
struct cursor {
    const uint8_t *at;
    uint64_t left;
};

static const uint8_t *take(struct cursor *cursor, uint64_t bytes)
{
    const uint8_t *at = cursor->at;

    if (bytes > cursor->left) {
        return NULL;
    }
    cursor->at += bytes;
    cursor->left -= bytes;
    return at;
}

static void load_id(struct journal_id *id, const uint8_t *from)
{
    memcpy(id->bytes, from, JOURNAL_ID_BYTES);
}

static void load_point(struct bitmap_point *point, const uint8_t *from)
{
    load_id(&point->txid, from);
    load_id(&point->disk, from + 16);
}

static void load_base(struct bitmap_base *base, const uint8_t *member)
{
    load_point(&base->points[0], member + 16);
    if ((load_le32(member + 80) & MEMBER_EITHER_BASE) != 0) {
        base->kind = BITMAP_BASE_EITHER;
        load_point(&base->points[1], member + 48);
    } else {
        base->kind = journal_id_is_none(&base->points[0].txid)
                         ? BITMAP_BASE_NONE
                         : BITMAP_BASE_ONE;
    }
}

static bool take_member(struct cursor *cursor,
                        struct commit_transaction *transaction)
{
    const uint8_t *fixed = take(cursor, MEMBER_FIXED);
    uint64_t node_bytes, job_bytes, bitmap_bytes;
    const char *names;
    struct commit_member *member;

    if (fixed == NULL) {
        return false;
    }
    node_bytes = load_le16(fixed + 84);
    job_bytes = load_le16(fixed + 86);
    bitmap_bytes = load_le16(fixed + 88);
    names = (const char *)take(
        cursor, round_up(node_bytes + job_bytes + bitmap_bytes, ALIGN));
    if (names == NULL) {
        return false;
    }
    member = g_new0(struct commit_member, 1);
    load_id(&member->disk, fixed);
    load_base(&member->old_base, fixed);
    member->gets_base = (load_le32(fixed + 80) & MEMBER_GETS_BASE) != 0;
    member->keeps_base = (load_le32(fixed + 80) & MEMBER_KEEPS_BASE) != 0;
    member->node = g_strndup(names, node_bytes);
    member->job = g_strndup(names + node_bytes, job_bytes);
    member->bitmap = g_strndup(names + node_bytes + job_bytes, bitmap_bytes);
    g_ptr_array_add(transaction->members, member);
    return true;
}

static bool take_transaction(struct cursor *cursor,
                             struct commit_record *record)
{
    const uint8_t *fixed = take(cursor, TRANSACTION_FIXED - PREFIX_BYTES);
    const char *client_id;
    uint32_t verdict, members;
    g_autofree char *copy = NULL;

    if (fixed == NULL) {
        return false;
    }
    verdict = load_le32(fixed + 24);
    members = load_le32(fixed + 32);
    client_id =
        (const char *)take(cursor, round_up(load_le16(fixed + 28), ALIGN));
    if (client_id == NULL || members == 0 || members > COMMIT_MEMBERS_MAX ||
        verdict > COMMIT_VERDICT_UNKNOWN ||
        (verdict == 0) == (record->type == COMMIT_RECORD_OUTCOME)) {
        return false;
    }
    load_id(&record->txid, fixed);
    copy = g_strndup(client_id, load_le16(fixed + 28));
    record->transaction =
        commit_transaction_new(&record->txid, copy, load_le64(fixed + 16));
    record->transaction->verdict = (enum commit_verdict)verdict;
    while (record->transaction->members->len < members) {
        if (!take_member(cursor, record->transaction)) {
            return false;
        }
    }
    return true;
}

static bool take_id_and_time(struct cursor *cursor,
                             struct commit_record *record)
{
    const uint8_t *fixed = take(cursor, 24);

    if (fixed == NULL) {
        return false;
    }
    load_id(&record->txid, fixed);
    record->time_us = load_le64(fixed + 16);
    return true;
}

static bool take_acknowledged(struct cursor *cursor,
                              struct commit_record *record)
{
    const uint8_t *fixed = take(cursor, ACKNOWLEDGED_BYTES - PREFIX_BYTES);

    if (fixed == NULL || load_le32(fixed + 16) > 1) {
        return false;
    }
    load_id(&record->txid, fixed);
    record->by_client = load_le32(fixed + 16) == 1;
    load_id(&record->disk, fixed + 24);
    return true;
}

/* `*ret_text`: owned by the caller. */
static bool take_damaged(struct cursor *cursor, char **ret_text)
{
    const uint8_t *fixed = take(cursor, 8);
    const char *text = NULL;

    if (fixed != NULL) {
        text = (const char *)take(cursor, round_up(load_le16(fixed), ALIGN));
    }
    if (text == NULL) {
        return false;
    }
    *ret_text = g_strndup(text, load_le16(fixed));
    return true;
}

static bool take_body(struct cursor *cursor,
                      unsigned int type,
                      struct commit_record *record,
                      char **ret_text)
{
    record->type = (enum commit_record_type)type;
    switch (type) {
    case COMMIT_RECORD_BEGIN:
    case COMMIT_RECORD_COMMIT:
    case COMMIT_RECORD_OUTCOME: return take_transaction(cursor, record);
    case COMMIT_RECORD_ABORT:
    case COMMIT_RECORD_RETIRED: return take_id_and_time(cursor, record);
    case COMMIT_RECORD_ACKNOWLEDGED: return take_acknowledged(cursor, record);
    case COMMIT_RECORD_DAMAGED: return take_damaged(cursor, ret_text);
    default: return false;
    }
}

/* One record; its bytes are taken from the cursor. */
static int parse_record(struct cursor *cursor,
                        const char *name,
                        commit_record_fn call,
                        void *opaque,
                        GError **err)
{
    struct commit_record record = { 0 };
    g_autofree char *text = NULL;
    const uint8_t *prefix = take(cursor, PREFIX_BYTES);
    uint32_t bytes = prefix == NULL ? 0 : load_le32(prefix + 4);
    struct cursor body = { 0 };
    int ret = -EINVAL;

    if (bytes >= PREFIX_BYTES && bytes % ALIGN == 0) {
        body.left = bytes - PREFIX_BYTES;
        body.at = take(cursor, body.left);
    }
    if (body.at != NULL &&
        take_body(&body, load_le16(prefix), &record, &text) && body.left == 0) {
        record.text = text;
        ret = call(opaque, &record, err);
    } else {
        error_set(err, ret, "'%s' is damaged: it has a record of no known form",
                  name);
    }
    commit_transaction_free(record.transaction);
    return ret;
}

int commit_payload_parse(const uint8_t *bytes,
                         uint64_t size,
                         const char *name,
                         commit_record_fn call,
                         void *opaque,
                         GError **err)
{
    struct cursor cursor = { .at = bytes, .left = size };
    int ret = 0;

    while (ret == 0 && cursor.left > 0) {
        ret = parse_record(&cursor, name, call, opaque, err);
    }
    return ret;
}
