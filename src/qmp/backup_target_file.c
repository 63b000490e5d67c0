/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/backup_target_file.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"
#include "block/filename.h"
#include "block/request.h"
#include "drivers/file_make.h"
#include "drivers/qcow2/create.h"
#include "loop/coroutine.h"
#include "qmp/backing_name.h"

/* What lies below the new image; NULL: nothing. */
static struct block_node *backing_of(struct block_node *source,
                                     enum backup_sync sync,
                                     bool is_qcow2)
{
    if (is_qcow2 && sync == BACKUP_SYNC_NONE) {
        return source;
    }
    return is_qcow2 && sync == BACKUP_SYNC_TOP ? block_child(source, "backing")
                                               : NULL;
}

/* --- A new file ---------------------------------------------------------------- */

static int co_make_qcow2(struct block_node *source,
                         const char *path,
                         const struct block_node *backing,
                         GError **err)
{
    g_autofree char *name = NULL;
    const char *format = NULL;
    int ret =
        backing == NULL ? 0 : backing_name_of(backing, &name, &format, err);

    if (ret < 0) {
        return ret;
    }
    return co_image_create(block_graph_of(source), path,
                           &(struct qcow2_create_options){
                               .size_bytes = block_size(source),
                               .backing_file = name,
                               .backing_format = format,
                           },
                           err);
}

static struct json_value *options_for(const char *path, const char *format)
{
    struct json_value *options = json_dict_new();
    struct json_value *file = json_dict_new();

    json_dict_set_string(file, "driver", "file");
    json_dict_set_string(file, "filename", path);
    json_dict_set_string(options, "driver", format);
    json_dict_set(options, "file", file);
    return options;
}

/* What any target gets. */
static void add_settings(struct json_value *options)
{
    struct json_value *file = json_dict_get_mutable(options, "file");

    json_dict_set_string(options, "discard", "unmap");
    json_dict_set_string(options, "detect-zeroes", "unmap");
    if (file != NULL && json_type_of(file) == JSON_DICT) {
        json_dict_set_string(file, "discard", "unmap");
    }
}

/* Emptied, then as long as the source: all of it reads as zeroes. The node
 * holds the image's locks by now, and is refused if anyone relies on it. */
static int co_set_size(struct block_node *node,
                       uint64_t size_bytes,
                       GError **err)
{
    struct loop *main = loop_current();
    int ret;

    co_move(block_home(node));
    ret = co_block_truncate(node, 0, true, err);
    if (ret == 0) {
        ret = co_block_truncate(node, size_bytes, true, err);
    }
    co_move(main);
    return ret;
}

static int co_open_new_raw(struct block_node *source,
                           const struct json_value *options,
                           struct block_node **ret_node,
                           GError **err)
{
    struct block_graph *graph = block_graph_of(source);
    g_autofree char *name = NULL;
    int ret = co_block_add(graph, options, false, ret_node, err);

    if (ret < 0) {
        return ret;
    }
    ret = co_set_size(*ret_node, block_size(source), err);
    if (ret < 0) {
        name = g_strdup(block_name(*ret_node));
        if (co_block_del(graph, name, NULL) < 0) {
            g_assert_not_reached(); /* nobody else knows the node */
        }
    }
    return ret;
}

static int co_open_new(struct block_node *source,
                       enum backup_sync sync,
                       const char *path,
                       const char *format,
                       struct block_node **ret_node,
                       GError **err)
{
    bool is_qcow2 = strcmp(format, "qcow2") == 0;
    const struct block_node *backing = backing_of(source, sync, is_qcow2);
    g_autoptr(json_value) options = options_for(path, format);
    int ret = is_qcow2 ? co_make_qcow2(source, path, backing, err)
                       : co_file_make(path, err);

    if (ret < 0) {
        g_prefix_error(err, "Cannot make the backup target: ");
        return ret;
    }
    add_settings(options);
    if (!is_qcow2) {
        return co_open_new_raw(source, options, ret_node, err);
    }
    /* The very node, which others write to or have open already. */
    json_dict_set(options, "backing",
                  backing == NULL ? json_null_new()
                                  : json_string_new(block_name(backing)));
    return co_block_add(block_graph_of(source), options, false, ret_node, err);
}

/* --- An existing one ----------------------------------------------------------- */

static int co_open_existing(struct block_node *source,
                            enum backup_sync sync,
                            const char *path,
                            const char *format,
                            struct block_node **ret_node,
                            GError **err)
{
    /* Relative to where the daemon runs, as any file name in a command. */
    g_autoptr(json_value) options =
        co_block_filename_to_options(path, format, "", err);

    if (options == NULL) {
        g_prefix_error(err, "Cannot open the backup target: ");
        return -EINVAL;
    }
    add_settings(options);
    if (sync == BACKUP_SYNC_NONE &&
        strcmp(json_dict_string(options, "driver", ""), "qcow2") == 0) {
        json_dict_set_string(options, "backing", block_name(source));
    }
    return co_block_add(block_graph_of(source), options, false, ret_node, err);
}

static const char *format_of(const struct block_node *node)
{
    return strcmp(block_driver_of(node)->name, "qcow2") == 0 ? "qcow2" : "raw";
}

int co_backup_target_open(struct block_node *source,
                          enum backup_sync sync,
                          const struct json_value *data,
                          struct block_node **ret_node,
                          GError **err)
{
    const char *path = json_dict_string(data, "target", "");
    const char *format = json_dict_string(data, "format", NULL);
    const char *mode = json_dict_string(data, "mode", "absolute-paths");

    if (format != NULL && strcmp(format, "raw") != 0 &&
        strcmp(format, "qcow2") != 0) {
        return error_set(err, -ENOTSUP,
                         "Backup target '%s' cannot have format '%s': raw and "
                         "qcow2 are what can be written",
                         path, format);
    }
    if (strcmp(mode, "existing") == 0) {
        return co_open_existing(source, sync, path, format, ret_node, err);
    }
    return co_open_new(source, sync, path,
                       format == NULL ? format_of(source) : format, ret_node,
                       err);
}
