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
#include "base/error.h"
#include "bitmap/dirty_bitmap.h"
#include "loop/coroutine.h"
#include "qmp/actions.h"
#include "qmp/backup_target_file.h"

struct backup_action {
    struct transaction_action action;
    struct action_context *context;
    const struct json_value *data;   /* borrowed */
    struct job *job;                 /* NULL before prepare and after abort */
    struct bitmap_view_entry *entry; /* NULL: without bitmap */
    struct dirty_bitmap *bitmap;     /* what the entry stood for at prepare */
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
    if (mode == NULL) {
        return error_set(err, -EINVAL,
                         "sync=%s with a bitmap needs a 'bitmap-mode'", sync);
    }
    if (strcmp(sync, "full") == 0 && strcmp(mode, "never") == 0) {
        return error_set(err, -EINVAL,
                         "bitmap-mode=never has no meaning with sync=full: "
                         "leave the bitmap out");
    }
    return 0;
}

static enum backup_bitmap_mode bitmap_mode_of(const struct json_value *data)
{
    const char *mode = json_dict_string(data, "bitmap-mode", "on-success");

    if (strcmp(mode, "never") == 0) {
        return BACKUP_BITMAP_NEVER;
    }
    return strcmp(mode, "always") == 0 ? BACKUP_BITMAP_ALWAYS
                                       : BACKUP_BITMAP_ON_SUCCESS;
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
        .sync = strcmp(json_dict_string(data, "sync", ""), "full") == 0
                    ? BACKUP_SYNC_FULL
                    : BACKUP_SYNC_BITMAP,
        .bitmap_mode = bitmap_mode_of(data),
    };
    options->source = block_find(self->context->engine->graph,
                                 json_dict_string(data, "device", ""), err);
    return options->source == NULL ? -ENOENT : 0;
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
    ret = co_bitmap_view_get_free(self->context->engine, transaction,
                                  block_name(options->source), name,
                                  &self->entry, err);
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
    int ret = co_backup_prepare(self->context->engine->jobs, options,
                                &self->job, err);

    if (ret < 0) {
        return ret;
    }
    if (self->entry != NULL) {
        bitmap_view_claim(self->entry, job_id(self->job));
    }
    transaction_add_node(transaction, options->source);
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
    const char *mode = json_dict_string(self->data, "mode", "absolute-paths");
    int ret = fill_options(self, &options, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_find_bitmap(self, transaction, &options, err);
    if (ret < 0) {
        return ret;
    }
    ret =
        co_backup_target_open(graph, json_dict_string(self->data, "target", ""),
                              json_dict_string(self->data, "format", NULL),
                              strcmp(mode, "existing") == 0,
                              block_size(options.source), &options.target, err);
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

/* --- Types ------------------------------------------------------------------- */

static const struct schema_type sync_type = {
    .kind = SCHEMA_ENUM,
    .name = "MirrorSyncMode",
    .doc = "What a backup copies: everything, or what a bitmap says.",
    .values = (const char *const[]){ "full", "incremental", "bitmap", NULL },
};

static const struct schema_type bitmap_mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "BitmapSyncMode",
    .doc = "When the bitmap gives up what has been copied.",
    .values = (const char *const[]){ "on-success", "never", "always", NULL },
};

static const struct schema_type new_image_mode_type = {
    .kind = SCHEMA_ENUM,
    .name = "NewImageMode",
    .values = (const char *const[]){ "existing", "absolute-paths", NULL },
};

#define BACKUP_COMMON_MEMBERS                                            \
 { .name = "job-id",                                                     \
   .type = &schema_string,                                               \
   .doc = "Name of the job; needed, since nodes have no device name." }, \
     { .name = "device",                                                 \
       .type = &schema_string,                                           \
       .required = true,                                                 \
       .doc = "Name of the node to back up." },                          \
     { .name = "sync",                                                   \
       .type = &sync_type,                                               \
       .required = true,                                                 \
       .doc = "What to copy; `incremental` is `bitmap` with "            \
              "bitmap-mode `on-success`." },                             \
     { .name = "speed",                                                  \
       .type = &schema_int,                                              \
       .fallback = "0: no limit",                                        \
       .doc = "Bytes per second of the background copy." },              \
     { .name = "bitmap",                                                 \
       .type = &schema_string,                                           \
       .doc = "Name of a dirty bitmap on `device`." },                   \
     { .name = "bitmap-mode",                                            \
       .type = &bitmap_mode_type,                                        \
       .doc = "Needed with a bitmap, unless sync is `incremental`." },   \
     { .name = "auto-finalize",                                          \
       .type = &schema_bool,                                             \
       .fallback = "true",                                               \
       .doc = "false: wait in `pending` for job-finalize." },            \
 {                                                                       \
  .name = "auto-dismiss", .type = &schema_bool, .fallback = "true",      \
  .doc = "false: stay in `concluded` until job-dismiss."                 \
 }

const struct schema_type blockdev_backup_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevBackup",
    .members =
        (const struct schema_member[]){
            BACKUP_COMMON_MEMBERS,
            { .name = "target",
              .type = &schema_string,
              .required = true,
              .doc = "Name of the node to write to, as large as `device`." },
            { .name = NULL },
        },
};

const struct schema_type drive_backup_type = {
    .kind = SCHEMA_STRUCT,
    .name = "DriveBackup",
    .members =
        (const struct schema_member[]){
            BACKUP_COMMON_MEMBERS,
            { .name = "target",
              .type = &schema_string,
              .required = true,
              .doc = "Name of the file to write to." },
            { .name = "format",
              .type = &schema_string,
              .doc = "Format of the file; raw." },
            { .name = "mode",
              .type = &new_image_mode_type,
              .fallback = "absolute-paths",
              .doc = "Whether to make the file or to use it as it is." },
            { .name = NULL },
        },
};

const struct action_type backup_action_types[] = {
    { .name = "blockdev-backup", .makes_job = true, .create = create_blockdev },
    { .name = "drive-backup", .makes_job = true, .create = create_drive },
    { .name = NULL },
};
