/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One transaction, from BEGIN to its end.
 *
 * Happy path: BEGIN (synced), the members' files prepared (synced, one by one),
 * COMMIT (synced). Failures before COMMIT abort by doing nothing: what has no
 * COMMIT is aborted. A COMMIT that failed may be on disk all the same; then ABORT
 * must be durable before anyone hears of a failure, and until it is nobody hears
 * anything.
 */
#include "journal/group_commit.h"

#include <errno.h>

#include "base/error.h"
#include "base/limits.h"
#include "journal/group_commit_priv.h"
#include "loop/loop.h"

#define ABORT_RETRY_MIN_NS UINT64_C(1000000000)
#define ABORT_RETRY_MAX_NS UINT64_C(60000000000)

struct group_commit *group_commit_new(struct coordinator *coordinator,
                                      const char *client_id)
{
    struct group_commit *group = g_new0(struct group_commit, 1);
    struct journal_id txid = journal_id_new();

    group->coordinator = coordinator;
    group->known = g_new0(struct known_transaction, 1);
    group->known->transaction =
        commit_transaction_new(&txid, client_id, loop_wall_clock_us());
    list_init(&group->known->link);
    group->members =
        g_array_new(FALSE, FALSE, sizeof(struct group_participant));
    coordinator->groups++;
    return group;
}

const struct journal_id *group_commit_txid(const struct group_commit *group)
{
    return &group->known->transaction->txid;
}

void group_commit_add(struct group_commit *group,
                      const struct group_member *member)
{
    const struct group_participant participant = {
        .ops = member->ops,
        .opaque = member->opaque,
    };
    struct commit_member *recorded =
        commit_transaction_add(group->known->transaction, &member->disk,
                               member->node, member->job, member->bitmap);

    g_assert(!group->begun);
    recorded->old_base = member->old_base;
    recorded->gets_base = member->gets_base;
    recorded->keeps_base = member->keeps_base;
    g_array_append_val(group->members, participant);
}

static size_t count_known(const struct coordinator *coordinator)
{
    size_t count = 0;

    LIST_FOREACH(link, &coordinator->known) {
        count++;
    }
    return count;
}

int co_group_commit_begin(struct group_commit *group, GError **err)
{
    struct coordinator *coordinator = group->coordinator;
    int ret;

    if (count_known(coordinator) >= LIMIT_TRANSACTIONS_KEPT) {
        return error_set(err, -EBUSY,
                         "%d transactions are waiting to be acknowledged; no "
                         "new one can begin before clients acknowledge them, "
                         "or disks that are gone are forgotten "
                         "(x-cohort-acknowledge)",
                         LIMIT_TRANSACTIONS_KEPT);
    }
    ret = co_coordinator_ensure(coordinator, err);
    if (ret == 0) {
        ret = co_commit_log_begin(coordinator->log, group->known->transaction,
                                  &group->segment, err);
    }
    if (ret == 0) {
        group->begun = true;
        group->known->has_group = true;
        group->known->state = GROUP_RUNNING;
        list_prepend(&coordinator->known, &group->known->link);
    }
    return ret;
}

void group_commit_set_pending(struct group_commit *group)
{
    g_assert(group->known->state == GROUP_RUNNING);
    group->known->state = GROUP_PENDING;
}

int co_group_commit_prepare(struct group_commit *group, GError **err)
{
    g_assert(group->begun);
    for (guint i = 0; i < group->members->len; i++) {
        const struct group_participant *member =
            &g_array_index(group->members, struct group_participant, i);
        int ret = member->ops->co_prepare(
            member->opaque, group_commit_txid(group), &group->segment, err);

        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

void group_commit_abort(struct group_commit *group)
{
    g_assert(group->known->state == GROUP_RUNNING ||
             group->known->state == GROUP_PENDING);
    group->known->state = GROUP_ABORTED;
    if (group->begun) {
        commit_log_release(group->coordinator->log, group->known->transaction);
    }
}

/* --- Deciding ------------------------------------------------------------------------ */

static void set_aborted(struct group_commit *group)
{
    g_clear_pointer(&group->known->doubt, g_free);
    group->known->state = GROUP_ABORTED;
    commit_log_release(group->coordinator->log, group->known->transaction);
}

static void tell_doubt(struct group_commit *group)
{
    struct coordinator *coordinator = group->coordinator;
    const struct commit_transaction *transaction = group->known->transaction;
    struct json_value *data = json_dict_new();
    char text[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&transaction->txid, text);
    json_dict_set_string(data, "txid", text);
    if (transaction->client_id[0] != '\0') {
        json_dict_set_string(data, "id", transaction->client_id);
    }
    json_dict_set_string(data, "reason", group->known->doubt);
    coordinator->event(coordinator->opaque, "X_COHORT_TRANSACTION_IN_DOUBT",
                       data);
}

/* COMMIT may be on disk: tries to make ABORT durable until it is. */
static int co_leave_doubt(struct group_commit *group,
                          group_doubt_fn doubt,
                          void *opaque)
{
    struct coordinator *coordinator = group->coordinator;
    uint64_t wait_ns = ABORT_RETRY_MIN_NS;

    for (;;) {
        g_autoptr(GError) why = NULL;

        if (co_commit_log_abort(coordinator->log, group->known->transaction,
                                &why) == 0) {
            set_aborted(group);
            return 0;
        }
        if (group->known->doubt == NULL) {
            group->known->doubt = g_strdup(why->message);
            tell_doubt(group);
            if (!doubt(opaque, why)) {
                return -EINPROGRESS;
            }
        }
        if (!coordinator->lets_go) {
            (void)co_queue_wait_until(&coordinator->doubters,
                                      loop_now_ns() + wait_ns);
            wait_ns = MIN(2 * wait_ns, ABORT_RETRY_MAX_NS);
        }
        if (coordinator->lets_go) {
            return -EINPROGRESS;
        }
    }
}

int co_group_commit_decide(struct group_commit *group,
                           group_doubt_fn doubt,
                           void *opaque,
                           GError **err)
{
    struct known_transaction *known = group->known;
    bool in_doubt = false;
    int ret = co_commit_log_commit(group->coordinator->log, known->transaction,
                                   &in_doubt, err);

    if (ret == 0) {
        known->state = GROUP_COMMITTED;
        return 0;
    }
    if (!in_doubt) {
        set_aborted(group);
        return ret;
    }
    known->state = GROUP_IN_DOUBT;
    if (co_leave_doubt(group, doubt, opaque) == -EINPROGRESS) {
        g_prefix_error(err, "It is not known whether the transaction was "
                            "committed: ");
        return -EINPROGRESS;
    }
    return ret;
}

void co_group_commit_end(struct group_commit **group)
{
    struct group_commit *ended = g_steal_pointer(group);
    struct known_transaction *known = ended->known;

    ended->coordinator->groups--;
    known->has_group = false;
    co_queue_wake_all(&ended->coordinator->idle);
    if (!ended->begun) {
        commit_transaction_free(known->transaction);
        g_free(known);
    } else if (known->state != GROUP_IN_DOUBT) {
        g_assert(known->state == GROUP_COMMITTED ||
                 known->state == GROUP_ABORTED);
        (void)coordinator_drop_if_over(known);
    }
    g_array_unref(ended->members);
    g_free(ended);
}
