/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/daemon_transactions.h"

#include <errno.h>

#include "base/error.h"

static void member_free(void *pointer)
{
    struct daemon_member *member = pointer;

    g_free(member->job);
    g_free(member->disk);
    g_free(member);
}

static void transaction_free(void *pointer)
{
    struct daemon_transaction *transaction = pointer;

    g_free(transaction->id);
    g_free(transaction->txid);
    g_free(transaction->reason);
    g_ptr_array_unref(transaction->members);
    g_free(transaction);
}

/* What is not understood is unknown. */
static enum daemon_outcome parse_outcome(const char *text)
{
    static const struct {
        const char *text;
        enum daemon_outcome outcome;
    } words[] = {
        { "running", DAEMON_OUTCOME_OPEN },
        { "pending", DAEMON_OUTCOME_OPEN },
        { "in-doubt", DAEMON_OUTCOME_IN_DOUBT },
        { "committed", DAEMON_OUTCOME_COMMITTED },
        { "aborted", DAEMON_OUTCOME_ABORTED },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (g_strcmp0(text, words[i].text) == 0) {
            return words[i].outcome;
        }
    }
    return DAEMON_OUTCOME_UNKNOWN;
}

static const char *get_string(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void add_member(struct daemon_transaction *transaction,
                       const json_t *info)
{
    struct daemon_member *member = g_new0(struct daemon_member, 1);

    member->job = g_strdup(get_string(info, "job-id"));
    member->disk = g_strdup(get_string(info, "disk"));
    g_ptr_array_add(transaction->members, member);
}

static void add_transaction(GPtrArray *transactions, const json_t *info)
{
    const json_t *members = json_object_get(info, "members");
    struct daemon_transaction *transaction =
        g_new0(struct daemon_transaction, 1);

    transaction->id = g_strdup(get_string(info, "id"));
    transaction->txid = g_strdup(get_string(info, "txid"));
    transaction->outcome = parse_outcome(get_string(info, "outcome"));
    transaction->reason = g_strdup(get_string(info, "reason"));
    transaction->members = g_ptr_array_new_with_free_func(member_free);
    for (size_t i = 0; i < json_array_size(members); i++) {
        add_member(transaction, json_array_get(members, i));
    }
    g_ptr_array_add(transactions, transaction);
}

int daemon_transactions_query(struct qmp_client *client,
                              const char *prefix,
                              GPtrArray **ret_transactions,
                              GError **err)
{
    json_t *list = NULL;
    int ret =
        qmp_command(client, "x-cohort-query-transactions", NULL, &list, err);

    if (ret < 0) {
        return ret;
    }
    *ret_transactions = g_ptr_array_new_with_free_func(transaction_free);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *info = json_array_get(list, i);
        const char *id = get_string(info, "id");
        if (id != NULL && g_str_has_prefix(id, prefix) &&
            get_string(info, "txid") != NULL) {
            add_transaction(*ret_transactions, info);
        }
    }
    json_decref(list);
    return 0;
}

struct daemon_transaction *daemon_transactions_find(
    const GPtrArray *transactions,
    const char *id,
    const char *txid)
{
    for (guint i = 0; i < transactions->len; i++) {
        struct daemon_transaction *transaction = transactions->pdata[i];
        if (g_strcmp0(transaction->id, id) == 0 &&
            (txid == NULL || g_strcmp0(transaction->txid, txid) == 0)) {
            return transaction;
        }
    }
    return NULL;
}

const char *daemon_transaction_disk(
    const struct daemon_transaction *transaction,
    const char *job)
{
    for (guint i = 0; i < transaction->members->len; i++) {
        const struct daemon_member *member = transaction->members->pdata[i];
        if (g_strcmp0(member->job, job) == 0) {
            return member->disk;
        }
    }
    return NULL;
}

int daemon_transactions_acknowledge(struct qmp_client *client,
                                    const char *txid,
                                    GError **err)
{
    return qmp_command(client, "x-cohort-acknowledge",
                       json_pack("{s:s}", "txid", txid), NULL, err);
}
