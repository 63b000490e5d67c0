/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The actions of the `transaction` command, and the commands that are one
 * action alone: bitmap verbs and backups. There is one code path for both.
 *
 * Main thread, coroutine of a command.
 */
#ifndef QMP_ACTIONS_H
#define QMP_ACTIONS_H

#include "base/schema.h"
#include "job/durable_group.h"
#include "job/transaction.h"
#include "qmp/engine.h"

/* What the actions of one transaction share. */
struct action_context {
    struct engine *engine;
    /* Jobs that its actions have made, in order; not started yet. And for each the
     * durable group that decides it, NULL: none. */
    GPtrArray *jobs;
    GPtrArray *job_groups;
    /* Whether the jobs are one group; then other changes share its fate: as
     * struct job_txn_companion, in order. */
    bool grouped;
    GPtrArray *companions;
    /* What errors call the group while it lasts. */
    const char *group_name;
    /* How many actions there are: one by itself needs no record. */
    size_t actions;
    struct action_tracking *tracking; /* of that one (action_tracking.h) */
    /* Records (action_record.h): x-cohort-transaction-id, NULL: none; what they
     * are made with, NULL: there are none; the one of all changes, and of all jobs
     * of a group. */
    const char *client_id;
    struct durable_cut *cut;
    struct durable_group *group;
};

/* One kind of action. */
struct action_type {
    const char *name; /* as the command of that name */
    bool makes_job;
    bool alone_only; /* its effect cannot wait for a group of jobs: refused in a
                        grouped transaction */
    /* A new action; `data` is checked and outlives it. */
    struct transaction_action *(*create)(struct action_context *context,
                                         const struct json_value *data);
};

/* By name, tables that end with name NULL. */
extern const struct action_type bitmap_action_types[];
extern const struct action_type backup_action_types[];
extern const struct action_type snapshot_action_types[];

/* What they take, for commands of the same names. */
extern const struct schema_type bitmap_add_type;
extern const struct schema_type bitmap_name_type;
extern const struct schema_type bitmap_merge_type;
extern const struct schema_type snapshot_type;
extern const struct schema_type snapshot_sync_type;
/* The argument of `transaction`. */
extern const struct schema_type transaction_arguments_type;

/* Runs a list of {type, data} as one transaction; `grouped`: its jobs are one
 * group; `client_id` (may be NULL): what the client calls it. When it succeeds its
 * jobs have started. */
int co_actions_run(struct engine *engine,
                   const struct json_value *actions,
                   bool grouped,
                   const char *client_id,
                   GError **err);
/* The same for one action. */
int co_action_run(struct engine *engine,
                  const char *type,
                  const struct json_value *data,
                  GError **err);

/*
 * The view: what stands at (node, name) once the earlier actions of the same
 * transaction have committed, though nothing has changed yet.
 */
struct bitmap_view_entry {
    struct block_node *node;
    struct dirty_bitmap *bitmap; /* NULL: none of that name */
    uint64_t granularity_bytes;
    bool is_new; /* made by an earlier action of the same transaction */
    bool is_persistent;
    GError *busy;    /* why it may not be changed; NULL: it may */
    GError *useless; /* why it may only be removed; NULL: it is consistent */
};

/* Finds the node and the entry, and has the node fenced at the instant. Fails
 * if there is no such node. The entry belongs to the transaction. */
int co_bitmap_view_get(struct engine *engine,
                       struct transaction *transaction,
                       const char *node_name,
                       const char *bitmap_name,
                       struct bitmap_view_entry **ret_entry,
                       GError **err);
/* As above; fails too if there is no such bitmap or it is busy. */
int co_bitmap_view_get_free(struct engine *engine,
                            struct transaction *transaction,
                            const char *node_name,
                            const char *bitmap_name,
                            struct bitmap_view_entry **ret_entry,
                            GError **err);
/* As above; fails too if it is inconsistent. */
/* A persistent bitmap of a read-only node can be read and not be changed. */
int bitmap_view_check_changeable(const struct bitmap_view_entry *entry,
                                 GError **err);
int co_bitmap_view_get_usable(struct engine *engine,
                              struct transaction *transaction,
                              const char *node_name,
                              const char *bitmap_name,
                              struct bitmap_view_entry **ret_entry,
                              GError **err);
/* From here on the bitmap is in use by `holder` for later actions. */
void bitmap_view_claim(struct bitmap_view_entry *entry, const char *holder);

#endif
