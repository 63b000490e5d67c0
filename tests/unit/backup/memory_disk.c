/* SPDX-License-Identifier: BSD-3-Clause */
#include "memory_disk.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

static int co_open(struct block_node *node,
                   const struct json_value *options,
                   GError **err)
{
    struct memory_disk *disk = g_new0(struct memory_disk, 1);
    uint64_t size_bytes = json_dict_uint(options, "size", 0);

    (void)err;
    disk->data = g_malloc0(size_bytes);
    co_queue_init(&disk->released);
    block_set_state(node, disk);
    block_set_size(node, size_bytes);
    return 0;
}

static void co_close(struct block_node *node)
{
    struct memory_disk *disk = block_state(node);

    g_free(disk->data);
    g_free(disk);
}

static int co_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    struct memory_disk *disk = block_state(node);

    (void)bytes;
    disk->reads++;
    while (disk->hang_reads) {
        co_queue_wait(&disk->released);
    }
    for (int i = 0; i < iov_count && disk->read_error == 0; i++) {
        memcpy(iov[i].iov_base, disk->data + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    int ret = disk->read_error;

    if (disk->fail_once) {
        disk->read_error = 0;
    }
    return ret;
}

static int co_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    struct memory_disk *disk = block_state(node);

    disk->last_write_flags = flags;
    disk->writes++;
    while (disk->hang_writes) {
        co_queue_wait(&disk->released);
    }
    for (int i = 0; i < iov_count && disk->write_error == 0; i++) {
        memcpy(disk->data + offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    disk->written_bytes += bytes;
    return disk->write_error;
}

static int co_write_zeroes(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           unsigned int flags)
{
    struct memory_disk *disk = block_state(node);

    (void)flags;
    disk->zero_writes++;
    while (disk->hang_writes) {
        co_queue_wait(&disk->released);
    }
    memset(disk->data + offset, 0, bytes);
    return disk->write_error;
}

static int co_status(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     struct block_extent *ret)
{
    const struct memory_disk *disk = block_state(node);

    (void)offset;
    ret->bytes = bytes;
    ret->status = disk->status == 0 ? BLOCK_STATUS_ALLOCATED : disk->status;
    return 0;
}

static const struct schema_type options_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsMemoryDisk",
    .members =
        (const struct schema_member[]){
            { .name = "size", .type = &schema_size, .required = true },
            { .name = NULL },
        },
};

const struct block_driver driver_memory_disk = {
    .name = "memory-disk",
    .options = &options_type,
    .write_flags = BLOCK_COMPRESS,
    .co_open = co_open,
    .co_close = co_close,
    .co_preadv = co_preadv,
    .co_pwritev = co_pwritev,
    .co_write_zeroes = co_write_zeroes,
    .co_status = co_status,
};

struct memory_disk *memory_disk_of(struct block_node *node)
{
    return block_state(node);
}

void memory_disk_release(struct memory_disk *disk)
{
    disk->hang_reads = false;
    disk->hang_writes = false;
    co_queue_wake_all(&disk->released);
}

struct block_node *co_memory_disk_add(struct block_graph *graph,
                                      const char *name,
                                      uint64_t size_bytes)
{
    g_autoptr(json_value) options = json_dict_new();
    g_autoptr(GError) err = NULL;
    struct block_node *node;

    json_dict_set_string(options, "driver", "memory-disk");
    json_dict_set_string(options, "node-name", name);
    json_dict_set_uint(options, "size", size_bytes);
    if (co_block_add(graph, options, true, &node, &err) < 0) {
        g_error("%s", err->message);
    }
    return node;
}
