/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guests of a qcow2 image. A sector has one request at a time, so its versions
 * have an order; different sectors have many at once.
 */
#include <string.h>

#include "base/bytes.h"
#include "block/request.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/create.h"
#include "loop/coroutine.h"
#include "loop/scheduler.h"
#include "qcow2/world.h"

#define GUESTS_MAX      8
#define REQUEST_SECTORS 64

struct guest {
    struct world *world;
    uint8_t buffer[REQUEST_SECTORS * SECTOR_BYTES];
};

/* --- One request -------------------------------------------------------------- */

/* Free sectors from `first` on, taken; 0: the first is busy. */
static unsigned int take_sectors(struct world *world,
                                 unsigned int first,
                                 unsigned int wanted)
{
    unsigned int count = 0;

    while (count < wanted && first + count < world->sector_count &&
           !world->sectors[first + count].is_busy) {
        world->sectors[first + count++].is_busy = true;
    }
    return count;
}

static void issue(struct world *world,
                  unsigned int first,
                  unsigned int count,
                  enum content content)
{
    uint8_t byte = (uint8_t)content;

    for (unsigned int i = first; i < first + count; i++) {
        g_byte_array_append(world->sectors[i].contents, &byte, 1);
    }
    crash_disk_mark(&world->disk, MARK_ISSUED, first, count, 0);
}

static void finish(struct world *world, unsigned int first, unsigned int count)
{
    for (unsigned int i = first; i < first + count; i++) {
        struct sector *sector = &world->sectors[i];

        sector->acknowledged = sector->contents->len - 1;
        sector->is_busy = false;
    }
    crash_disk_mark(&world->disk, MARK_WRITTEN, first, count, 0);
}

static int co_write(struct guest *guest,
                    unsigned int first,
                    unsigned int count,
                    unsigned int flags)
{
    struct world *world = guest->world;

    issue(world, first, count, CONTENT_STAMP);
    for (unsigned int i = 0; i < count; i++) {
        oracle_fill(guest->buffer + i * SECTOR_BYTES, first + i,
                    world->sectors[first + i].contents->len - 1);
    }
    return co_block_pwrite(world->node, (uint64_t)first * SECTOR_BYTES,
                           (uint64_t)count * SECTOR_BYTES, guest->buffer,
                           flags);
}

static int co_zero(struct world *world, unsigned int first, unsigned int count)
{
    unsigned int flags =
        random_once_in(&world->random, 2) ? BLOCK_MAY_UNMAP : 0;

    issue(world, first, count, CONTENT_ZERO);
    return co_block_write_zeroes(world->node, (uint64_t)first * SECTOR_BYTES,
                                 (uint64_t)count * SECTOR_BYTES, flags);
}

static int co_discard(struct world *world,
                      unsigned int first,
                      unsigned int count)
{
    issue(world, first, count, CONTENT_DISCARDED);
    return co_block_discard(world->node, (uint64_t)first * SECTOR_BYTES,
                            (uint64_t)count * SECTOR_BYTES);
}

/* Changes some sectors, most often where others were changed before. */
static void co_change(struct guest *guest)
{
    struct world *world = guest->world;
    struct random *random = &world->random;
    unsigned int cluster = 1U << (world->shape.cluster_bits - 9);
    bool whole = random_once_in(random, 3);
    unsigned int kind = (unsigned int)random_below(random, 16);
    unsigned int wanted = (unsigned int)random_between(random, 1, 12);
    unsigned int first;
    unsigned int count;
    int ret;

    if (whole || kind == 15) {
        wanted = kind == 15 ? cluster : cluster * (1 + wanted % 3);
    }
    wanted = MIN(wanted, REQUEST_SECTORS);
    first = (unsigned int)random_below(random, world->sector_count);
    if (whole || kind == 15) {
        first = first / cluster * cluster;
    }
    count = take_sectors(world, first, wanted);
    if (count == 0) {
        co_reschedule();
        return;
    }
    if (kind < 2) {
        ret = co_zero(world, first, count);
    } else if (kind < 4) {
        ret = co_discard(world, first, count);
    } else if (kind == 15 && count == cluster && cluster <= REQUEST_SECTORS) {
        ret = co_write(guest, first, count, BLOCK_COMPRESS);
        world->has_compressed = true;
    } else {
        ret = co_write(guest, first, count,
                       random_once_in(random, 30) ? BLOCK_FUA : 0);
    }
    if (ret < 0) {
        world_fail(world, "a request failed: %s", g_strerror(-ret));
    }
    finish(world, first, count);
}

/* Reads what others may be changing meanwhile. */
static void co_look(struct guest *guest)
{
    struct world *world = guest->world;
    unsigned int first =
        (unsigned int)random_below(&world->random, world->sector_count);
    unsigned int count = (unsigned int)random_between(&world->random, 1, 16);
    unsigned int least[16];

    count = MIN(count, world->sector_count - first);
    for (unsigned int i = 0; i < count; i++) {
        least[i] = world->sectors[first + i].acknowledged;
    }
    if (co_block_pread(world->node, (uint64_t)first * SECTOR_BYTES,
                       (uint64_t)count * SECTOR_BYTES, guest->buffer) < 0) {
        world_fail(world, "a read failed");
    }
    for (unsigned int i = 0; i < count; i++) {
        const uint8_t *bytes = guest->buffer + (size_t)i * SECTOR_BYTES;
        unsigned int most = world->sectors[first + i].contents->len - 1;

        if (oracle_find(world, first + i, least[i], most, bytes) ==
            ORACLE_NONE) {
            world_fail(world,
                       "a guest read %#" G_GINT64_MODIFIER
                       "x from sector %u, which had versions %u to %u",
                       load_le64(bytes), first + i, least[i], most);
        }
    }
}

static void co_flush(struct world *world)
{
    static unsigned int flushes;
    unsigned int number = flushes++;

    crash_disk_mark(&world->disk, MARK_FLUSH_BEGIN, 0, 0, number);
    if (co_block_flush(world->node) < 0) {
        world_fail(world, "a flush failed");
    }
    crash_disk_mark(&world->disk, MARK_FLUSH_END, 0, 0, number);
}

/* Alone: what is cut off is gone, what comes anew is zero. */
static void co_resize(struct world *world)
{
    unsigned int old_count = world->sector_count;
    unsigned int count = (unsigned int)random_between(
        &world->random, old_count / 2 + 1, old_count + old_count / 2);
    unsigned int lower;
    g_autoptr(GError) err = NULL;

    count = MIN(count, WORLD_SECTORS_MAX);
    lower = MIN(count, old_count);
    crash_disk_mark(&world->disk, MARK_RESIZE_BEGIN, old_count, count, 0);
    issue(world, lower, MAX(count, old_count) - lower, CONTENT_ZERO);
    if (co_block_truncate(world->node, (uint64_t)count * SECTOR_BYTES, true,
                          &err) < 0) {
        world_fail(world, "a resize failed: %s", err->message);
    }
    world->sector_count = count;
    finish(world, lower, MAX(count, old_count) - lower);
    crash_disk_mark(&world->disk, MARK_RESIZE_END, old_count, count, 0);
}

static void co_wait_if_someone_is_alone(struct world *world)
{
    world->guests_waiting++;
    while (world->wants_alone) {
        co_sleep_until(loop_now_ns() + 1000);
    }
    world->guests_waiting--;
}

static void co_guest(void *opaque)
{
    struct guest *guest = opaque;
    struct world *world = guest->world;

    while (world->requests_left > 0) {
        co_wait_if_someone_is_alone(world);
        if (world->requests_left == 0) {
            break;
        }
        world->requests_left--;
        world->histogram->requests++;
        if (random_once_in(&world->random, 24)) {
            co_flush(world);
        } else if (random_once_in(&world->random, 4)) {
            co_look(guest);
        } else if (random_once_in(&world->random, 80) && !world->wants_alone) {
            world->wants_alone = true;
            while (world->guests_waiting + 1 < world->guests) {
                co_sleep_until(loop_now_ns() + 1000);
            }
            co_resize(world);
            world->wants_alone = false;
        } else {
            co_change(guest);
        }
    }
    world->guests--;
    g_free(guest);
}

/* --- The image ------------------------------------------------------------------ */

struct block_node *co_life_open(struct world *world,
                                struct block_graph *graph,
                                const char *file)
{
    g_autoptr(json_value) options = json_dict_new();
    g_autoptr(GError) err = NULL;
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", "qcow2");
    json_dict_set_string(options, "node-name", "image");
    json_dict_set_string(options, "file", file);
    json_dict_set_string(options, "discard", "unmap");
    json_dict_set_uint(options, "l2-cache-size", world->shape.l2_cache_bytes);
    json_dict_set_uint(options, "l2-cache-entry-size", SECTOR_BYTES);
    if (world->shape.has_base) {
        json_dict_set_string(options, "backing", "base");
    } else {
        json_dict_set(options, "backing", json_null_new());
    }
    if (co_block_add(graph, options, true, &node, &err) < 0) {
        world_fail(world, "the image does not open: %s", err->message);
    }
    return node;
}

static void make_base(struct world *world)
{
    unsigned int count = world->shape.base_sectors;

    for (unsigned int i = 0; i < count; i++) {
        oracle_fill(world->base.bytes + (size_t)i * SECTOR_BYTES, i, 0);
    }
    world->base.size_bytes = (uint64_t)count * SECTOR_BYTES;
}

static void co_create(struct world *world, struct block_node *file)
{
    const struct shape *shape = &world->shape;
    g_autoptr(GError) err = NULL;
    const struct qcow2_create_options options = {
        .size_bytes = (uint64_t)shape->sectors * SECTOR_BYTES,
        .version = shape->version,
        .cluster_bytes = 1U << shape->cluster_bits,
        .refcount_bits = shape->refcount_bits,
        .extended_l2 = shape->extended_l2,
        .backing_file = shape->has_base ? "base" : NULL,
        .backing_format = shape->has_base ? "raw" : NULL,
    };

    if (co_qcow2_create(file, &options, &err) < 0) {
        world_fail(world, "the image cannot be made: %s", err->message);
    }
}

struct life {
    struct world *world;
    struct loop *loop;
    uint8_t *begun;
    uint64_t begun_bytes;
    bool has_ended;
};

static void co_life(void *opaque)
{
    struct life *life = opaque;
    struct world *world = life->world;

    static const struct block_driver *const drivers[] = { &driver_crash_disk,
                                                          &driver_qcow2, NULL };
    struct block_graph *graph = block_graph_new(life->loop, drivers);
    struct block_node *file = co_crash_disk_add(graph, &world->disk);

    co_crash_disk_add(graph, &world->base);
    co_create(world, file);
    life->begun_bytes = world->disk.size_bytes;
    life->begun = g_memdup2(world->disk.bytes, life->begun_bytes);
    world->disk.is_logging = true;
    world->disk.random = &world->random;
    world->node = co_life_open(world, graph, "disk");
    world->guests = (unsigned int)random_between(&world->random, 1, GUESTS_MAX);
    for (unsigned int i = world->guests; i > 0; i--) {
        struct guest *guest = g_new0(struct guest, 1);

        guest->world = world;
        co_spawn(life->loop, co_guest, guest);
    }
    while (world->guests > 0) {
        co_sleep_until(loop_now_ns() + 100000);
    }
    g_assert(co_block_del(graph, "image", NULL) == 0);
    co_block_del_all(graph);
    block_graph_free(graph);
    life->has_ended = true;
}

void life_run(struct world *world, uint8_t **ret_begun, uint64_t *ret_bytes)
{
    struct scheduler scheduler;
    struct crash_disk *disks[] = { &world->disk, &world->base };
    struct life life = { .world = world };

    scheduler_init(&scheduler, &world->random);
    crash_disks_set(disks, G_N_ELEMENTS(disks));
    make_base(world);
    life.loop = scheduler_add_loop(&scheduler, "life");
    co_spawn(life.loop, co_life, &life);
    while (!life.has_ended) {
        if (!scheduler_turn(&scheduler)) {
            world_fail(world, "the guests wait for ever");
        }
    }
    scheduler_release(&scheduler);
    *ret_begun = life.begun;
    *ret_bytes = life.begun_bytes;
}
