/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/snapshot_image.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/filename.h"
#include "drivers/qcow2/create.h"
#include "qmp/backing_name.h"

static int co_make(const struct block_node *node,
                   const char *path,
                   const char *format,
                   GError **err)
{
    g_autofree char *backing = NULL;
    struct qcow2_create_options options;
    const char *backing_format;
    int ret = backing_name_of(node, &backing, &backing_format, err);

    if (ret < 0) {
        return ret;
    }
    if (strcmp(format, "qcow2") != 0) {
        return error_set(err, -ENOTSUP,
                         "An image of format '%s' cannot have a backing file: "
                         "use qcow2",
                         format);
    }
    options = (struct qcow2_create_options){
        .size_bytes = block_size(node),
        .backing_file = backing,
        .backing_format = backing_format,
    };
    return co_image_create(block_graph_of(node), path, &options, err);
}

int co_snapshot_image_open(struct block_node *node,
                           const struct json_value *data,
                           struct block_node **ret_overlay,
                           GError **err)
{
    const char *path = json_dict_string(data, "snapshot-file", "");
    const char *name = json_dict_string(data, "snapshot-node-name", NULL);
    const char *format = json_dict_string(data, "format", "qcow2");
    const char *mode = json_dict_string(data, "mode", "absolute-paths");
    g_autoptr(json_value) options = NULL;
    int ret = 0;

    if (strcmp(mode, "existing") != 0) {
        ret = co_make(node, path, format, err);
    }
    if (ret < 0) {
        return ret;
    }
    /* Relative to where the daemon runs, as any file name in a command. */
    options = co_block_filename_to_options(path, format, "", err);
    if (options == NULL) {
        return -EINVAL;
    }
    if (name != NULL) {
        json_dict_set_string(options, "node-name", name);
    }
    json_dict_set(options, "backing", json_null_new());
    block_take_over_options(node, options);
    return co_block_add(block_graph_of(node), options, false, ret_overlay, err);
}
