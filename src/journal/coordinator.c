/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon knows of transactions: its own from memory, those of dead runs
 * from what is sealed.
 *
 * Own transactions stay on the list until nobody can ask for them any more: every
 * disk has settled, and the client, if it gave an id, has acknowledged. What was
 * acknowledged is written to the log in the background; were it lost, a disk's
 * next opening would say it again.
 */
#include <errno.h>

#include "base/error.h"
#include "journal/group_commit_priv.h"
#include "loop/loop.h"

struct coordinator *coordinator_new(const struct coordinator_options *options)
{
    struct coordinator *coordinator = g_new0(struct coordinator, 1);

    coordinator->storage = options->storage;
    coordinator->path = g_strdup(options->path);
    if (options->path == NULL) {
        coordinator->path_error = g_error_copy(options->path_error);
    }
    coordinator->is_process = options->is_process;
    coordinator->event = options->event;
    coordinator->opaque = options->opaque;
    co_mutex_init(&coordinator->opening);
    list_init(&coordinator->known);
    coordinator->acknowledged = g_byte_array_new();
    co_queue_init(&coordinator->idle);
    co_queue_init(&coordinator->doubters);
    return coordinator;
}

static int co_open(struct coordinator *coordinator, GError **err)
{
    int ret;

    if (coordinator->directory != NULL) {
        return 0;
    }
    if (coordinator->path == NULL) {
        if (err != NULL) {
            *err = g_error_copy(coordinator->path_error);
        }
        return -ENOENT;
    }
    ret = co_state_directory_open(coordinator->storage, coordinator->path,
                                  coordinator->is_process,
                                  &coordinator->directory, err);
    if (ret == 0) {
        coordinator->log = commit_log_new(coordinator->directory);
    }
    return ret;
}

int co_coordinator_ensure(struct coordinator *coordinator, GError **err)
{
    int ret;

    co_mutex_lock(&coordinator->opening);
    ret = co_open(coordinator, err);
    co_mutex_unlock(&coordinator->opening);
    return ret;
}

static void free_known(struct known_transaction *known)
{
    list_remove(&known->link);
    commit_transaction_free(known->transaction);
    g_free(known->doubt);
    g_free(known);
}

void co_coordinator_close(struct coordinator *coordinator)
{
    struct list *link;

    if (coordinator == NULL) {
        return;
    }
    g_assert(coordinator->groups == 0);
    while (coordinator->writes_acknowledged) {
        co_queue_wait(&coordinator->idle);
    }
    if (coordinator->log != NULL) {
        g_autoptr(GPtrArray) ignored = NULL;

        /* This run is dead from here on; the listing seals it. Else the next
         * daemon does. */
        co_commit_log_close(coordinator->log);
        (void)co_outcome_list(coordinator->directory, &ignored, NULL);
    }
    while ((link = list_take_first(&coordinator->known)) != NULL) {
        free_known(LIST_ENTRY(link, struct known_transaction, link));
    }
    state_directory_free(coordinator->directory);
    g_byte_array_unref(coordinator->acknowledged);
    g_clear_error(&coordinator->path_error);
    g_free(coordinator->path);
    g_free(coordinator);
}

void co_coordinator_drain(struct coordinator *coordinator)
{
    while (coordinator->groups > 0) {
        co_queue_wait(&coordinator->idle);
    }
}

void coordinator_let_go(struct coordinator *coordinator)
{
    coordinator->lets_go = true;
    co_queue_wake_all(&coordinator->doubters);
}

/* --- Looking up ------------------------------------------------------------------------- */

static struct known_transaction *find_known(struct coordinator *coordinator,
                                            const struct journal_id *txid)
{
    LIST_FOREACH(link, &coordinator->known) {
        struct known_transaction *known =
            LIST_ENTRY(link, struct known_transaction, link);

        if (journal_id_equal(&known->transaction->txid, txid)) {
            return known;
        }
    }
    return NULL;
}

static enum outcome outcome_of(enum group_state state)
{
    switch (state) {
    case GROUP_COMMITTED: return OUTCOME_COMMITTED;
    case GROUP_ABORTED: return OUTCOME_ABORTED;
    case GROUP_RUNNING:
    case GROUP_PENDING:
    case GROUP_IN_DOUBT: break;
    }
    return OUTCOME_PENDING;
}

int co_coordinator_look_up(struct coordinator *coordinator,
                           const struct log_segment *segment_or_null,
                           const struct journal_id *txid,
                           enum outcome *ret_outcome,
                           char **ret_reason,
                           GError **err)
{
    const struct known_transaction *known = find_known(coordinator, txid);
    int ret;

    if (known != NULL) {
        *ret_outcome = outcome_of(known->state);
        return 0;
    }
    ret = co_coordinator_ensure(coordinator, err);
    if (ret < 0) {
        return ret;
    }
    if (segment_or_null != NULL &&
        journal_id_equal(&segment_or_null->run,
                         commit_log_run(coordinator->log))) {
        *ret_outcome = OUTCOME_ABORTED; /* else it would be known */
        return 0;
    }
    return co_outcome_look_up(coordinator->directory, segment_or_null, txid,
                              ret_outcome, ret_reason, err);
}

/* Is there, or was there ever, anything to look at? Asking makes no directory. */
static bool co_has_directory(struct coordinator *coordinator)
{
    struct storage_stat stat;

    return coordinator->directory != NULL ||
           (coordinator->path != NULL &&
            co_storage_stat(coordinator->storage, coordinator->path, &stat) !=
                -ENOENT);
}

/* --- Acknowledgements ------------------------------------------------------------------- */

bool coordinator_drop_if_over(struct known_transaction *known)
{
    if (known->has_group) {
        return false;
    }
    switch (known->state) {
    case GROUP_RUNNING:
    case GROUP_PENDING:
    case GROUP_IN_DOUBT: return false;
    case GROUP_COMMITTED:
        known->transaction->verdict = COMMIT_VERDICT_COMMITTED;
        break;
    case GROUP_ABORTED:
        known->transaction->verdict = COMMIT_VERDICT_ABORTED;
        break;
    }
    if (!commit_transaction_is_over(known->transaction)) {
        return false;
    }
    free_known(known);
    return true;
}

/* What a part that starts over needs of one transaction. */
static GByteArray *carry_over(const struct known_transaction *known)
{
    const struct commit_transaction *transaction = known->transaction;
    GByteArray *payload = g_byte_array_new();

    commit_payload_add_transaction(payload,
                                   known->state == GROUP_COMMITTED
                                       ? COMMIT_RECORD_COMMIT
                                       : COMMIT_RECORD_BEGIN,
                                   transaction);
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
    return payload;
}

static void fill(void *opaque, GPtrArray *payloads)
{
    struct coordinator *coordinator = opaque;

    /* Oldest first, as they were. */
    for (struct list *link = coordinator->known.previous;
         link != &coordinator->known; link = link->previous) {
        g_ptr_array_add(payloads, carry_over(LIST_ENTRY(
                                      link, struct known_transaction, link)));
    }
    g_byte_array_set_size(coordinator->acknowledged, 0); /* it is in there */
}

static bool is_any_in_doubt(const struct coordinator *coordinator)
{
    LIST_FOREACH(link, &coordinator->known) {
        if (LIST_ENTRY(link, struct known_transaction, link)->state ==
            GROUP_IN_DOUBT) {
            return true;
        }
    }
    return false;
}

static void co_write_acknowledged(void *opaque)
{
    struct coordinator *coordinator = opaque;

    while (coordinator->acknowledged->len > 0) {
        g_autoptr(GByteArray) payload = coordinator->acknowledged;

        coordinator->acknowledged = g_byte_array_new();
        /* Lost: the disk's next opening says it again. */
        (void)co_commit_log_acknowledge(coordinator->log, payload, NULL);
        if (commit_log_is_long(coordinator->log) &&
            !is_any_in_doubt(coordinator)) {
            (void)co_commit_log_compact(coordinator->log, fill, coordinator,
                                        NULL);
        }
    }
    coordinator->writes_acknowledged = false;
    co_queue_wake_all(&coordinator->idle);
}

/* `disk_or_null` as in a record. */
static void note_own(struct coordinator *coordinator,
                     struct known_transaction *known,
                     const struct journal_id *disk_or_null)
{
    if (!commit_transaction_acknowledge(known->transaction, disk_or_null)) {
        return;
    }
    commit_payload_add_acknowledged(coordinator->acknowledged,
                                    &known->transaction->txid, disk_or_null);
    (void)coordinator_drop_if_over(known);
    if (!coordinator->writes_acknowledged) {
        coordinator->writes_acknowledged = true;
        co_spawn(loop_current(), co_write_acknowledged, coordinator);
    }
}

void co_coordinator_settled(struct coordinator *coordinator,
                            const struct journal_id *disk,
                            const struct journal_id *txid_or_null)
{
    const struct outcome_acknowledgement who = {
        .txid = txid_or_null,
        .disk = disk,
    };
    struct known_transaction *known =
        txid_or_null == NULL ? NULL : find_known(coordinator, txid_or_null);

    if (known != NULL) {
        note_own(coordinator, known, disk);
    } else if (co_has_directory(coordinator) &&
               co_coordinator_ensure(coordinator, NULL) == 0) {
        (void)co_outcome_acknowledge(coordinator->directory, &who, NULL, NULL);
    }
}

/* --- Clients ------------------------------------------------------------------------------ */

static bool is_meant(const struct commit_transaction *transaction,
                     const char *client_id_or_null,
                     const struct journal_id *txid_or_null)
{
    return (client_id_or_null == NULL ||
            g_str_equal(transaction->client_id, client_id_or_null)) &&
           (txid_or_null == NULL ||
            journal_id_equal(&transaction->txid, txid_or_null));
}

static struct json_value *member_info(const struct commit_member *member)
{
    struct json_value *info = json_dict_new();
    char disk[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&member->disk, disk);
    json_dict_set_string(info, "node", member->node);
    if (member->job[0] != '\0') {
        json_dict_set_string(info, "job-id", member->job);
    }
    json_dict_set_string(info, "bitmap", member->bitmap);
    json_dict_set_string(info, "disk", disk);
    json_dict_set_bool(info, "acknowledged", member->acknowledged);
    return info;
}

static struct json_value *transaction_info(
    const struct commit_transaction *transaction,
    const char *outcome,
    const char *reason)
{
    struct json_value *info = json_dict_new();
    struct json_value *members = json_list_new();
    char txid[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&transaction->txid, txid);
    if (transaction->client_id[0] != '\0') {
        json_dict_set_string(info, "id", transaction->client_id);
    }
    json_dict_set_string(info, "txid", txid);
    json_dict_set_string(info, "outcome", outcome);
    if (reason != NULL) {
        json_dict_set_string(info, "reason", reason);
    }
    for (guint i = 0; i < transaction->members->len; i++) {
        json_list_append(
            members, member_info(g_ptr_array_index(transaction->members, i)));
    }
    json_dict_set(info, "members", members);
    return info;
}

static const char *state_name(enum group_state state)
{
    switch (state) {
    case GROUP_RUNNING: return "running";
    case GROUP_PENDING: return "pending";
    case GROUP_IN_DOUBT: return "in-doubt";
    case GROUP_COMMITTED: return "committed";
    case GROUP_ABORTED: return "aborted";
    }
    g_assert_not_reached();
}

static const char *verdict_name(enum commit_verdict verdict)
{
    switch (verdict) {
    case COMMIT_VERDICT_COMMITTED: return "committed";
    case COMMIT_VERDICT_ABORTED: return "aborted";
    case COMMIT_VERDICT_UNKNOWN: break;
    }
    return "unknown";
}

/* Transactions of dead runs. */
static int co_list_sealed(struct coordinator *coordinator,
                          GPtrArray **ret_transactions,
                          GError **err)
{
    int ret;

    if (!co_has_directory(coordinator)) {
        *ret_transactions = g_ptr_array_new();
        return 0;
    }
    ret = co_coordinator_ensure(coordinator, err);
    return ret < 0
               ? ret
               : co_outcome_list(coordinator->directory, ret_transactions, err);
}

int co_coordinator_query(struct coordinator *coordinator,
                         const char *client_id_or_null,
                         const struct journal_id *txid_or_null,
                         struct json_value **ret_list,
                         GError **err)
{
    g_autoptr(GPtrArray) sealed = NULL;
    struct json_value *list;
    int ret = co_list_sealed(coordinator, &sealed, err);

    if (ret < 0) {
        return ret;
    }
    list = json_list_new();
    LIST_FOREACH(link, &coordinator->known) {
        const struct known_transaction *known =
            LIST_ENTRY(link, struct known_transaction, link);

        if (is_meant(known->transaction, client_id_or_null, txid_or_null)) {
            json_list_append(list, transaction_info(known->transaction,
                                                    state_name(known->state),
                                                    known->doubt));
        }
    }
    for (guint i = 0; i < sealed->len; i++) {
        const struct commit_transaction *transaction =
            g_ptr_array_index(sealed, i);

        if (is_meant(transaction, client_id_or_null, txid_or_null)) {
            json_list_append(
                list,
                transaction_info(transaction,
                                 verdict_name(transaction->verdict), NULL));
        }
    }
    *ret_list = list;
    return 0;
}

/* `*ret_undecided`: how many are meant and not decided. */
static uint64_t acknowledge_own(struct coordinator *coordinator,
                                const char *client_id_or_null,
                                const struct journal_id *txid_or_null,
                                const struct journal_id *forget_or_null,
                                uint64_t *ret_undecided)
{
    uint64_t count = 0;

    LIST_FOREACH_SAFE(link, &coordinator->known) {
        struct known_transaction *known =
            LIST_ENTRY(link, struct known_transaction, link);

        if (!is_meant(known->transaction, client_id_or_null, txid_or_null)) {
            continue;
        }
        if (outcome_of(known->state) == OUTCOME_PENDING) {
            ++*ret_undecided;
        } else {
            count++;
            note_own(coordinator, known, forget_or_null);
        }
    }
    return count;
}

/* One by one: those that are meant are chosen here. */
static int co_acknowledge_sealed(struct coordinator *coordinator,
                                 const char *client_id_or_null,
                                 const struct journal_id *txid_or_null,
                                 const struct journal_id *forget_or_null,
                                 uint64_t *count,
                                 GError **err)
{
    g_autoptr(GPtrArray) sealed = NULL;
    int ret = co_list_sealed(coordinator, &sealed, err);

    for (guint i = 0; ret == 0 && i < sealed->len; i++) {
        const struct commit_transaction *transaction =
            g_ptr_array_index(sealed, i);
        const struct outcome_acknowledgement who = {
            .txid = &transaction->txid,
            .disk = forget_or_null,
        };

        if (is_meant(transaction, client_id_or_null, txid_or_null)) {
            ret =
                co_outcome_acknowledge(coordinator->directory, &who, NULL, err);
            ++*count;
        }
    }
    return ret;
}

int co_coordinator_acknowledge(struct coordinator *coordinator,
                               const char *client_id_or_null,
                               const struct journal_id *txid_or_null,
                               const struct journal_id *forget_or_null,
                               GError **err)
{
    uint64_t undecided = 0;
    uint64_t count;
    int ret;

    count = acknowledge_own(coordinator, client_id_or_null, txid_or_null,
                            forget_or_null, &undecided);
    ret = co_acknowledge_sealed(coordinator, client_id_or_null, txid_or_null,
                                forget_or_null, &count, err);
    if (ret < 0 || count > 0) {
        return ret;
    }
    if (undecided > 0) {
        return error_set(err, -EBUSY,
                         "The transaction is not decided yet; wait for the end "
                         "of its jobs");
    }
    return error_set(err, -ENOENT,
                     "There is no such transaction, or it has been "
                     "acknowledged by all");
}
