/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk and its guests. Of each sector one guest at a time is the writer, so it
 * is known what it holds. */
#include <string.h>

#include "base/bytes.h"
#include "block/request.h"
#include "drivers/qcow2/create.h"
#include "mixed/world.h"

static bool is_qcow2(const struct disk *disk)
{
    return disk->index == QCOW2_DISK;
}

void disk_init(struct world *world, unsigned int index)
{
    struct disk *disk = &world->disks[index];

    disk->world = world;
    disk->index = index;
    g_snprintf(disk->name, sizeof(disk->name), "disk%u", index);
    g_snprintf(disk->path, sizeof(disk->path), "/disk%u.%s", index,
               is_qcow2(disk) ? "qcow2" : "raw");
    oracle_init(&disk->oracle);
    disk->leftovers =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    disk->shadow = g_byte_array_new();
    g_byte_array_set_size(disk->shadow, DISK_BYTES);
    memset(disk->shadow->data, 0, DISK_BYTES);
    if (!is_qcow2(disk)) {
        storage_memory_poke(world->memory, disk->path, 0, disk->shadow->data,
                            DISK_BYTES);
    } else {
        storage_memory_poke(world->memory, disk->path, 0, "", 1);
    }
}

void disk_release(struct disk *disk)
{
    oracle_release(&disk->oracle);
    g_hash_table_destroy(disk->leftovers);
    g_byte_array_unref(disk->shadow);
}

static struct json_value *file_options(const struct disk *disk)
{
    struct json_value *options = json_dict_new();

    json_dict_set_string(options, "driver", "file");
    json_dict_set_string(options, "path", disk->path);
    return options;
}

/* The first disk is a file, the second raw over one. */
static struct json_value *node_options(const struct disk *disk)
{
    struct json_value *options;

    if (disk->index == 0) {
        options = file_options(disk);
    } else {
        options = json_dict_new();
        json_dict_set_string(options, "driver",
                             is_qcow2(disk) ? "qcow2" : "raw");
        json_dict_set(options, "file", file_options(disk));
    }
    json_dict_set_string(options, "node-name", disk->name);
    if (disk->is_process && !disk->world->is_process) {
        struct json_value *tracking = json_dict_new();

        json_dict_set_string(tracking, "durability", "process");
        json_dict_set(options, "x-cohort-tracking", tracking);
    }
    return options;
}

void co_disk_make(struct disk *disk)
{
    const struct qcow2_create_options create = {
        .size_bytes = DISK_BYTES,
        .cluster_bytes = 4096,
    };
    g_autoptr(json_value) options = file_options(disk);
    g_autoptr(GError) error = NULL;
    struct loop *main = loop_current();
    struct block_node *node;

    if (!is_qcow2(disk)) {
        return;
    }
    json_dict_set_string(options, "node-name", "new");
    (void)co_block_add(disk->world->engine.graph, options, true, &node, NULL);
    co_move(block_home(node));
    if (co_qcow2_create(node, &create, &error) < 0) {
        world_fail(disk->world, "the image of %s cannot be made: %s",
                   disk->name, error->message);
    }
    co_move(main);
    (void)co_block_del(disk->world->engine.graph, "new", NULL);
}

GBytes *disk_content(const struct disk *disk)
{
    const uint8_t *data = disk->shadow->data;
    uint64_t bytes = disk->shadow->len;

    if (!is_qcow2(disk)) {
        data = storage_memory_peek(disk->world->memory, disk->path, &bytes);
    }
    return g_bytes_new(data, bytes);
}

/* The qcow2 image as it is now that it was opened. */
static int co_read_shadow(struct disk *disk, struct block_node *node)
{
    struct loop *main = loop_current();
    int ret = 0;

    if (is_qcow2(disk)) {
        co_move(block_home(node));
        ret = co_block_pread(node, 0, disk->shadow->len, disk->shadow->data);
        co_move(main);
    }
    return ret;
}

/* As someone does who is told that a bitmap is inconsistent. */
static void co_remove_leftovers(struct disk *disk)
{
    static const char *const names[] = { "loose", "other", "one", "two" };

    for (unsigned int i = 0; i < G_N_ELEMENTS(names); i++) {
        struct json_value *arguments;

        if (!g_hash_table_contains(disk->leftovers, names[i])) {
            continue;
        }
        arguments = json_dict_new();
        json_dict_set_string(arguments, "node", disk->name);
        json_dict_set_string(arguments, "name", names[i]);
        if (dirty_bitmap_find(disk->node, names[i]) == NULL ||
            (co_world_command(disk->world, "block-dirty-bitmap-remove",
                              json_copy(arguments), NULL, NULL) &&
             !world_is_dead(disk->world))) {
            g_hash_table_remove(disk->leftovers, names[i]);
        }
        json_free(arguments);
    }
}

void co_disk_open(struct disk *disk)
{
    struct world *world = disk->world;
    g_autoptr(json_value) options = node_options(disk);
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) content = NULL;
    struct block_node *node;
    int ret;

    world_trace(world, "%s is opened%s", disk->name,
                disk->is_process ? ", durability=process" : "");
    durability_opens(disk);
    world->coverage.phase.opening = true;
    ret = co_block_add(world->engine.graph, options, true, &node, &error);
    world->coverage.phase.opening = false;
    if (ret < 0) {
        if (!world_is_dead(world)) {
            world_fail(world, "%s cannot be opened: %s", disk->name,
                       error->message);
        }
        return;
    }
    ret = co_read_shadow(disk, node);
    disk->node = node; /* nobody does anything with it before it is compared */
    content = disk_content(disk);
    if (!world_is_dead(world)) {
        if (ret < 0) {
            world_fail(world, "%s cannot be read", disk->name);
        } else {
            disk_check(disk, content);
            durability_opened(disk);
            co_remove_leftovers(disk);
        }
    }
}

/*
 * Guests.
 */

/* Sectors from `first` on that nobody writes to, taken. */
static uint64_t take(struct disk *disk, uint64_t first, uint64_t wanted)
{
    uint64_t size = block_size(disk->node) / 512;
    uint64_t count = 0;

    while (count < wanted && first + count < size &&
           !disk->busy[first + count]) {
        disk->busy[first + count++] = true;
    }
    return count;
}

static void co_write(struct disk *disk)
{
    struct world *world = disk->world;
    struct random *random = &world->random;
    uint64_t first = random_below(random, block_size(disk->node) / 512);
    uint64_t count = take(disk, first, random_between(random, 1, 10));
    g_autofree uint8_t *data = g_malloc(count * 512 + 1);

    for (uint64_t at = 0; at < count * 512; at += 8) {
        store_le64(data + at, ++world->stamp);
    }
    if (count > 0 &&
        co_block_pwrite(disk->node, first * 512, count * 512, data, 0) == 0) {
        world_count(world, WORLD_WRITES);
    }
    memset(disk->busy + first, 0, count);
}

static void co_guest(void *opaque)
{
    struct disk *disk = opaque;
    struct world *world = disk->world;

    while (!world->stopping && !world_is_dead(world)) {
        if (random_once_in(&world->random, 14)) {
            if (co_block_flush(disk->node) == 0) {
                world_count(world, WORLD_FLUSHES);
            }
        } else {
            co_write(disk);
        }
        co_world_pause(world,
                       random_once_in(&world->random, 3) ? 150000 : 30000);
    }
    co_move(world->engine.main);
    if (--disk->guests == 0) {
        block_detach(&disk->user);
    }
}

void disk_start_guests(struct disk *disk)
{
    memset(disk->busy, 0, sizeof(disk->busy));
    disk->user = (struct block_user){
        .kind = "export",
        .id = disk->name,
        .permissions = BLOCK_PERM_READ | BLOCK_PERM_WRITE,
        .shared = BLOCK_PERM_ALL,
        .pinned = true,
    };
    (void)block_attach(disk->node, &disk->user, NULL);
    for (int i = 0; i < GUESTS; i++) {
        disk->guests++;
        co_spawn(block_home(disk->node), co_guest, disk);
    }
}
