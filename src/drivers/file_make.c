/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/file_make.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"
#include "block/request.h"
#include "loop/coroutine.h"

static int sync_directory_of(const char *path)
{
    g_autofree char *directory = g_path_get_dirname(path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    ret = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return ret;
}

static int make_file(void *opaque)
{
    const char *path = opaque;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return sync_directory_of(path);
}

int co_file_make(const char *path, GError **err)
{
    union {
        const char *from;
        void *opaque;
    } cast = { .from = path };

    int ret = co_offload(make_file, cast.opaque);

    return ret < 0 ? error_set_errno(err, ret, "Cannot create '%s'", path) : 0;
}

int co_file_open(struct block_graph *graph,
                 const char *path,
                 struct block_node **ret_node,
                 GError **err)
{
    g_autoptr(json_value) options = json_dict_new();

    json_dict_set_string(options, "driver", "file");
    json_dict_set_string(options, "filename", path);
    json_dict_set_string(options, "discard", "unmap");
    return co_block_add(graph, options, false, ret_node, err);
}

int co_file_fill(struct block_node *node,
                 uint64_t size_bytes,
                 enum preallocation how,
                 const struct preallocation_stop *stop,
                 GError **err)
{
    int ret = co_block_truncate(node, 0, true, err);

    if (ret == 0) {
        ret = co_block_truncate(node, size_bytes, false, err);
    }
    if (ret < 0) {
        return ret;
    }
    if (how != PREALLOCATION_OFF) {
        ret = co_preallocate(node, 0, size_bytes, how, stop);
    }
    if (ret == 0) {
        ret = co_block_flush(node);
    }
    return ret < 0 ? error_set_errno(err, ret, "Writing to '%s' failed",
                                     block_name(node))
                   : 0;
}
