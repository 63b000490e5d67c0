/* SPDX-License-Identifier: BSD-3-Clause */
#include "crash_disk.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "loop/coroutine.h"

#define SECTOR 512

struct pending_write {
    uint64_t offset;
    GBytes *data;
};

static void pending_free(void *opaque)
{
    struct pending_write *write = opaque;

    g_bytes_unref(write->data);
    g_free(write);
}

struct crash_disk *crash_disk_of(struct block_node *node)
{
    return block_state(node);
}

static void resize(GByteArray *array, uint64_t size_bytes)
{
    guint old = array->len;

    g_byte_array_set_size(array, (guint)size_bytes);
    if (array->len > old) {
        memset(array->data + old, 0, array->len - old);
    }
}

static int co_open(struct block_node *node,
                   const struct json_value *options,
                   GError **err)
{
    struct crash_disk *disk = g_new0(struct crash_disk, 1);
    uint64_t size_bytes = json_dict_uint(options, "size", 0);

    (void)err;
    disk->now = g_byte_array_new();
    disk->durable = g_byte_array_new();
    disk->pending = g_ptr_array_new_with_free_func(pending_free);
    resize(disk->now, size_bytes);
    resize(disk->durable, size_bytes);
    block_set_state(node, disk);
    block_set_size(node, size_bytes);
    return 0;
}

static void co_close(struct block_node *node)
{
    struct crash_disk *disk = block_state(node);

    g_byte_array_unref(disk->now);
    g_byte_array_unref(disk->durable);
    g_ptr_array_unref(disk->pending);
    g_free(disk);
}

/* Time passes: others run. */
static void co_pass(struct crash_disk *disk)
{
    int turns = disk->chance == NULL ? 0 : g_rand_int_range(disk->chance, 0, 3);

    for (int i = 0; i < turns; i++) {
        co_reschedule();
    }
    if (disk->moment != NULL) {
        disk->moment(disk, disk->opaque);
    }
}

static int co_preadv(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count)
{
    struct crash_disk *disk = block_state(node);

    (void)bytes;
    co_pass(disk);
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, disk->now->data + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

static void put(struct crash_disk *disk, uint64_t offset, GByteArray *data)
{
    struct pending_write *write = g_new(struct pending_write, 1);

    memcpy(disk->now->data + offset, data->data, data->len);
    write->offset = offset;
    write->data = g_byte_array_free_to_bytes(data);
    g_ptr_array_add(disk->pending, write);
}

static int co_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    struct crash_disk *disk = block_state(node);
    GByteArray *data;

    (void)flags;
    (void)bytes;
    co_pass(disk);
    if (disk->fail_writes < 0) {
        return disk->fail_writes;
    }
    data = g_byte_array_new();
    for (int i = 0; i < iov_count; i++) {
        g_byte_array_append(data, iov[i].iov_base, (guint)iov[i].iov_len);
    }
    put(disk, offset, data);
    co_pass(disk);
    return 0;
}

static int co_write_zeroes(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           unsigned int flags)
{
    struct crash_disk *disk = block_state(node);
    GByteArray *data;

    (void)flags;
    co_pass(disk);
    if (disk->fail_writes < 0) {
        return disk->fail_writes;
    }
    data = g_byte_array_new();
    resize(data, bytes);
    put(disk, offset, data);
    co_pass(disk);
    return 0;
}

static void make_durable(struct crash_disk *disk,
                         const struct pending_write *write)
{
    gsize length;
    const void *data = g_bytes_get_data(write->data, &length);

    if (write->offset + length > disk->durable->len) {
        resize(disk->durable, write->offset + length);
    }
    memcpy(disk->durable->data + write->offset, data, length);
}

/* What had been written when it began is durable when it returns. */
static int co_flush(struct block_node *node)
{
    struct crash_disk *disk = block_state(node);
    guint count = disk->pending->len;
    uint64_t size_bytes = disk->now->len;

    disk->flushes++;
    co_pass(disk);
    if (disk->fail_flushes < 0) {
        return disk->fail_flushes;
    }
    count = MIN(count, disk->pending->len); /* another one was faster */
    for (guint i = 0; i < count; i++) {
        make_durable(disk, g_ptr_array_index(disk->pending, i));
    }
    if (count > 0) {
        g_ptr_array_remove_range(disk->pending, 0, count);
    }
    if (size_bytes > disk->durable->len) {
        resize(disk->durable, size_bytes);
    }
    co_pass(disk);
    return 0;
}

static int co_truncate(struct block_node *node,
                       uint64_t size_bytes,
                       bool shrink,
                       GError **err)
{
    struct crash_disk *disk = block_state(node);

    (void)shrink;
    (void)err;
    co_pass(disk);
    resize(disk->now, size_bytes);
    if (size_bytes < disk->durable->len) {
        resize(disk->durable, size_bytes);
    }
    return 0;
}

/* Which sectors of the pending writes a crash keeps. */
enum mood {
    MOOD_NONE,
    MOOD_ALL,
    MOOD_FIRST,  /* writes, in order, up to one */
    MOOD_WRITES, /* any whole writes */
    MOOD_SECTORS,
    MOODS,
};

static void keep_sectors(GByteArray *left,
                         const struct pending_write *write,
                         enum mood mood,
                         GRand *chance)
{
    gsize length;
    const uint8_t *data = g_bytes_get_data(write->data, &length);

    if (mood == MOOD_WRITES && g_rand_boolean(chance)) {
        return;
    }
    for (gsize at = 0; at < length; at += SECTOR) {
        gsize part = MIN(SECTOR, length - at);

        if (mood == MOOD_SECTORS && g_rand_boolean(chance)) {
            continue;
        }
        if (write->offset + at + part > left->len) {
            resize(left, write->offset + at + part);
        }
        memcpy(left->data + write->offset + at, data + at, part);
    }
}

GByteArray *crash_disk_cut(struct crash_disk *disk)
{
    enum mood mood = (enum mood)g_rand_int_range(disk->chance, 0, MOODS);
    GByteArray *left = g_byte_array_new();
    guint count = disk->pending->len;

    g_byte_array_append(left, disk->durable->data, disk->durable->len);
    if (mood == MOOD_NONE) {
        count = 0;
    } else if (mood == MOOD_FIRST && count > 0) {
        count = (guint)g_rand_int_range(disk->chance, 0, (gint32)count + 1);
    }
    for (guint i = 0; i < count; i++) {
        keep_sectors(left, g_ptr_array_index(disk->pending, i), mood,
                     disk->chance);
    }
    if (left->len < disk->now->len && g_rand_boolean(disk->chance)) {
        resize(left, disk->now->len);
    }
    return left;
}

void crash_disk_load(struct block_node *node, const GByteArray *bytes)
{
    struct crash_disk *disk = block_state(node);

    g_byte_array_set_size(disk->now, 0);
    g_byte_array_append(disk->now, bytes->data, bytes->len);
    g_byte_array_set_size(disk->durable, 0);
    g_byte_array_append(disk->durable, bytes->data, bytes->len);
    g_ptr_array_set_size(disk->pending, 0);
    block_set_size(node, bytes->len);
}

static const struct schema_type options_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsCrashDisk",
    .members =
        (const struct schema_member[]){
            { .name = "size", .type = &schema_size },
            { .name = NULL },
        },
};

const struct block_driver driver_crash_disk = {
    .name = "crash-disk",
    .options = &options_type,
    .co_open = co_open,
    .co_close = co_close,
    .co_preadv = co_preadv,
    .co_pwritev = co_pwritev,
    .co_write_zeroes = co_write_zeroes,
    .co_flush = co_flush,
    .co_truncate = co_truncate,
};
