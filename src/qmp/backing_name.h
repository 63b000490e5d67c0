/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a new image names the image of a node as its backing file: by the
 * absolute path of its file, and its format. Main thread.
 */
#ifndef QMP_BACKING_NAME_H
#define QMP_BACKING_NAME_H

#include "block/node.h"

/* `*ret_name` is a new string, `*ret_format` a constant. -ENOTSUP when the
 * image cannot be named by these two alone. */
int backing_name_of(const struct block_node *node,
                    char **ret_name,
                    const char **ret_format,
                    GError **err);

#endif
