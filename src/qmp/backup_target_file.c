/* SPDX-License-Identifier: BSD-3-Clause */
#include "qmp/backup_target_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "block/request.h"
#include "loop/coroutine.h"

/* qcow2 specification, "Header": the first four bytes. */
static const char qcow2_magic[4] = { 'Q', 'F', 'I', '\xfb' };

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

/* Runs where it may block. An existing image that someone holds open is not
 * emptied here: opening the node takes the locks first (see below). */
static int create_file(void *opaque)
{
    const char *path = opaque;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

    if (fd < 0) {
        return -errno;
    }
    close(fd);
    return sync_directory_of(path);
}

static int probe_format(void *opaque)
{
    const char *path = opaque;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char start[sizeof(qcow2_magic)];
    ssize_t got;

    if (fd < 0) {
        return -errno;
    }
    got = pread(fd, start, sizeof(start), 0);
    close(fd);
    if (got == (ssize_t)sizeof(start) &&
        memcmp(start, qcow2_magic, sizeof(start)) == 0) {
        return -ENOTSUP;
    }
    return got < 0 ? -errno : 0;
}

static int co_check_existing(const char *path, const char *format, GError **err)
{
    int ret;

    if (format != NULL) {
        return 0;
    }
    ret = co_offload(probe_format, (void *)(uintptr_t)path);
    if (ret == -ENOTSUP) {
        return error_set(err, ret,
                         "Backup target '%s' is a qcow2 image, which cannot be "
                         "written yet; say format=raw to overwrite it",
                         path);
    }
    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot read backup target '%s'",
                               path);
    }
    return 0;
}

static struct json_value *node_options(const char *path)
{
    struct json_value *options = json_dict_new();
    struct json_value *file = json_dict_new();

    json_dict_set_string(file, "driver", "file");
    json_dict_set_string(file, "filename", path);
    json_dict_set_string(file, "discard", "unmap");
    json_dict_set_string(options, "driver", "raw");
    json_dict_set_string(options, "discard", "unmap");
    json_dict_set(options, "file", file);
    return options;
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

static int co_make_file(struct block_graph *graph,
                        const char *path,
                        uint64_t size_bytes,
                        struct block_node **ret_node,
                        GError **err)
{
    g_autoptr(json_value) options = node_options(path);
    g_autofree char *name = NULL;
    int ret = co_offload(create_file, (void *)(uintptr_t)path);

    if (ret < 0) {
        return error_set_errno(err, ret, "Cannot create backup target '%s'",
                               path);
    }
    ret = co_block_add(graph, options, false, ret_node, err);
    if (ret < 0) {
        return ret;
    }
    ret = co_set_size(*ret_node, size_bytes, err);
    if (ret < 0) {
        name = g_strdup(block_name(*ret_node));
        if (co_block_del(graph, name, NULL) < 0) {
            g_assert_not_reached(); /* nobody else knows the node */
        }
    }
    return ret;
}

int co_backup_target_open(struct block_graph *graph,
                          const char *path,
                          const char *format,
                          bool existing,
                          uint64_t size_bytes,
                          struct block_node **ret_node,
                          GError **err)
{
    g_autoptr(json_value) options = node_options(path);
    int ret;

    if (format != NULL && strcmp(format, "raw") != 0) {
        return error_set(err, -ENOTSUP,
                         "Backup target '%s' cannot have format '%s': raw is "
                         "the one format that can be written",
                         path, format);
    }
    if (!existing) {
        return co_make_file(graph, path, size_bytes, ret_node, err);
    }
    ret = co_check_existing(path, format, err);
    if (ret < 0) {
        return ret;
    }
    return co_block_add(graph, options, false, ret_node, err);
}
