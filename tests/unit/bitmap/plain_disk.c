/* SPDX-License-Identifier: BSD-3-Clause */
#include "plain_disk.h"

#include "block/driver.h"
#include "loop/co_lock.h"

struct disk {
    bool hangs;
    struct co_queue hung;
};

static int co_disk_open(struct block_node *node,
                        const struct json_value *options,
                        GError **err)
{
    struct disk *disk = g_new0(struct disk, 1);
    struct block_limits limits = {
        .request_alignment_bytes = 1,
        .cluster_bytes = (uint32_t)json_dict_uint(options, "cluster", 0),
    };

    (void)err;
    co_queue_init(&disk->hung);
    block_set_state(node, disk);
    block_set_size(node, json_dict_uint(options, "size", 0));
    block_set_limits(node, &limits);
    return 0;
}

static void co_disk_close(struct block_node *node)
{
    g_free(block_state(node));
}

static int co_disk_preadv(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count)
{
    (void)node;
    (void)offset;
    (void)bytes;
    (void)iov;
    (void)iov_count;
    return 0;
}

static int co_disk_pwritev(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count,
                           unsigned int flags)
{
    struct disk *disk = block_state(node);

    (void)offset;
    (void)bytes;
    (void)iov;
    (void)iov_count;
    (void)flags;
    while (disk->hangs) {
        co_queue_wait(&disk->hung);
    }
    return 0;
}

static int co_disk_discard(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes)
{
    (void)node;
    (void)offset;
    (void)bytes;
    return 0;
}

static int co_disk_truncate(struct block_node *node,
                            uint64_t size_bytes,
                            bool shrink,
                            GError **err)
{
    (void)node;
    (void)size_bytes;
    (void)shrink;
    (void)err;
    return 0;
}

static const struct schema_member disk_members[] = {
    { .name = "size", .type = &schema_size, .doc = "Bytes." },
    { .name = "cluster", .type = &schema_size, .doc = "Bytes." },
    { .name = NULL },
};

static const struct schema_type disk_options = {
    .kind = SCHEMA_STRUCT,
    .members = disk_members,
};

static const struct block_driver disk_driver = {
    .name = "plain",
    .options = &disk_options,
    .co_open = co_disk_open,
    .co_close = co_disk_close,
    .co_preadv = co_disk_preadv,
    .co_pwritev = co_disk_pwritev,
    .co_discard = co_disk_discard,
    .co_truncate = co_disk_truncate,
};

static const struct block_driver *const disk_drivers[] = { &disk_driver, NULL };

struct block_node *co_disk_add(struct disk_place *place,
                               const char *name,
                               uint64_t size_bytes,
                               uint64_t cluster_bytes)
{
    g_autoptr(json_value) options = json_dict_new();
    g_autoptr(GError) err = NULL;
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", "plain");
    json_dict_set_string(options, "node-name", name);
    json_dict_set_string(options, "discard", "unmap");
    json_dict_set_uint(options, "size", size_bytes);
    json_dict_set_uint(options, "cluster", cluster_bytes);
    assert_int_equal(co_block_add(place->graph, options, true, &node, &err), 0);
    return node;
}

void disk_hang(struct block_node *node)
{
    struct disk *disk = block_state(node);

    disk->hangs = true;
}

void disk_unhang(struct block_node *node)
{
    struct disk *disk = block_state(node);

    disk->hangs = false;
    co_queue_wake_all(&disk->hung);
}

void co_go_home(struct block_node *node)
{
    co_move(block_home(node));
}

void co_go_back(struct disk_place *place)
{
    co_move(place->main);
}

static void co_run_test(void *opaque)
{
    struct disk_place *place = opaque;

    place->test(place);
    co_block_del_all(place->graph);
    loop_stop(place->main);
}

void run_with_disks(void (*test)(struct disk_place *place), bool iothreads)
{
    struct disk_place place = { .test = test };

    place.main = loop_new(&loop_uring_backend, "main", NULL);
    assert_non_null(place.main);
    place.graph = block_graph_new(place.main, disk_drivers);
    for (int i = 0; iothreads && i < DISK_LOOPS; i++) {
        place.homes[i] = loop_thread_start(&loop_uring_backend, "home", NULL);
        assert_non_null(place.homes[i]);
        block_graph_add_loop(place.graph, place.homes[i]);
    }
    co_spawn(place.main, co_run_test, &place);
    loop_run(place.main);
    block_graph_free(place.graph);
    for (int i = 0; iothreads && i < DISK_LOOPS; i++) {
        loop_thread_join(place.homes[i]);
    }
    loop_free(place.main);
}
