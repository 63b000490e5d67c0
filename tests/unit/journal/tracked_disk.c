/* SPDX-License-Identifier: BSD-3-Clause */
#include "tracked_disk.h"

#include <string.h>

#include "bitmap/dirty_bitmap.h"
#include "block/fence.h"
#include "block/request.h"
#include "journal/image_disk.h"
#include "loop/coroutine.h"

#define IMAGE_PATH "/disk.raw"

/* What the engine warns of, a crash means. */
static void drop_warning(const char *domain,
                         GLogLevelFlags level,
                         const char *message,
                         void *opaque)
{
    if ((level & G_LOG_LEVEL_WARNING) == 0) {
        g_log_default_handler(domain, level, message, opaque);
    }
}

struct tracked_disk *tracked_disk_new(uint64_t seed)
{
    struct tracked_disk *disk = g_new0(struct tracked_disk, 1);
    g_autofree uint8_t *zeroes = g_malloc0(DISK_BYTES);

    g_log_set_default_handler(drop_warning, NULL);
    random_init(&disk->random, seed);
    disk->memory = storage_memory_new(&disk->random);
    image_disk_use(storage_memory_storage(disk->memory));
    storage_memory_poke(disk->memory, IMAGE_PATH, 0, zeroes, DISK_BYTES);
    return disk;
}

void tracked_disk_free(struct tracked_disk *disk)
{
    storage_memory_free(disk->memory);
    g_free(disk);
}

/*
 * A life.
 */

struct life {
    struct tracked_disk *disk;
    void (*co_run)(struct tracked_disk *disk); /* NULL: dies while opening */
    uint64_t point;
    bool crashes;
    bool over;
};

static void note_trouble(void *opaque,
                         struct block_node *node,
                         const char *reason,
                         bool is_durable)
{
    struct tracked_disk *disk = opaque;

    (void)node;
    assert_non_null(reason);
    if (!storage_memory_is_dead(disk->memory)) {
        disk->troubles++;
        disk->trouble_is_durable = is_durable;
    }
}

static int co_open(struct tracked_disk *disk)
{
    const struct tracker_options options = {
        .storage = storage_memory_storage(disk->memory),
        .path = (char *)(uintptr_t)DISK_TRACKING_PATH,
        .image_path = (char *)(uintptr_t)IMAGE_PATH,
        .state_directory = (char *)(uintptr_t)DISK_STATE_PATH,
        .durability = disk->durability,
        .region_bytes = DISK_REGION_BYTES,
        .stop_on_error = disk->stop_on_error,
        .outcomes = disk->outcomes,
        .on_trouble = note_trouble,
        .opaque = disk,
    };

    int ret = co_tracker_open(disk->node, &options, &disk->tracker, NULL);

    if (ret == 0 && disk->tracker == NULL) {
        ret = co_tracker_create(disk->node, &options, &disk->tracker, NULL);
    }
    return ret;
}

static void co_live(void *opaque)
{
    struct life *life = opaque;
    struct tracked_disk *disk = life->disk;
    g_autoptr(json_value) options = json_dict_new();

    json_dict_set_string(options, "driver", "simimage");
    json_dict_set_string(options, "node-name", "disk");
    json_dict_set_string(options, "path", IMAGE_PATH);
    assert_int_equal(
        co_block_add(disk->graph, options, true, &disk->node, NULL), 0);
    if (life->co_run != NULL) {
        assert_int_equal(co_open(disk), 0);
        life->co_run(disk);
    } else {
        storage_memory_crash_at(disk->memory, life->point);
        (void)co_open(disk);
    }
    if (life->crashes && !storage_memory_is_dead(disk->memory)) {
        storage_memory_crash_at(disk->memory, 1);
    }
    (void)co_tracker_close(&disk->tracker, NULL);
    dirty_bitmap_release_node(disk->node);
    co_block_del_all(disk->graph);
    life->over = true;
}

static void live(struct life *life, enum storage_crash crash)
{
    struct tracked_disk *disk = life->disk;

    scheduler_init(&disk->scheduler, &disk->random);
    disk->loop = scheduler_add_loop(&disk->scheduler, "main");
    disk->graph = block_graph_new(disk->loop, image_disk_drivers);
    disk->tracker = NULL;
    co_spawn(disk->loop, co_live, life);
    while (scheduler_turn(&disk->scheduler)) {
    }
    assert_true(life->over);
    storage_memory_fail_sync(disk->memory, NULL, 0);
    storage_memory_fail_writes(disk->memory, NULL, 0);
    storage_memory_fail_rename_late(disk->memory, NULL);
    if (life->crashes) {
        storage_memory_reboot(disk->memory, crash);
    }
    block_graph_free(disk->graph);
    scheduler_release(&disk->scheduler);
}

void tracked_disk_live(struct tracked_disk *disk,
                       void (*co_run)(struct tracked_disk *disk),
                       enum disk_end end)
{
    struct life life = {
        .disk = disk,
        .co_run = co_run,
        .crashes = end != DISK_CLOSED,
    };

    live(&life,
         end == DISK_POWER_CUT ? STORAGE_CRASH_POWER : STORAGE_CRASH_KILL);
}

void tracked_disk_die_opening(struct tracked_disk *disk, uint64_t point)
{
    struct life life = { .disk = disk, .point = point, .crashes = true };

    live(&life, STORAGE_CRASH_POWER);
}

/*
 * In a life.
 */

int co_disk_add(struct tracked_disk *disk, const char *name)
{
    const uint64_t granularity = 1024;
    struct dirty_bitmap *bitmap =
        dirty_bitmap_new(disk->node, name, granularity, false, NULL);
    struct dirty_bitmap *added = bitmap;
    int ret;

    co_tracker_begin(disk->tracker);
    ret = co_tracker_reserve(disk->tracker, granularity, NULL);
    if (ret < 0) {
        dirty_bitmap_free(bitmap);
    } else {
        (void)co_block_fence(disk->node, UINT64_MAX);
        dirty_bitmap_attach(disk->node, &added);
        tracker_change(disk->tracker, bitmap, TRACKER_CHANGE_ADD, NULL, NULL);
        block_unfence(disk->node);
        ret = co_tracker_commit(disk->tracker, NULL);
    }
    co_tracker_end(disk->tracker);
    return ret;
}

int co_disk_remove(struct tracked_disk *disk, const char *name)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_find(disk->node, name);
    int ret;

    assert_non_null(bitmap);
    co_tracker_begin(disk->tracker);
    tracker_change(disk->tracker, bitmap, TRACKER_CHANGE_REMOVE, NULL, NULL);
    dirty_bitmap_free(dirty_bitmap_detach(bitmap));
    ret = co_tracker_commit(disk->tracker, NULL);
    co_tracker_end(disk->tracker);
    return ret;
}

int co_disk_enable(struct tracked_disk *disk, const char *name, bool enable)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_find(disk->node, name);
    int ret;

    assert_non_null(bitmap);
    co_tracker_begin(disk->tracker);
    (void)co_block_fence(disk->node, UINT64_MAX);
    dirty_bitmap_set_enabled(bitmap, enable);
    tracker_change(disk->tracker, bitmap,
                   enable ? TRACKER_CHANGE_ENABLE : TRACKER_CHANGE_DISABLE,
                   NULL, NULL);
    block_unfence(disk->node);
    ret = co_tracker_commit(disk->tracker, NULL);
    co_tracker_end(disk->tracker);
    return ret;
}

int co_disk_write(struct tracked_disk *disk, uint64_t offset)
{
    uint8_t sector[512];

    memset(sector, 0xa5, sizeof(sector));
    return co_block_pwrite(disk->node, offset, sizeof(sector), sector, 0);
}

const char *disk_bit(struct tracked_disk *disk,
                     const char *name,
                     uint64_t offset)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_find(disk->node, name);

    if (bitmap == NULL) {
        return "not there";
    }
    if (dirty_bitmap_reason(bitmap) != NULL) {
        return dirty_bitmap_reason(bitmap);
    }
    return bitmap_get(dirty_bitmap_bits(bitmap), offset) ? "dirty" : "";
}
