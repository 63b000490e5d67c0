/* SPDX-License-Identifier: BSD-3-Clause */
/* What became of transactions: x-cohort-query-transactions and
 * x-cohort-acknowledge. */
#include <errno.h>

#include "base/error.h"
#include "qmp/command.h"

/* --- Types ------------------------------------------------------------------ */

static const struct schema_type outcome_type = {
    .kind = SCHEMA_ENUM,
    .name = "XCohortOutcome",
    .doc = "running: its jobs are at work. pending: they have done it. "
           "committed, aborted: for ever. in-doubt: the record of it could not "
           "be written, and it is not known whether it was; it will be aborted "
           "or, after a crash, what is found. unknown: this daemon has no "
           "record of it, or a damaged one, and nobody can tell.",
    .values = (const char *const[]){ "running", "pending", "committed",
                                     "aborted", "in-doubt", "unknown", NULL },
};

static const struct schema_type member_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortTransactionMember",
    .members =
        (const struct schema_member[]){
            { .name = "node", .type = &schema_string, .required = true },
            { .name = "job-id",
              .type = &schema_string,
              .doc = "Absent: changed by an action that made no job." },
            { .name = "bitmap", .type = &schema_string, .required = true },
            { .name = "disk",
              .type = &schema_string,
              .required = true,
              .doc = "The disk's id, in its tracking file." },
            { .name = "acknowledged",
              .type = &schema_bool,
              .required = true,
              .doc = "The disk needs the record no more." },
            { .name = NULL },
        },
};

static const struct schema_type member_list_type = {
    .kind = SCHEMA_LIST,
    .element = &member_type,
};

static const struct schema_type transaction_info_type = {
    .kind = SCHEMA_STRUCT,
    .name = "XCohortTransactionInfo",
    .members =
        (const struct schema_member[]){
            { .name = "id",
              .type = &schema_string,
              .doc = "x-cohort-transaction-id, if it had one." },
            { .name = "txid",
              .type = &schema_string,
              .doc = "Ours, fresh for each transaction: 32 hexadecimal "
                     "digits. Absent: there is no record." },
            { .name = "outcome", .type = &outcome_type, .required = true },
            { .name = "reason",
              .type = &schema_string,
              .doc = "Why it is in doubt." },
            { .name = "members", .type = &member_list_type, .required = true },
            { .name = NULL },
        },
};

static const struct schema_type transaction_info_list_type = {
    .kind = SCHEMA_LIST,
    .element = &transaction_info_type,
};

static const struct schema_member query_members[] = {
    { .name = "id",
      .type = &schema_string,
      .doc = "Only those of this x-cohort-transaction-id. One that was used "
             "several times has several, the latest first." },
    { .name = "txid", .type = &schema_string, .doc = "Only this one." },
    { .name = NULL },
};
static const struct schema_type query_type = {
    .kind = SCHEMA_STRUCT,
    .members = query_members,
};

static const struct schema_member acknowledge_members[] = {
    { .name = "id",
      .type = &schema_string,
      .doc = "All decided transactions of this x-cohort-transaction-id." },
    { .name = "txid", .type = &schema_string, .doc = "This one." },
    { .name = "forget-disk",
      .type = &schema_string,
      .doc = "Not the client's word, but an operator's: the disk of this id is "
             "gone for ever. With neither `id` nor `txid`: in all of them." },
    { .name = NULL },
};
static const struct schema_type acknowledge_type = {
    .kind = SCHEMA_STRUCT,
    .members = acknowledge_members,
};

/* --- Commands --------------------------------------------------------------- */

/* An id in text, if there is one; `*ret_id` is NULL or `storage`. */
static int get_id(const struct json_value *arguments,
                  const char *key,
                  struct journal_id *storage,
                  const struct journal_id **ret_id,
                  GError **err)
{
    const char *text = json_dict_string(arguments, key, NULL);

    *ret_id = NULL;
    if (text == NULL) {
        return 0;
    }
    if (!journal_id_parse(text, storage) ||
        text[2 * JOURNAL_ID_BYTES] != '\0') {
        return error_set(err, -EINVAL,
                         "'%s' must be 32 hexadecimal digits in lower case",
                         key);
    }
    *ret_id = storage;
    return 0;
}

/* What is asked for by name gets an answer: nobody here knows. */
static void add_unknown(struct json_value *list,
                        const struct json_value *arguments)
{
    const char *id = json_dict_string(arguments, "id", NULL);
    const char *txid = json_dict_string(arguments, "txid", NULL);
    struct json_value *info;

    if (json_list_length(list) > 0 || (id == NULL && txid == NULL)) {
        return;
    }
    info = json_dict_new();
    if (id != NULL) {
        json_dict_set_string(info, "id", id);
    }
    if (txid != NULL) {
        json_dict_set_string(info, "txid", txid);
    }
    json_dict_set_string(info, "outcome", "unknown");
    json_dict_set(info, "members", json_list_new());
    json_list_append(list, info);
}

static int co_query_transactions(struct engine *engine,
                                 const struct json_value *arguments,
                                 struct json_value **ret,
                                 GError **err)
{
    struct journal_id storage;
    const struct journal_id *txid;
    int result = get_id(arguments, "txid", &storage, &txid, err);

    if (result < 0) {
        return result;
    }
    if (engine->coordinator == NULL) {
        *ret = json_list_new();
    } else {
        result = co_coordinator_query(engine->coordinator,
                                      json_dict_string(arguments, "id", NULL),
                                      txid, ret, err);
    }
    if (result == 0) {
        add_unknown(*ret, arguments);
    }
    return result;
}

static int co_acknowledge(struct engine *engine,
                          const struct json_value *arguments,
                          struct json_value **ret,
                          GError **err)
{
    const char *id = json_dict_string(arguments, "id", NULL);
    struct journal_id txid_storage, disk_storage;
    const struct journal_id *txid, *disk;
    int result = get_id(arguments, "txid", &txid_storage, &txid, err);

    (void)ret; /* {} */
    if (result == 0) {
        result = get_id(arguments, "forget-disk", &disk_storage, &disk, err);
    }
    if (result < 0) {
        return result;
    }
    if (id == NULL && txid == NULL && disk == NULL) {
        return error_set(err, -EINVAL,
                         "Name what is acknowledged, by 'id' or 'txid'");
    }
    if (engine->coordinator == NULL) {
        return error_set(err, -ENOENT,
                         "There is no such transaction, or it has been "
                         "acknowledged by all");
    }
    return co_coordinator_acknowledge(engine->coordinator, id, txid, disk, err);
}

const struct qmp_command qmp_commands_outcome[] = {
    { .name = "x-cohort-acknowledge",
      .doc =
          "The client has taken note of a transaction's outcome and will not "
          "ask again: the record may go, once all disks that took part have "
          "settled it.",
      .arguments = &acknowledge_type,
      .co_run = co_acknowledge },
    { .name = "x-cohort-query-transactions",
      .doc = "What became of transactions in which persistent bitmaps take "
             "part, also of earlier runs of the daemon: those that someone may "
             "still ask for, latest first.",
      .arguments = &query_type,
      .returns = &transaction_info_list_type,
      .co_run = co_query_transactions },
    { .name = NULL },
};
