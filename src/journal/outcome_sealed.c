/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One dead run: read from its log, or from its sealed file; written as such.
 *
 * Reading a log gathers, for each transaction, whether it has a COMMIT and
 * whether it has an ABORT in any part; the verdict follows when all parts are
 * read: ABORT beats COMMIT, none is aborted, damage makes all else unknown.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/trace.h"
#include "journal/outcome_priv.h"
#include "loop/loop.h"

/* --- In memory -------------------------------------------------------------------- */

static guint hash_id(gconstpointer key)
{
    const struct journal_id *id = key;
    guint hash;

    memcpy(&hash, id->bytes, sizeof(hash)); /* random already */
    return hash;
}

static gboolean equal_ids(gconstpointer a, gconstpointer b)
{
    return journal_id_equal(a, b);
}

static void free_transaction(gpointer transaction)
{
    commit_transaction_free(transaction);
}

struct sealed_run *sealed_run_new(const struct journal_id *run)
{
    struct sealed_run *sealed = g_new0(struct sealed_run, 1);

    sealed->run = *run;
    sealed->transactions = g_ptr_array_new_with_free_func(free_transaction);
    sealed->by_txid = g_hash_table_new(hash_id, equal_ids);
    return sealed;
}

void sealed_run_free(struct sealed_run *run)
{
    if (run != NULL) {
        g_hash_table_unref(run->by_txid);
        g_ptr_array_unref(run->transactions);
        g_free(run->damage);
        g_free(run);
    }
}

void sealed_run_set_damaged(struct sealed_run *run, const char *text)
{
    if (run->damage == NULL) {
        run->damage = g_strdup(text);
    }
}

struct commit_transaction *sealed_run_find(const struct sealed_run *run,
                                           const struct journal_id *txid)
{
    return g_hash_table_lookup(run->by_txid, txid);
}

/* Takes the record's transaction, unless there is one of its txid. */
static struct commit_transaction *add(struct sealed_run *run,
                                      struct commit_record *record)
{
    struct commit_transaction *known = sealed_run_find(run, &record->txid);

    if (known == NULL) {
        known = g_steal_pointer(&record->transaction);
        g_ptr_array_add(run->transactions, known);
        g_hash_table_insert(run->by_txid, &known->txid, known);
    }
    return known;
}

/* --- From a log ------------------------------------------------------------------- */

struct log_reading {
    struct sealed_run *run;
    GHashTable *aborted;   /* txids, owned */
    GHashTable *committed; /* txids, borrowed */
};

static int read_log_record(void *opaque,
                           struct commit_record *record,
                           GError **err)
{
    struct log_reading *reading = opaque;
    struct commit_transaction *known;

    switch (record->type) {
    case COMMIT_RECORD_BEGIN: (void)add(reading->run, record); return 0;
    case COMMIT_RECORD_COMMIT:
        known = add(reading->run, record);
        g_hash_table_add(reading->committed, &known->txid);
        return 0;
    case COMMIT_RECORD_ABORT:
        g_hash_table_add(reading->aborted,
                         g_memdup2(&record->txid, sizeof(record->txid)));
        return 0;
    case COMMIT_RECORD_ACKNOWLEDGED:
        known = sealed_run_find(reading->run, &record->txid);
        if (known != NULL) {
            (void)commit_transaction_acknowledge(
                known, record->by_client ? NULL : &record->disk);
        }
        return 0;
    case COMMIT_RECORD_OUTCOME:
    case COMMIT_RECORD_DAMAGED:
    case COMMIT_RECORD_RETIRED: break;
    }
    return error_set(err, -EINVAL,
                     "The commit log is damaged: it has a record that has no "
                     "place in it");
}

static char *part_name(const struct sealed_run *run, uint32_t part)
{
    char text[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&run->run, text);
    return g_strdup_printf("commit-%s-%04" PRIu32 ".log", text, part);
}

/* Reads a whole file of this run: a negative errno with err set if it is damaged
 * or cannot be read. */
static int co_read_file(struct state_directory *directory,
                        const char *name,
                        const struct commit_header *expected,
                        commit_record_fn call,
                        void *opaque,
                        struct commit_header *ret_header,
                        GError **err)
{
    g_autoptr(GByteArray) content = NULL;
    struct commit_file_end end;
    int ret = co_state_directory_get(directory, name, COMMIT_FILE_BYTES_MAX,
                                     &content, err);

    if (ret < 0) {
        return ret;
    }
    ret = commit_file_parse(content->data, content->len, name, call, opaque,
                            ret_header, &end, err);
    if (ret == 0 && (ret_header->kind != expected->kind ||
                     !journal_id_equal(&ret_header->run, &expected->run) ||
                     ret_header->part != expected->part)) {
        ret = error_set(err, -EINVAL,
                        "'%s' is damaged: it is another file than its name "
                        "says",
                        name);
    }
    return ret;
}

static int check_boot(struct state_directory *directory,
                      const struct commit_header *header,
                      GError **err)
{
    if (header->is_process &&
        memcmp(header->boot_id, state_directory_boot_id(directory),
               STORAGE_BOOT_ID_BYTES) != 0) {
        return error_set(err, -ESTALE,
                         "The machine was restarted, and with "
                         "durability=process the commit log is good for one "
                         "boot only");
    }
    return 0;
}

/* Reads the header only: which parts count. */
static int co_first_part(struct state_directory *directory,
                         const char *name,
                         uint32_t *ret_first_part,
                         GError **err)
{
    g_autoptr(GByteArray) content = NULL;
    struct commit_header header;
    int ret = co_state_directory_get(directory, name, COMMIT_FILE_BYTES_MAX,
                                     &content, err);

    if (ret == 0) {
        ret = commit_header_decode(content->data, content->len, name, &header,
                                   err);
    }
    if (ret == 0) {
        *ret_first_part = header.first_part;
    }
    return ret;
}

static bool has_part(const GArray *parts, uint32_t part)
{
    for (guint i = 0; i < parts->len; i++) {
        if (g_array_index(parts, uint32_t, i) == part) {
            return true;
        }
    }
    return false;
}

static int co_read_part(struct state_directory *directory,
                        const GArray *parts,
                        uint32_t part,
                        struct log_reading *reading,
                        GError **err)
{
    struct commit_header expected = {
        .kind = COMMIT_FILE_LOG,
        .run = reading->run->run,
        .part = part,
    };
    g_autofree char *name = part_name(reading->run, part);
    struct commit_header header;
    int ret;

    if (!has_part(parts, part)) {
        return error_set(err, -ENOENT, "'%s' is missing", name);
    }
    ret = co_read_file(directory, name, &expected, read_log_record, reading,
                       &header, err);
    return ret < 0 ? ret : check_boot(directory, &header, err);
}

static void note_damage(struct sealed_run *run, GError **error)
{
    sealed_run_set_damaged(run, (*error)->message);
    g_clear_error(error);
}

static void co_read_parts(struct state_directory *directory,
                          const GArray *parts,
                          struct log_reading *reading)
{
    uint32_t last = g_array_index(parts, uint32_t, parts->len - 1);
    g_autofree char *last_name = part_name(reading->run, last);
    uint32_t first = 0;
    GError *error = NULL;

    if (co_first_part(directory, last_name, &first, &error) < 0) {
        note_damage(reading->run, &error);
    }
    /* Not one by one up to `last`: a number may be of any size. */
    for (guint i = 0; i < parts->len; i++) {
        uint32_t part = g_array_index(parts, uint32_t, i);

        if (part < first) {
            continue;
        }
        if (part != first && !has_part(parts, part - 1)) {
            sealed_run_set_damaged(reading->run,
                                   "A part of the commit log is missing");
        }
        if (co_read_part(directory, parts, part, reading, &error) < 0) {
            note_damage(reading->run, &error);
        }
    }
    if (!has_part(parts, first)) {
        sealed_run_set_damaged(reading->run,
                               "The first part of the commit log is missing");
    }
}

static enum commit_verdict verdict_of(const struct log_reading *reading,
                                      const struct commit_transaction *of)
{
    if (g_hash_table_contains(reading->aborted, &of->txid)) {
        return COMMIT_VERDICT_ABORTED;
    }
    if (reading->run->damage != NULL) {
        return COMMIT_VERDICT_UNKNOWN;
    }
    return g_hash_table_contains(reading->committed, &of->txid)
               ? COMMIT_VERDICT_COMMITTED
               : COMMIT_VERDICT_ABORTED;
}

void co_sealed_run_read_log(struct state_directory *directory,
                            const GArray *parts,
                            struct sealed_run *run)
{
    g_autoptr(GHashTable) aborted =
        g_hash_table_new_full(hash_id, equal_ids, g_free, NULL);
    g_autoptr(GHashTable) committed = g_hash_table_new(hash_id, equal_ids);
    struct log_reading reading = {
        .run = run,
        .aborted = aborted,
        .committed = committed,
    };

    co_read_parts(directory, parts, &reading);
    for (guint i = 0; i < run->transactions->len; i++) {
        struct commit_transaction *transaction =
            g_ptr_array_index(run->transactions, i);

        transaction->verdict = verdict_of(&reading, transaction);
    }
}

/* --- The sealed file -------------------------------------------------------------- */

static int read_sealed_record(void *opaque,
                              struct commit_record *record,
                              GError **err)
{
    struct sealed_run *run = opaque;
    struct commit_transaction *known;

    switch (record->type) {
    case COMMIT_RECORD_OUTCOME: (void)add(run, record); return 0;
    case COMMIT_RECORD_ACKNOWLEDGED:
        known = sealed_run_find(run, &record->txid);
        if (known != NULL) {
            (void)commit_transaction_acknowledge(
                known, record->by_client ? NULL : &record->disk);
        }
        return 0;
    case COMMIT_RECORD_DAMAGED:
        sealed_run_set_damaged(run, record->text);
        return 0;
    case COMMIT_RECORD_BEGIN:
    case COMMIT_RECORD_COMMIT:
    case COMMIT_RECORD_ABORT:
    case COMMIT_RECORD_RETIRED: break;
    }
    return error_set(err, -EINVAL,
                     "A sealed commit log is damaged: it has a record that has "
                     "no place in it");
}

void co_sealed_run_read(struct state_directory *directory,
                        const char *name,
                        struct sealed_run *run)
{
    struct commit_header expected = {
        .kind = COMMIT_FILE_SEALED,
        .run = run->run,
    };
    struct commit_header header;
    GError *error = NULL;
    int ret = co_read_file(directory, name, &expected, read_sealed_record, run,
                           &header, &error);

    if (ret < 0) {
        for (guint i = 0; i < run->transactions->len; i++) {
            struct commit_transaction *transaction =
                g_ptr_array_index(run->transactions, i);

            transaction->verdict = COMMIT_VERDICT_UNKNOWN;
        }
        note_damage(run, &error);
    }
}

static void append_frame(GByteArray *content,
                         const struct commit_header *header,
                         uint32_t *number,
                         GByteArray *payload)
{
    g_autoptr(GByteArray) frame = NULL;

    if (payload->len > 0) {
        frame = commit_frame_encode(header, (*number)++, payload);
        g_byte_array_append(content, frame->data, frame->len);
        g_byte_array_set_size(payload, 0);
    }
}

static void add_outcome(GByteArray *payload,
                        const struct commit_transaction *transaction)
{
    commit_payload_add_transaction(payload, COMMIT_RECORD_OUTCOME, transaction);
    if (transaction->client_acknowledged) {
        commit_payload_add_acknowledged(payload, &transaction->txid, NULL);
    }
    for (guint i = 0; i < transaction->members->len; i++) {
        const struct commit_member *member =
            g_ptr_array_index(transaction->members, i);

        if (member->acknowledged) {
            commit_payload_add_acknowledged(payload, &transaction->txid,
                                            &member->disk);
        }
    }
}

int co_sealed_run_write(struct state_directory *directory,
                        const char *name,
                        const struct sealed_run *run,
                        GError **err)
{
    struct commit_header header = {
        .kind = COMMIT_FILE_SEALED,
        .run = run->run,
        .made_us = loop_wall_clock_us(),
    };
    g_autoptr(GByteArray) content = g_byte_array_new();
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint32_t number = 0;
    int ret;

    g_byte_array_set_size(content, COMMIT_HEADER_BYTES);
    commit_header_encode(&header, content->data);
    if (run->damage != NULL) {
        commit_payload_add_damaged(payload, run->damage);
        append_frame(content, &header, &number, payload);
    }
    for (guint i = 0; i < run->transactions->len; i++) {
        add_outcome(payload, g_ptr_array_index(run->transactions, i));
        append_frame(content, &header, &number, payload);
    }
    trace_commit_log_seal_begin(name);
    ret = co_state_directory_put(directory, name, content, 0, NULL, NULL, err);
    trace_commit_log_seal_end(name, ret);
    return ret;
}

/* --- What is over ------------------------------------------------------------------ */

bool sealed_run_is_over(const struct sealed_run *run)
{
    for (guint i = 0; i < run->transactions->len; i++) {
        if (!commit_transaction_is_over(
                g_ptr_array_index(run->transactions, i))) {
            return false;
        }
    }
    /* Of a damaged log nobody knows who may still ask. */
    return run->damage == NULL;
}

/* --- Asking ------------------------------------------------------------------------- */

static enum outcome outcome_of(enum commit_verdict verdict)
{
    switch (verdict) {
    case COMMIT_VERDICT_COMMITTED: return OUTCOME_COMMITTED;
    case COMMIT_VERDICT_ABORTED: return OUTCOME_ABORTED;
    case COMMIT_VERDICT_UNKNOWN: break;
    }
    return OUTCOME_UNKNOWN;
}

enum outcome sealed_run_ask(const struct sealed_run *run,
                            const struct journal_id *txid,
                            char **ret_reason)
{
    const struct commit_transaction *known = sealed_run_find(run, txid);
    enum outcome outcome = OUTCOME_ABORTED; /* presumed */

    if (known != NULL) {
        outcome = outcome_of(known->verdict);
    } else if (run->damage != NULL) {
        outcome = OUTCOME_UNKNOWN;
    }
    if (outcome == OUTCOME_UNKNOWN && ret_reason != NULL) {
        *ret_reason = g_strdup(run->damage);
    }
    return outcome;
}
