/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Backup actions: `blockdev-backup` into a node, `drive-backup` into a file.
 *
 * Prepare makes the job with everything it needs; commit is the instant; clean
 * hands the job over to be started. On abort the job is discarded, as if it had
 * never been there (a file that drive-backup made stays).
 */
#include <errno.h>
#include <string.h>

#include "backup/backup_job.h"
#include "backup/block_copy.h"
#include "base/bytes.h"
#include "base/error.h"
#include "bitmap/dirty_bitmap.h"
#include "loop/coroutine.h"
#include "qmp/action_record.h"
#include "qmp/actions.h"
#include "qmp/backup_target_file.h"
#include "qmp/backup_types.h"

#define NANOSECONDS_PER_SECOND UINT64_C(1000000000)
#define WORKERS_MAX            1024
#define CHUNK_BYTES_MAX        (64 << 20)

struct backup_action {
    struct transaction_action action;
    struct action_context *context;
    const struct json_value *data;   /* borrowed */
    struct job *job;                 /* NULL before prepare and after abort */
    struct bitmap_view_entry *entry; /* NULL: without bitmap */
    struct dirty_bitmap *bitmap;     /* what the entry stood for at prepare */
    struct durable_group *group; /* what decides it; NULL: nothing durable */
    bool committed;
};

static struct backup_action *action_of(struct transaction_action *action)
{
    return LIST_ENTRY(action, struct backup_action, action);
}

/* --- What may be combined ---------------------------------------------------- */

/* Refuses combinations of sync, bitmap and bitmap-mode that mean nothing. */
static int check_bitmap_arguments(const struct json_value *data, GError **err)
{
    const char *sync = json_dict_string(data, "sync", "");
    const char *bitmap = json_dict_string(data, "bitmap", NULL);
    const char *mode = json_dict_string(data, "bitmap-mode", NULL);
    bool incremental = strcmp(sync, "incremental") == 0;

    if (bitmap == NULL) {
        if (incremental || strcmp(sync, "bitmap") == 0) {
            return error_set(err, -EINVAL, "sync=%s needs a 'bitmap'", sync);
        }
        if (mode != NULL) {
            return error_set(err, -EINVAL,
                             "'bitmap-mode' has no meaning without a 'bitmap'");
        }
        if (json_dict_get(data, "x-cohort-base") != NULL) {
            return error_set(err, -EINVAL,
                             "'x-cohort-base' has no meaning without a "
                             "'bitmap'");
        }
        return 0;
    }
    if (incremental) {
        if (mode != NULL && strcmp(mode, "on-success") != 0) {
            return error_set(err, -EINVAL,
                             "sync=incremental means bitmap-mode=on-success, "
                             "not '%s'; use sync=bitmap for that",
                             mode);
        }
        return 0;
    }
    if (strcmp(sync, "none") == 0) {
        return error_set(err, -EINVAL,
                         "sync=none copies by no bitmap: leave it out");
    }
    if (mode == NULL) {
        return error_set(err, -EINVAL,
                         "sync=%s with a bitmap needs a 'bitmap-mode'", sync);
    }
    if (strcmp(sync, "bitmap") != 0 && strcmp(mode, "never") == 0) {
        return error_set(err, -EINVAL,
                         "bitmap-mode=never has no meaning with sync=%s: "
                         "leave the bitmap out",
                         sync);
    }
    return 0;
}

/* The value of an enumeration's member, by its place among `names`. */
static unsigned int place_of(const struct json_value *data,
                             const char *key,
                             const char *otherwise,
                             const char *const *names)
{
    const char *name = json_dict_string(data, key, otherwise);
    unsigned int place = 0;

    while (strcmp(names[place], name) != 0) {
        place++;
    }
    return place;
}

/* `auto` is `enospc`. */
static enum backup_error_policy error_policy_of(const struct json_value *data,
                                                const char *key)
{
    unsigned int place =
        place_of(data, key, "report", backup_error_policy_names);

    return place > BACKUP_ERROR_STOP ? BACKUP_ERROR_ENOSPC : place;
}

static enum backup_sync sync_of(const struct json_value *data)
{
    const char *sync = json_dict_string(data, "sync", "");

    if (strcmp(sync, "full") == 0) {
        return BACKUP_SYNC_FULL;
    }
    if (strcmp(sync, "top") == 0) {
        return BACKUP_SYNC_TOP;
    }
    return strcmp(sync, "none") == 0 ? BACKUP_SYNC_NONE : BACKUP_SYNC_BITMAP;
}

/* Members that tune how the copying is done. */
static int fill_performance(const struct json_value *data,
                            struct backup_options *options,
                            GError **err)
{
    const struct json_value *perf = json_dict_get(data, "x-perf");
    int64_t workers = BLOCK_COPY_TASKS_MAX;
    int64_t chunk = 0;

    if (perf != NULL) {
        workers = json_dict_int(perf, "max-workers", workers);
        chunk = json_dict_int(perf, "max-chunk", chunk);
        options->cluster_bytes_min =
            json_dict_uint(perf, "min-cluster-size", 0);
        options->copy_range = json_dict_bool(perf, "use-copy-range", false);
    }
    if (workers < 1 || workers > WORKERS_MAX) {
        return error_set(err, -EINVAL, "'max-workers' must be from 1 to %d",
                         WORKERS_MAX);
    }
    if (chunk < 0 || chunk > CHUNK_BYTES_MAX) {
        return error_set(err, -EINVAL, "'max-chunk' must be from 0 to %d",
                         CHUNK_BYTES_MAX);
    }
    if (options->cluster_bytes_min > CHUNK_BYTES_MAX ||
        (options->cluster_bytes_min != 0 &&
         !is_power_of_two(options->cluster_bytes_min))) {
        return error_set(err, -EINVAL,
                         "'min-cluster-size' must be a power of two, at most "
                         "%d",
                         CHUNK_BYTES_MAX);
    }
    options->tasks_max = (unsigned int)workers;
    options->chunk_bytes = (uint64_t)chunk;
    return 0;
}

static void fill_cbw(const struct json_value *data,
                     struct backup_options *options)
{
    uint64_t wait_s =
        json_dict_uint(data, "x-cohort-cbw-timeout",
                       BLOCK_COPY_SAVE_WAIT_NS / NANOSECONDS_PER_SECOND);

    options->break_guest_write =
        strcmp(json_dict_string(data, "on-cbw-error", "break-snapshot"),
               "break-guest-write") == 0;
    options->save_wait_ns =
        wait_s == 0 ? UINT64_MAX : wait_s * NANOSECONDS_PER_SECOND;
}

static int fill_options(struct backup_action *self,
                        struct backup_options *options,
                        GError **err)
{
    const struct json_value *data = self->data;
    int64_t speed = json_dict_int(data, "speed", 0);
    int ret = check_bitmap_arguments(data, err);

    if (ret < 0) {
        return ret;
    }
    if (speed < 0) {
        return error_set(err, -EINVAL, "'speed' must not be negative");
    }
    *options = (struct backup_options){
        .job = {
            .id = json_dict_string(data, "job-id", ""),
            .auto_finalize = json_dict_bool(data, "auto-finalize", true),
            .auto_dismiss = json_dict_bool(data, "auto-dismiss", true),
            .speed = (uint64_t)speed,
        },
        .sync = sync_of(data),
        .bitmap_mode =
            place_of(data, "bitmap-mode", "on-success", backup_bitmap_mode_names),
        .on_source_error = error_policy_of(data, "on-source-error"),
        .on_target_error = error_policy_of(data, "on-target-error"),
        .compress = json_dict_bool(data, "compress", false),
        .filter_name = json_dict_string(data, "filter-node-name", NULL),
        .discard_source = json_dict_bool(data, "discard-source", false),
    };
    fill_cbw(data, options);
    ret = fill_performance(data, options, err);
    if (ret < 0) {
        return ret;
    }
    options->source = block_find(self->context->engine->graph,
                                 json_dict_string(data, "device", ""), err);
    return options->source == NULL ? -ENOENT : 0;
}

static bool is_point(const struct bitmap_point *point,
                     const struct json_value *demand)
{
    char txid[JOURNAL_ID_TEXT_BYTES], disk[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(&point->txid, txid);
    journal_id_format(&point->disk, disk);
    return strcmp(json_dict_string(demand, "txid", ""), txid) == 0 &&
           strcmp(json_dict_string(demand, "disk", ""), disk) == 0;
}

static bool has_base(const struct bitmap_base *base,
                     const struct json_value *demand)
{
    switch (base->kind) {
    case BITMAP_BASE_NONE: return false;
    case BITMAP_BASE_ONE: return is_point(&base->points[0], demand);
    case BITMAP_BASE_EITHER:
        return is_point(&base->points[0], demand) ||
               is_point(&base->points[1], demand);
    }
    g_assert_not_reached();
}

/* x-cohort-base: only of a bitmap that is a difference to that backup, and has
 * recorded all that came after. */
static int co_check_base(const struct bitmap_view_entry *entry,
                         const struct json_value *demand,
                         GError **err)
{
    struct bitmap_base base = { .kind = BITMAP_BASE_NONE };
    struct loop *main = loop_current();
    struct tracker *tracker;
    bool enabled;

    if (demand == NULL) {
        return 0;
    }
    co_move(block_home(entry->node));
    tracker = tracker_of(entry->node);
    enabled = dirty_bitmap_is_enabled(entry->bitmap);
    if (tracker != NULL) {
        (void)tracker_base(tracker, entry->bitmap, &base);
    }
    co_move(main);
    if (!has_base(&base, demand)) {
        return error_set(err, -ESTALE,
                         "Dirty bitmap '%s' of node '%s' is no difference to "
                         "the backup that 'x-cohort-base' names (transaction "
                         "%s); back up the whole disk",
                         dirty_bitmap_name(entry->bitmap),
                         block_name(entry->node),
                         json_dict_string(demand, "txid", ""));
    }
    if (!enabled) {
        return error_set(err, -EINVAL,
                         "Dirty bitmap '%s' of node '%s' is disabled, and has "
                         "not recorded all that came after the backup that "
                         "'x-cohort-base' names",
                         dirty_bitmap_name(entry->bitmap),
                         block_name(entry->node));
    }
    return 0;
}

static int co_find_bitmap(struct backup_action *self,
                          struct transaction *transaction,
                          struct backup_options *options,
                          GError **err)
{
    const char *name = json_dict_string(self->data, "bitmap", NULL);
    int ret;

    if (name == NULL) {
        return 0;
    }
    ret = co_bitmap_view_get_usable(self->context->engine, transaction,
                                    block_name(options->source), name,
                                    &self->entry, err);
    if (ret < 0) {
        return ret;
    }
    ret = co_check_base(self->entry, json_dict_get(self->data, "x-cohort-base"),
                        err);
    if (ret < 0) {
        return ret;
    }
    if (options->bitmap_mode != BACKUP_BITMAP_NEVER) {
        ret = bitmap_view_check_changeable(self->entry, err);
    }
    if (ret < 0) {
        return ret;
    }
    self->bitmap = self->entry->bitmap;
    options->has_bitmap = true;
    options->bitmap_granularity_bytes = self->entry->granularity_bytes;
    return 0;
}

static int co_make_job(struct backup_action *self,
                       struct transaction *transaction,
                       const struct backup_options *options,
                       GError **err)
{
    const GPtrArray *nodes;
    int ret = co_backup_prepare(self->context->engine->jobs, options,
                                &self->job, err);

    if (ret < 0) {
        return ret;
    }
    if (self->entry != NULL) {
        ret = action_record_job(self->context, self->job, self->entry,
                                options->bitmap_mode, &self->group, err);
        if (ret < 0) {
            co_job_discard(self->job);
            self->job = NULL;
            return ret;
        }
        bitmap_view_claim(self->entry, job_id(self->job));
    }
    transaction_add_node(transaction, options->source);
    nodes = backup_nodes_to_drain(self->job);
    for (guint i = 0; nodes != NULL && i < nodes->len; i++) {
        transaction_add_node_drained(transaction, g_ptr_array_index(nodes, i));
    }
    return 0;
}

static int co_prepare_blockdev(struct transaction_action *action,
                               struct transaction *transaction,
                               GError **err)
{
    struct backup_action *self = action_of(action);
    struct backup_options options;
    int ret = fill_options(self, &options, err);

    if (ret < 0) {
        return ret;
    }
    options.target =
        block_find(self->context->engine->graph,
                   json_dict_string(self->data, "target", ""), err);
    if (options.target == NULL) {
        return -ENOENT;
    }
    ret = co_find_bitmap(self, transaction, &options, err);
    return ret < 0 ? ret : co_make_job(self, transaction, &options, err);
}

static int co_prepare_drive(struct transaction_action *action,
                            struct transaction *transaction,
                            GError **err)
{
    struct backup_action *self = action_of(action);
    struct block_graph *graph = self->context->engine->graph;
    struct backup_options options;
    g_autofree char *target_name = NULL;
    int ret = fill_options(self, &options, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_find_bitmap(self, transaction, &options, err);
    if (ret < 0) {
        return ret;
    }
    /* There is one layer only. */
    if (options.sync == BACKUP_SYNC_TOP &&
        block_child(options.source, "backing") == NULL) {
        options.sync = BACKUP_SYNC_FULL;
    }
    ret = co_backup_target_open(options.source, options.sync, self->data,
                                &options.target, err);
    if (ret < 0) {
        return ret;
    }
    target_name = g_strdup(block_name(options.target));
    options.owns_target = true;
    ret = co_make_job(self, transaction, &options, err);
    if (ret < 0) {
        co_block_del(graph, target_name, NULL);
    }
    return ret;
}

static void commit_backup(struct transaction_action *action)
{
    struct backup_action *self = action_of(action);

    backup_commit(self->job, self->bitmap);
    self->committed = true;
}

static void co_abort_backup(struct transaction_action *action)
{
    struct backup_action *self = action_of(action);

    co_job_discard(self->job);
    self->job = NULL;
}

static void co_clean_backup(struct transaction_action *action)
{
    struct backup_action *self = action_of(action);

    if (self->committed) {
        g_ptr_array_add(self->context->jobs, self->job);
        g_ptr_array_add(self->context->job_groups, self->group);
    }
    g_free(self);
}

static const struct transaction_action_ops blockdev_ops = {
    .name = "blockdev-backup",
    .co_prepare = co_prepare_blockdev,
    .commit = commit_backup,
    .co_abort = co_abort_backup,
    .co_clean = co_clean_backup,
};

static const struct transaction_action_ops drive_ops = {
    .name = "drive-backup",
    .co_prepare = co_prepare_drive,
    .commit = commit_backup,
    .co_abort = co_abort_backup,
    .co_clean = co_clean_backup,
};

static struct transaction_action *create(
    const struct transaction_action_ops *ops,
    struct action_context *context,
    const struct json_value *data)
{
    struct backup_action *self = g_new0(struct backup_action, 1);

    self->action.ops = ops;
    self->context = context;
    self->data = data;
    return &self->action;
}

static struct transaction_action *create_blockdev(
    struct action_context *context,
    const struct json_value *data)
{
    return create(&blockdev_ops, context, data);
}

static struct transaction_action *create_drive(struct action_context *context,
                                               const struct json_value *data)
{
    return create(&drive_ops, context, data);
}

const struct action_type backup_action_types[] = {
    { .name = "blockdev-backup", .makes_job = true, .create = create_blockdev },
    { .name = "drive-backup", .makes_job = true, .create = create_drive },
    { .name = NULL },
};
