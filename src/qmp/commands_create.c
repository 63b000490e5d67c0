/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * blockdev-create: a job that makes a file, or an image in a node.
 *
 * The job opens what the options name, keeps others away from it, writes, and
 * lets go; all of that on the main thread but the writing. Whatever goes wrong
 * after the arguments have been found well-formed is the job's failure, told by
 * `query-jobs` until it is dismissed.
 */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "drivers/file_make.h"
#include "drivers/qcow2/create.h"
#include "job/job_txn.h"
#include "loop/coroutine.h"
#include "qmp/command.h"
#include "qmp/create_types.h"

struct creation {
    struct engine *engine;
    struct json_value *options; /* BlockdevCreateOptions; owned */
    GPtrArray *opened;          /* char *: nodes that this job has opened */
    gint is_cancelled;          /* any thread */
    struct preallocation_stop stop;
};

static struct creation *creation_of(struct job *job)
{
    return job_opaque(job);
}

/* The value of an enumeration's member, by its place among `names`. */
static unsigned int place_of(const struct json_value *options,
                             const char *key,
                             const char *const *names)
{
    const char *name = json_dict_string(options, key, names[0]);
    unsigned int place = 0;

    while (strcmp(names[place], name) != 0) {
        place++;
    }
    return place;
}

/* --- Nodes --------------------------------------------------------------------- */

static void remember_opened(struct creation *creation,
                            const struct block_node *node)
{
    g_ptr_array_add(creation->opened, g_strdup(block_name(node)));
}

/* A BlockdevRef: a node that there is, or one to open for the job alone. */
static int co_find_or_open(struct creation *creation,
                           const char *key,
                           struct block_node **ret_node,
                           GError **err)
{
    const struct json_value *ref = json_dict_get(creation->options, key);
    struct block_graph *graph = creation->engine->graph;
    int ret;

    if (ref == NULL) {
        return 0;
    }
    if (json_type_of(ref) == JSON_STRING) {
        *ret_node = block_find(graph, json_get_string(ref), err);
        return *ret_node == NULL ? -ENOENT : 0;
    }
    ret = co_block_add(graph, ref, false, ret_node, err);
    if (ret == 0) {
        remember_opened(creation, *ret_node);
    }
    return ret;
}

static void co_close_opened(struct creation *creation)
{
    while (creation->opened->len > 0) {
        g_autofree char *name = g_ptr_array_steal_index(
            creation->opened, creation->opened->len - 1);

        if (co_block_del(creation->engine->graph, name, NULL) < 0) {
            g_assert_not_reached(); /* nobody else knows the node */
        }
    }
}

/* --- driver=file --------------------------------------------------------------- */

static int co_open_new_file(struct creation *creation,
                            struct block_node **ret_node,
                            GError **err)
{
    const char *path = json_dict_string(creation->options, "filename", "");
    int ret = co_file_make(path, err);

    if (ret == 0) {
        ret = co_file_open(creation->engine->graph, path, ret_node, err);
    }
    if (ret == 0) {
        remember_opened(creation, *ret_node);
    }
    return ret;
}

static int co_create_file(struct job *job, GError **err)
{
    struct creation *creation = creation_of(job);
    struct engine *engine = creation->engine;
    enum preallocation how =
        place_of(creation->options, "preallocation", preallocation_names);
    struct block_node *node = NULL;
    int ret;

    if (how == PREALLOCATION_METADATA) {
        return error_set(err, -ENOTSUP,
                         "A file has no metadata to preallocate; use falloc "
                         "or full");
    }
    co_block_graph_lock(engine->graph);
    ret = co_open_new_file(creation, &node, err);
    block_graph_unlock(engine->graph);
    if (ret < 0) {
        return ret;
    }
    co_move(block_home(node)); /* nobody but us knows it and could move it */
    ret = co_file_fill(node, json_dict_uint(creation->options, "size", 0), how,
                       &creation->stop, err);
    co_move(engine->main);
    co_block_graph_lock(engine->graph);
    co_close_opened(creation);
    block_graph_unlock(engine->graph);
    return ret;
}

/* --- driver=qcow2 -------------------------------------------------------------- */

static int fill_options(const struct json_value *options,
                        struct qcow2_create_options *ret,
                        GError **err)
{
    uint64_t size_bytes = json_dict_uint(options, "size", 0);
    uint64_t cluster_bytes = json_dict_uint(options, "cluster-size", 65536);
    int64_t refcount_bits = json_dict_int(options, "refcount-bits", 16);

    if (size_bytes % 512 != 0) {
        return error_set(err, -EINVAL,
                         "The size of an image must be a multiple of 512 "
                         "bytes");
    }
    *ret = (struct qcow2_create_options){
        .size_bytes = size_bytes,
        .version = strcmp(json_dict_string(options, "version", "v3"), "v2") == 0
                       ? 2
                       : 3,
        /* What does not fit is not legal either. */
        .cluster_bytes = cluster_bytes > UINT32_MAX || cluster_bytes == 0
                             ? 1
                             : (uint32_t)cluster_bytes,
        .refcount_bits = refcount_bits < 1 || refcount_bits > 64
                             ? 65
                             : (unsigned int)refcount_bits,
        .lazy_refcounts = json_dict_bool(options, "lazy-refcounts", false),
        .extended_l2 = json_dict_bool(options, "extended-l2", false),
        .compression =
            place_of(options, "compression-type", create_compression_names),
        .preallocation =
            place_of(options, "preallocation", preallocation_names),
        .backing_file = json_dict_string(options, "backing-file", NULL),
        .backing_format = json_dict_string(options, "backing-fmt", NULL),
        .data_file_raw = json_dict_bool(options, "data-file-raw", false),
    };
    return 0;
}

/* The name that the image gives its data file: that of the file, if it is one. */
static char *co_name_of(struct block_node *node)
{
    g_autoptr(json_value) info = co_block_info(node, true);

    return g_strdup(json_dict_string(info, "file", ""));
}

static int co_open_nodes(struct creation *creation,
                         struct qcow2_create_options *options,
                         char **ret_data_file_name,
                         struct block_node **ret_file,
                         GError **err)
{
    int ret = co_find_or_open(creation, "file", ret_file, err);

    if (ret == 0) {
        ret = co_find_or_open(creation, "data-file", &options->data_file, err);
    }
    if (ret == 0 && options->data_file != NULL) {
        *ret_data_file_name = co_name_of(options->data_file);
        options->data_file_name = *ret_data_file_name;
    }
    return ret;
}

static int co_create_qcow2(struct job *job, GError **err)
{
    struct creation *creation = creation_of(job);
    struct block_graph *graph = creation->engine->graph;
    g_autofree char *data_file_name = NULL;
    struct qcow2_create_options options;
    struct qcow2_creation nodes;
    struct block_node *file = NULL;
    int ret = fill_options(creation->options, &options, err);

    if (ret < 0) {
        return ret;
    }
    options.stop = &creation->stop;
    co_block_graph_lock(graph);
    ret = co_open_nodes(creation, &options, &data_file_name, &file, err);
    if (ret == 0) {
        ret = co_qcow2_creation_begin(&nodes, file, &options, job_id(job), err);
    }
    if (ret == 0) {
        block_graph_unlock(graph);
        ret = co_qcow2_creation_run(&nodes, &options, err);
        co_block_graph_lock(graph);
        qcow2_creation_end(&nodes);
    }
    co_close_opened(creation);
    block_graph_unlock(graph);
    return ret;
}

/* --- The job ------------------------------------------------------------------- */

static int co_run_creation(struct job *job, GError **err)
{
    const char *driver =
        json_dict_string(creation_of(job)->options, "driver", "");
    int ret;

    job_progress_set_total(job, 1);
    ret = strcmp(driver, "file") == 0 ? co_create_file(job, err)
                                      : co_create_qcow2(job, err);
    if (ret == -ECANCELED) {
        g_clear_error(err); /* as any cancelled job says it */
    }
    job_progress_add_done(job, 1);
    return ret;
}

static int co_prepare_creation(struct job *job, GError **err)
{
    (void)job;
    (void)err;
    return 0; /* all is durable */
}

static void co_end_creation(struct job *job)
{
    (void)job; /* nothing to do, or to undo: what was there is lost */
}

/* What it writes to is then as after any failure. */
static void cancel_creation(struct job *job)
{
    g_atomic_int_set(&creation_of(job)->is_cancelled, 1);
}

static bool is_cancelled(void *opaque)
{
    struct creation *creation = opaque;

    return g_atomic_int_get(&creation->is_cancelled) != 0;
}

static void creation_free(struct creation *creation)
{
    json_free(creation->options);
    g_ptr_array_unref(creation->opened);
    g_free(creation);
}

static void co_clean_creation(struct job *job)
{
    creation_free(creation_of(job));
}

static const struct job_ops creation_ops = {
    .type = "create",
    .co_run = co_run_creation,
    .co_prepare = co_prepare_creation,
    .co_commit = co_end_creation,
    .co_abort = co_end_creation,
    .co_clean = co_clean_creation,
    .cancel = cancel_creation,
};

static int co_blockdev_create(struct engine *engine,
                              const struct json_value *arguments,
                              struct json_value **ret,
                              GError **err)
{
    struct creation *creation = g_new0(struct creation, 1);
    const struct job_options options = {
        .id = json_dict_string(arguments, "job-id", ""),
        .auto_finalize = true,
    };
    struct job_txn *group;
    struct job *job;

    (void)ret; /* {} */
    creation->engine = engine;
    creation->stop = (struct preallocation_stop){ is_cancelled, creation };
    creation->options = json_copy(json_dict_get(arguments, "options"));
    creation->opened = g_ptr_array_new_with_free_func(g_free);
    job = job_new(engine->jobs, &creation_ops, &options, engine->main, creation,
                  err);
    if (job == NULL) {
        creation_free(creation);
        return -EINVAL;
    }
    group = job_txn_new();
    job_txn_add(group, job);
    job_txn_start(&group);
    return 0;
}

const struct qmp_command qmp_commands_create[] = {
    { .name = "blockdev-create",
      .doc = "Starts a job that makes a file, or an image in a node. The job "
             "finalizes itself; `query-jobs` tells how it ended until "
             "`job-dismiss`.",
      .arguments = &blockdev_create_type,
      .co_run = co_blockdev_create },
    { .name = NULL },
};
