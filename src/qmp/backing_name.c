/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/backing_name.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "block/driver.h"

/* What shows the same and has an image. */
static const struct block_node *skip_filters(const struct block_node *node)
{
    while (strcmp(block_driver_of(node)->name, "copy-before-write") == 0) {
        node = block_child(node, "file");
    }
    return node;
}

static int check_nameable(const struct block_node *node, GError **err)
{
    static const char *const formats[] = { "qcow2", "raw", "file",
                                           "host_device", NULL };
    const char *driver = block_driver_of(node)->name;
    const struct block_node *file = block_child(node, "file");
    bool is_window = strcmp(driver, "raw") == 0 && file != NULL &&
                     block_size(file) != block_size(node);

    if (g_strv_contains(formats, driver) && !is_window &&
        block_filename(node) != NULL) {
        return 0;
    }
    return error_set(err, -ENOTSUP,
                     "No image can name node '%s' as its backing file: it is "
                     "no whole file; make the image with blockdev-create and "
                     "open it with blockdev-add",
                     block_name(node));
}

static char *absolute_path(const char *path)
{
    g_autofree char *directory = NULL;

    if (path[0] == '/') {
        return g_strdup(path);
    }
    directory = g_get_current_dir();
    return g_build_filename(directory, path, NULL);
}

int backing_name_of(const struct block_node *above,
                    char **ret_name,
                    const char **ret_format,
                    GError **err)
{
    const struct block_node *node = skip_filters(above);
    int ret = check_nameable(node, err);

    if (ret == 0) {
        *ret_name = absolute_path(block_filename(node));
        *ret_format = block_driver_of(node)->name;
    }
    return ret;
}
