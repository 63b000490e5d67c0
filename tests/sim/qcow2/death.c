/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes, and what is found after them.
 *
 * Going through the log, each sector has a floor: the version that a flush has
 * made durable. What a crash leaves of it must be the floor or newer.
 */
#include <string.h>

#include "base/bytes.h"
#include "block/request.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/format.h"
#include "loop/coroutine.h"
#include "loop/scheduler.h"
#include "qcow2/world.h"

/* A sector, as far as the log has been gone through. */
struct past {
    unsigned int issued;
    unsigned int written;
    unsigned int floor;
};

struct flush {
    unsigned int number;
    unsigned int sizes; /* how many there were */
    unsigned int written[WORLD_SECTORS_MAX];
};

struct death {
    struct world *world;
    struct loop *loop;
    struct past past[WORLD_SECTORS_MAX];
    GArray *sizes; /* of the disk, in sectors, in order; unsigned int */
    unsigned int sizes_floor; /* the first that may be found */
    GPtrArray *flushes;       /* struct flush, under way */
    bool is_resizing;
    unsigned int writing; /* sectors with a request under way */
    bool discarded;
    bool has_ended;
};

/* --- The oracle ------------------------------------------------------------------ */

static void check_sector(struct death *death,
                         unsigned int sector,
                         const uint8_t *bytes)
{
    const struct past *past = &death->past[sector];
    unsigned int version =
        oracle_find(death->world, sector, past->floor, past->issued, bytes);

    if (version == ORACLE_NONE) {
        world_fail(death->world,
                   "sector %u holds %#" G_GINT64_MODIFIER
                   "x after a crash, and must hold one of its versions %u "
                   "to %u",
                   sector, load_le64(bytes), past->floor, past->issued);
    }
    if (version < past->written) {
        death->world->histogram->buckets[CRASH_LOST_WRITES]++;
    }
}

/* --- After a crash ---------------------------------------------------------------- */

static void on_finding(void *opaque, const char *sentence)
{
    g_string_append_printf(opaque, "%s\n", sentence);
}

static void co_check(struct death *death, struct block_node *file)
{
    struct qcow2_check_result result;
    g_autoptr(GError) err = NULL;
    GString *findings = g_string_new("");

    if (co_qcow2_check(file, "crashed", QCOW2_REPAIR_NOTHING, on_finding,
                       findings, &result, &err) < 0) {
        world_fail(death->world, "the image cannot be checked: %s",
                   err->message);
    }
    if (result.corruptions > 0 || result.check_errors > 0 ||
        result.tables_overlap) {
        world_fail(death->world, "the image is corrupt: %s", findings->str);
    }
    if (result.leaks > 0) {
        death->world->histogram->buckets[CRASH_LEAKED]++;
    }
    g_string_free(findings, TRUE);
}

static void check_size(struct death *death, uint64_t bytes)
{
    for (guint i = death->sizes_floor; i < death->sizes->len; i++) {
        if (bytes == (uint64_t)g_array_index(death->sizes, unsigned int, i) *
                         SECTOR_BYTES) {
            return;
        }
    }
    world_fail(death->world, "the disk has %" G_GUINT64_FORMAT " bytes", bytes);
}

static void co_read_all(struct death *death,
                        struct block_node *node,
                        uint8_t *buffer)
{
    uint64_t bytes = block_size(node);

    check_size(death, bytes);
    if (co_block_pread(node, 0, bytes, buffer) < 0) {
        world_fail(death->world, "the disk cannot be read");
    }
    for (unsigned int i = 0; i < bytes / SECTOR_BYTES; i++) {
        check_sector(death, i, buffer + (size_t)i * SECTOR_BYTES);
    }
}

/* Writes here and there; what was not written stays as it is. */
static void co_go_on(struct death *death,
                     struct block_node *node,
                     uint8_t *known)
{
    struct random *random = &death->world->random;
    uint64_t bytes = block_size(node);
    g_autofree uint8_t *found = g_malloc(bytes);

    for (unsigned int i = 0; i < 6; i++) {
        uint64_t drawn = random_between(random, 1, 12) * SECTOR_BYTES;
        uint64_t length = MIN(bytes, drawn); /* which names both twice */
        uint64_t offset =
            random_below(random, (bytes - length) / SECTOR_BYTES + 1) *
            SECTOR_BYTES;

        memset(known + offset, (int)i + 1, length);
        if (co_block_pwrite(node, offset, length, known + offset, 0) < 0) {
            world_fail(death->world, "the disk cannot be written to");
        }
    }
    if (co_block_pread(node, 0, bytes, found) < 0 ||
        memcmp(found, known, bytes) != 0) {
        world_fail(death->world, "a later write changed something else");
    }
}

static void co_autopsy(void *opaque)
{
    struct death *death = opaque;
    struct world *world = death->world;

    static const struct block_driver *const drivers[] = { &driver_crash_disk,
                                                          &driver_qcow2, NULL };
    struct block_graph *graph = block_graph_new(death->loop, drivers);
    struct block_node *file = co_crash_disk_add(graph, &world->crashed);
    struct block_node *node;
    g_autofree uint8_t *buffer =
        g_malloc((size_t)WORLD_SECTORS_MAX * SECTOR_BYTES);

    co_crash_disk_add(graph, &world->base);
    co_check(death, file);
    node = co_life_open(world, graph, world->crashed.name);
    co_read_all(death, node, buffer);
    if (random_once_in(&world->random, 4)) {
        co_go_on(death, node, buffer);
    }
    g_assert(co_block_del(graph, "image", NULL) == 0);
    co_check(death, file);
    co_block_del_all(graph);
    block_graph_free(graph);
    death->has_ended = true;
}

static void look(struct death *death)
{
    struct scheduler scheduler;
    struct crash_disk *disks[] = { &death->world->crashed,
                                   &death->world->base };

    death->has_ended = false;
    scheduler_init(&scheduler, &death->world->random);
    crash_disks_set(disks, G_N_ELEMENTS(disks));
    death->loop = scheduler_add_loop(&scheduler, "death");
    co_spawn(death->loop, co_autopsy, death);
    while (!death->has_ended) {
        if (!scheduler_turn(&scheduler)) {
            world_fail(death->world, "the opened image waits for ever");
        }
    }
    scheduler_release(&scheduler);
}

/* Has any cluster some of its subclusters, and not all? From the bytes alone. */
static bool has_parts(const struct world *world)
{
    const struct crash_disk *disk = &world->crashed;
    unsigned int entries = 1U << (world->shape.cluster_bits - 4);
    uint64_t l1;
    uint32_t l1_count;

    if (disk->size_bytes < SECTOR_BYTES) {
        return false;
    }
    l1 = load_be64(disk->bytes + QCOW2_L1_OFFSET);
    l1_count = load_be32(disk->bytes + QCOW2_L1_COUNT);
    for (uint64_t i = 0; i < l1_count; i++) {
        uint64_t l2 =
            l1 + i * 8 + 8 > disk->size_bytes
                ? 0
                : load_be64(disk->bytes + l1 + i * 8) & ~QCOW2_ENTRY_COPIED;

        for (uint64_t k = 0;
             l2 != 0 && k < entries && l2 + k * 16 + 16 <= disk->size_bytes;
             k++) {
            uint32_t there = load_be32(disk->bytes + l2 + k * 16 + 12);

            if (there != 0 && there != UINT32_MAX) {
                return true;
            }
        }
    }
    return false;
}

static void note(struct death *death, unsigned int unsynced)
{
    const struct shape *shape = &death->world->shape;
    uint64_t *buckets = death->world->histogram->buckets;

    buckets[unsynced == 0   ? CRASH_CLEAN
            : unsynced <= 8 ? CRASH_FEW_UNSYNCED
                            : CRASH_MANY_UNSYNCED]++;
    buckets[CRASH_IN_FLUSH] += death->flushes->len > 0;
    buckets[CRASH_IN_RESIZE] += death->is_resizing;
    buckets[CRASH_IN_WRITE] += death->writing > 0;
    buckets[CRASH_AFTER_DISCARD] += death->discarded;
    buckets[CRASH_AFTER_COMPRESSED] += death->world->has_compressed;
    buckets[CRASH_WITH_BASE] += shape->has_base;
    buckets[CRASH_WITH_SUBCLUSTERS] += shape->extended_l2;
    buckets[CRASH_SMALL_CACHE] += shape->l2_cache_bytes < 16 * KIB;
    buckets[CRASH_VERSION_2] += shape->version == 2;
    death->world->histogram->crashes++;
}

/* --- The log ----------------------------------------------------------------------- */

static void begin_flush(struct death *death, unsigned int number)
{
    struct flush *flush = g_new(struct flush, 1);

    flush->number = number;
    flush->sizes =
        death->is_resizing ? death->sizes->len - 1 : death->sizes->len;
    for (unsigned int i = 0; i < WORLD_SECTORS_MAX; i++) {
        flush->written[i] = death->past[i].written;
    }
    g_ptr_array_add(death->flushes, flush);
}

static void end_flush(struct death *death, unsigned int number)
{
    for (guint k = 0; k < death->flushes->len; k++) {
        const struct flush *flush = g_ptr_array_index(death->flushes, k);

        if (flush->number != number) {
            continue;
        }
        for (unsigned int i = 0; i < WORLD_SECTORS_MAX; i++) {
            death->past[i].floor = MAX(death->past[i].floor, flush->written[i]);
        }
        death->sizes_floor = MAX(death->sizes_floor, flush->sizes - 1);
        g_ptr_array_remove_index(death->flushes, k);
        return;
    }
}

static void take_mark(struct death *death, const struct crash_event *event)
{
    unsigned int first = (unsigned int)event->offset;
    unsigned int count = (unsigned int)event->bytes;
    unsigned int size = count;

    switch ((enum mark)event->mark) {
    case MARK_ISSUED:
        for (unsigned int i = first; i < first + count; i++) {
            death->past[i].issued++;
            death->discarded |=
                death->world->sectors[i]
                    .contents->data[death->past[i].issued] == CONTENT_DISCARDED;
        }
        death->writing += count;
        break;
    case MARK_WRITTEN:
        for (unsigned int i = first; i < first + count; i++) {
            death->past[i].written = death->past[i].issued;
        }
        death->writing -= count;
        break;
    case MARK_FLUSH_BEGIN: begin_flush(death, event->number); break;
    case MARK_FLUSH_END: end_flush(death, event->number); break;
    case MARK_RESIZE_BEGIN:
        g_array_append_val(death->sizes, size);
        death->is_resizing = true;
        break;
    case MARK_RESIZE_END: death->is_resizing = false; break;
    }
}

static void go_through(struct death *death,
                       struct crash_replay *replay,
                       unsigned int crashes)
{
    struct world *world = death->world;
    GArray *log = world->disk.log;
    uint64_t one_in = MAX(1, log->len / crashes);

    for (guint i = 0; i < log->len; i++) {
        const struct crash_event *event =
            &g_array_index(log, struct crash_event, i);

        crash_replay_step(replay, i);
        if (event->kind == EVENT_MARK) {
            take_mark(death, event);
        }
        if (random_once_in(&world->random, one_in)) {
            note(death, crash_replay_unsynced(replay));
            crash_replay_crash(replay,
                               random_below(&world->random, CRASH_MODES),
                               &world->random, &world->crashed);
            world->histogram->buckets[CRASH_IN_PARTS] +=
                world->shape.extended_l2 && has_parts(world);
            look(death);
        }
    }
}

void death_run(struct world *world,
               const uint8_t *begun,
               uint64_t begun_bytes,
               unsigned int crashes)
{
    struct death *death = g_new0(struct death, 1);
    struct crash_replay *replay =
        crash_replay_new(&world->disk, begun, begun_bytes);

    death->world = world;
    death->sizes = g_array_new(FALSE, FALSE, sizeof(unsigned int));
    g_array_append_val(death->sizes, world->shape.sectors);
    death->flushes = g_ptr_array_new_with_free_func(g_free);
    go_through(death, replay, crashes);
    g_ptr_array_unref(death->flushes);
    g_array_unref(death->sizes);
    crash_replay_free(replay);
    g_free(death);
}
