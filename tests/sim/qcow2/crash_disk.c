/* SPDX-License-Identifier: BSD-3-Clause */
#include "qcow2/crash_disk.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "loop/coroutine.h"

static struct crash_disk *const *known_disks;
static size_t known_count;

void crash_disks_set(struct crash_disk *const *disks, size_t count)
{
    known_disks = disks;
    known_count = count;
}

void crash_disk_init(struct crash_disk *disk, const char *name)
{
    *disk = (struct crash_disk){ .name = name };
    disk->bytes = mmap(NULL, CRASH_DISK_BYTES_MAX, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert(disk->bytes != MAP_FAILED);
    disk->log = g_array_new(FALSE, FALSE, sizeof(struct crash_event));
}

void crash_disk_release(struct crash_disk *disk)
{
    for (guint i = 0; i < disk->log->len; i++) {
        g_free(g_array_index(disk->log, struct crash_event, i).data);
    }
    g_array_free(disk->log, TRUE);
    munmap(disk->bytes, CRASH_DISK_BYTES_MAX);
}

static void add_event(struct crash_disk *disk, const struct crash_event *event)
{
    if (disk->is_logging) {
        g_array_append_vals(disk->log, event, 1);
    }
}

void crash_disk_mark(struct crash_disk *disk,
                     unsigned int mark,
                     uint64_t offset,
                     uint64_t bytes,
                     unsigned int number)
{
    const struct crash_event event = {
        .kind = EVENT_MARK,
        .mark = mark,
        .number = number,
        .offset = offset,
        .bytes = bytes,
    };

    add_event(disk, &event);
}

/* --- The driver ------------------------------------------------------------- */

static int co_open(struct block_node *node,
                   const struct json_value *options,
                   GError **err)
{
    (void)options;
    (void)err;
    for (size_t i = 0; i < known_count; i++) {
        if (strcmp(known_disks[i]->name, block_name(node)) == 0) {
            block_set_state(node, known_disks[i]);
            block_set_size(node, known_disks[i]->size_bytes);
            return 0;
        }
    }
    g_assert_not_reached();
}

static void co_take_time(struct crash_disk *disk)
{
    if (disk->random == NULL || random_once_in(disk->random, 3)) {
        return;
    }
    if (random_once_in(disk->random, 4)) {
        co_reschedule();
    } else {
        co_sleep_until(loop_now_ns() + random_below(disk->random, 300000));
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
    co_take_time(disk);
    if (disk->random != NULL && random_once_in(disk->random, 10)) {
        /* Long enough for all else to change under it. */
        co_sleep_until(loop_now_ns() + random_below(disk->random, 30000000));
    }
    for (int i = 0; i < iov_count; i++) {
        memcpy(iov[i].iov_base, disk->bytes + offset, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    return 0;
}

/* The file changes at one moment within the request. */
static void apply(struct crash_disk *disk,
                  uint64_t offset,
                  uint64_t bytes,
                  uint8_t *data)
{
    const struct crash_event event = {
        .kind = EVENT_WRITE,
        .offset = offset,
        .bytes = bytes,
        .data = data,
    };

    if (data == NULL) {
        memset(disk->bytes + offset, 0, bytes);
    } else {
        memcpy(disk->bytes + offset, data, bytes);
    }
    if (disk->is_logging) {
        add_event(disk, &event);
    } else {
        g_free(data);
    }
}

static int co_pwritev(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags)
{
    struct crash_disk *disk = block_state(node);
    uint8_t *data = g_malloc(bytes);
    uint8_t *to = data;

    (void)flags;
    for (int i = 0; i < iov_count; i++) {
        memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    co_take_time(disk);
    apply(disk, offset, bytes, data);
    co_take_time(disk);
    return 0;
}

static int co_write_zeroes(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           unsigned int flags)
{
    struct crash_disk *disk = block_state(node);

    (void)flags;
    co_take_time(disk);
    apply(disk, offset, bytes, NULL);
    return 0;
}

static int co_discard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
    return co_write_zeroes(node, offset, bytes, 0);
}

static int co_flush(struct block_node *node)
{
    struct crash_disk *disk = block_state(node);
    struct crash_event event = {
        .kind = EVENT_SYNC_BEGIN,
        .number = disk->syncs++,
    };

    add_event(disk, &event);
    co_take_time(disk);
    co_take_time(disk);
    event.kind = EVENT_SYNC_END;
    add_event(disk, &event);
    return 0;
}

static int co_truncate(struct block_node *node,
                       uint64_t size_bytes,
                       bool shrink,
                       GError **err)
{
    struct crash_disk *disk = block_state(node);
    const struct crash_event event = { .kind = EVENT_RESIZE,
                                       .bytes = size_bytes };

    (void)shrink;
    (void)err;
    g_assert(size_bytes <= CRASH_DISK_BYTES_MAX);
    if (size_bytes < disk->size_bytes) {
        memset(disk->bytes + size_bytes, 0, disk->size_bytes - size_bytes);
    }
    disk->size_bytes = size_bytes;
    block_set_size(node, size_bytes);
    add_event(disk, &event);
    return 0;
}

static const struct schema_member members[] = {
    { .name = NULL },
};

static const struct schema_type options_type = {
    .kind = SCHEMA_STRUCT,
    .name = "BlockdevOptionsCrashDisk",
    .members = members,
};

const struct block_driver driver_crash_disk = {
    .name = "crash-disk",
    .options = &options_type,
    .co_open = co_open,
    .co_preadv = co_preadv,
    .co_pwritev = co_pwritev,
    .co_write_zeroes = co_write_zeroes,
    .co_discard = co_discard,
    .co_flush = co_flush,
    .co_truncate = co_truncate,
};

struct block_node *co_crash_disk_add(struct block_graph *graph,
                                     struct crash_disk *disk)
{
    g_autoptr(json_value) options = json_dict_new();
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", driver_crash_disk.name);
    json_dict_set_string(options, "node-name", disk->name);
    json_dict_set_string(options, "discard", "unmap");
    g_assert(co_block_add(graph, options, true, &node, NULL) == 0);
    return node;
}
