/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a backup command does before anything else: nothing of an earlier one is
 * left pending, and each partial point is published or discarded. Then the points
 * are compared with what their disks held at the instant.
 */
#include <string.h>

#include "mixed/repository.h"

#define PATIENCE_NS UINT64_C(400000000000)

bool repository_lives(struct repository *repository)
{
    struct world *world = repository->world;

    if (world_is_dead(world) || world->stopping || world->problem != NULL) {
        return false;
    }
    if (repository->dies_in > 0 && --repository->dies_in == 0) {
        world_count(world, WORLD_CLIENT_DIED);
        world_trace(world, "the client of %s dies", repository->folder);
        return false;
    }
    return true;
}

/*
 * Jobs.
 */

static struct job *find_own(struct repository *repository, bool concluded)
{
    g_autofree char *prefix = g_strdup_printf("repo%u-", repository->index);
    struct job *job = NULL;

    while ((job = job_next(repository->world->engine.jobs, job)) != NULL) {
        if (g_str_has_prefix(job_id(job), prefix) &&
            (job_state_of(job) == JOB_CONCLUDED) == concluded) {
            return job;
        }
    }
    return NULL;
}

static bool co_end_jobs(struct repository *repository)
{
    struct world *world = repository->world;
    uint64_t deadline_ns = loop_now_ns() + PATIENCE_NS;
    struct job *job;

    while ((job = find_own(repository, false)) != NULL) {
        struct json_value *arguments = json_dict_new();

        json_dict_set_string(arguments, "id", job_id(job));
        (void)co_world_command(world, "job-cancel", arguments, NULL, NULL);
        co_world_pause(world, 2000000);
        if (!repository_lives(repository)) {
            return false;
        }
        if (loop_now_ns() > deadline_ns) {
            world_fail(world, "jobs of a dead client do not end");
            return false;
        }
    }
    return true;
}

static bool co_forget_jobs(struct repository *repository)
{
    struct world *world = repository->world;
    struct job *job;

    while ((job = find_own(repository, true)) != NULL) {
        struct json_value *arguments = json_dict_new();

        json_dict_set_string(arguments, "id", job_id(job));
        (void)co_world_command(world, "job-dismiss", arguments, NULL, NULL);
        if (world_is_dead(world)) {
            return false;
        }
    }
    return true;
}

static struct block_node *find_target(struct repository *repository)
{
    g_autofree char *prefix = g_strdup_printf("target%u-", repository->index);
    struct block_node *node = NULL;

    while ((node = block_next(repository->world->engine.graph, node)) != NULL) {
        if (g_str_has_prefix(block_name(node), prefix)) {
            return node;
        }
    }
    return NULL;
}

static bool co_remove_targets(struct repository *repository)
{
    struct world *world = repository->world;
    struct block_node *node;

    while ((node = find_target(repository)) != NULL) {
        struct json_value *arguments = json_dict_new();

        json_dict_set_string(arguments, "node-name", block_name(node));
        if (!co_world_command(world, "blockdev-del", arguments, NULL, NULL)) {
            if (!world_is_dead(world)) {
                world_fail(world,
                           "a target of a dead client cannot be removed");
            }
            return false;
        }
    }
    return true;
}

/*
 * Outcomes.
 */

static bool is_final(const struct json_value *list)
{
    for (size_t i = 0; i < json_list_length(list); i++) {
        const char *outcome =
            json_dict_string(json_list_get(list, i), "outcome", "");

        if (strcmp(outcome, "committed") != 0 &&
            strcmp(outcome, "aborted") != 0 &&
            strcmp(outcome, "unknown") != 0) {
            return false;
        }
    }
    return true;
}

/* What the log says agrees with what happened to the bitmaps. */
static void compare_verdict(struct world *world, const struct json_value *info)
{
    const char *outcome = json_dict_string(info, "outcome", "");
    const char *txid = json_dict_string(info, "txid", NULL);
    struct fate *fate = txid == NULL ? NULL : world_find_fate(world, txid);

    if (fate != NULL && strcmp(outcome, "committed") == 0) {
        world_decide(world, fate, FATE_COMMITTED, "the log");
    } else if (fate != NULL && strcmp(outcome, "aborted") == 0) {
        world_decide(world, fate, FATE_ABORTED, "the log");
    }
}

/* The list of those of a label, or with a txid, when all are decided; owned by
 * the caller. NULL: given up. */
static struct json_value *co_ask(struct repository *repository,
                                 const char *key,
                                 const char *value)
{
    struct world *world = repository->world;
    uint64_t deadline_ns = loop_now_ns() + PATIENCE_NS;

    while (repository_lives(repository)) {
        struct json_value *arguments = json_dict_new();
        g_autoptr(json_value) list = NULL;

        json_dict_set_string(arguments, key, value);
        if (!co_world_command(world, "x-cohort-query-transactions", arguments,
                              &list, NULL) ||
            world_is_dead(world)) {
            return NULL;
        }
        if (is_final(list)) {
            for (size_t i = 0; i < json_list_length(list); i++) {
                compare_verdict(world, json_list_get(list, i));
            }
            return g_steal_pointer(&list);
        }
        if (loop_now_ns() > deadline_ns) {
            world_fail(world, "a transaction is never decided");
            return NULL;
        }
        co_world_pause(world, 3000000);
    }
    return NULL;
}

static bool co_settle_prepared(struct repository *repository,
                               const struct manifest *manifest)
{
    struct world *world = repository->world;
    struct fate *fate = world_fate(world, &manifest->txid);
    char txid[JOURNAL_ID_TEXT_BYTES];
    g_autoptr(json_value) list = NULL;
    const char *outcome;

    journal_id_format(&manifest->txid, txid);
    list = co_ask(repository, "txid", txid);
    if (list == NULL) {
        return false;
    }
    outcome = json_dict_string(json_list_get(list, 0), "outcome", "");
    if (strcmp(outcome, "committed") == 0) {
        world_count(world, WORLD_SETTLED_PUBLISHED);
        return co_repository_publish(repository, manifest->number);
    }
    if (strcmp(outcome, "unknown") == 0 && fate->is_forgotten) {
        /* The log of that daemon was good for one boot. The point is kept, by
         * who wants it; it is no base. */
        world_count(world, WORLD_PROCESS_UNKNOWN);
        fate->pruned = true;
        return co_repository_discard(repository, manifest->number);
    }
    if (strcmp(outcome, "aborted") != 0) {
        world_fail(world, "the outcome of %s is %s", txid, outcome);
        return false;
    }
    world_count(world, WORLD_SETTLED_DISCARDED);
    return co_repository_discard(repository, manifest->number);
}

static bool co_settle_started(struct repository *repository, uint64_t number)
{
    struct world *world = repository->world;
    g_autofree char *label = repository_label(repository, number);
    g_autoptr(json_value) list = co_ask(repository, "id", label);

    for (size_t i = 0; list != NULL && i < json_list_length(list); i++) {
        if (strcmp(json_dict_string(json_list_get(list, i), "outcome", ""),
                   "committed") == 0) {
            world_fail(world, "%s was committed, though nobody said so", label);
        }
    }
    world_count(world, WORLD_SETTLED_DISCARDED);
    return list != NULL && co_repository_discard(repository, number);
}

static void acknowledge_label(struct repository *repository,
                              uint64_t number,
                              GPtrArray *labels)
{
    g_ptr_array_add(labels, repository_label(repository, number));
}

static bool is_prepared(const struct repository_scan *scan, uint64_t number)
{
    for (guint i = 0; i < scan->prepared->len; i++) {
        if (g_array_index(scan->prepared, struct manifest, i).number ==
            number) {
            return true;
        }
    }
    return false;
}

/* Every partial point is decided. */
static bool co_settle_points(struct repository *repository,
                             const struct repository_scan *scan,
                             GPtrArray *labels)
{
    bool ok = true;

    for (guint i = 0; ok && i < scan->prepared->len; i++) {
        const struct manifest *manifest =
            &g_array_index(scan->prepared, struct manifest, i);

        ok = co_settle_prepared(repository, manifest);
    }
    for (guint i = 0; ok && i < scan->started->len; i++) {
        uint64_t number = g_array_index(scan->started, uint64_t, i);

        acknowledge_label(repository, number, labels);
        if (number <= scan->newest) {
            ok = co_repository_drop_start(repository, number);
        } else if (!is_prepared(scan, number)) {
            ok = co_settle_started(repository, number);
        }
    }
    if (scan->newest > 0) {
        acknowledge_label(repository, scan->newest, labels);
    }
    return ok;
}

/*
 * Bytes.
 */

static void compare_point(struct repository *repository,
                          const struct manifest *manifest)
{
    struct world *world = repository->world;
    struct fate *fate = world_fate(world, &manifest->txid);

    world_decide(world, fate, FATE_COMMITTED, "its published point");
    for (unsigned int i = 0; i < DISKS; i++) {
        g_autofree char *path =
            repository_data_path(repository, manifest->number, i);
        uint64_t bytes = 0;
        const uint8_t *data = storage_memory_peek(world->memory, path, &bytes);

        if (!manifest->members[i].is_in) {
            continue;
        }
        world_count(world, WORLD_POINTS_COMPARED);
        if (data == NULL || fate->cut[i] == NULL ||
            bytes != g_bytes_get_size(fate->cut[i]) ||
            memcmp(data, g_bytes_get_data(fate->cut[i], NULL), bytes) != 0) {
            world_fail(world, "%s is not what %s was at the instant", path,
                       world->disks[i].name);
        }
    }
}

/* A committed transaction has its point. */
static void check_published(struct repository *repository,
                            const struct repository_scan *scan)
{
    struct world *world = repository->world;

    for (guint i = 0; i < world->fates->len; i++) {
        const struct fate *fate = g_ptr_array_index(world->fates, i);
        bool found = fate->pruned || fate->verdict != FATE_COMMITTED ||
                     fate->repository != (int)repository->index;

        for (guint k = 0; !found && k < scan->points->len; k++) {
            found = journal_id_equal(
                &g_array_index(scan->points, struct manifest, k).txid,
                &fate->txid);
        }
        if (!found) {
            char text[JOURNAL_ID_TEXT_BYTES];

            journal_id_format(&fate->txid, text);
            world_fail(world, "transaction %s is committed, and not published",
                       text);
        }
    }
}

static bool co_compare(struct repository *repository)
{
    struct repository_scan scan;
    bool ok = co_repository_scan(repository, &scan);

    if (ok && !world_is_dead(repository->world)) {
        for (guint i = 0; i < scan.points->len; i++) {
            compare_point(repository,
                          &g_array_index(scan.points, struct manifest, i));
        }
        check_published(repository, &scan);
        ok = co_repository_prune(repository, &scan);
    }
    repository_scan_release(&scan);
    return ok;
}

static bool co_acknowledge(struct repository *repository, GPtrArray *labels)
{
    for (guint i = 0; i < labels->len; i++) {
        struct json_value *arguments = json_dict_new();

        if (!repository_lives(repository)) {
            json_free(arguments);
            return false;
        }
        json_dict_set_string(arguments, "id", g_ptr_array_index(labels, i));
        /* There may be none. */
        (void)co_world_command(repository->world, "x-cohort-acknowledge",
                               arguments, NULL, NULL);
    }
    return repository_lives(repository);
}

bool co_settle(struct repository *repository)
{
    g_autoptr(GPtrArray) labels = g_ptr_array_new_with_free_func(g_free);
    struct repository_scan scan;
    bool ok = co_end_jobs(repository) && co_repository_scan(repository, &scan);

    if (!ok) {
        return false;
    }
    ok = co_settle_points(repository, &scan, labels);
    repository_scan_release(&scan);
    /* What was found may be in a cache only. */
    return ok && co_repository_sync(repository) && co_forget_jobs(repository) &&
           co_remove_targets(repository) && co_compare(repository) &&
           co_acknowledge(repository, labels);
}
