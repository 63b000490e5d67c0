/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts at any moment of writing to a qcow2 image: nothing but leaks is
 * found, what was flushed is there, and each sector holds something that was
 * written to it.
 *
 * Guests write stamps, sector by sector, side by side. At moments that chance
 * picks the content that a crash would leave is kept, with what may be in it;
 * when the guests rest all of these are checked and read.
 */
#include "block_test.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "crash_disk.h"
#include "drivers/drivers.h"
#include "drivers/qcow2/check.h"
#include "drivers/qcow2/create.h"
#include "drivers/qcow2/refcount.h"

#define SECTOR       512
#define DISK_BYTES   (1 * MIB + 5 * SECTOR)
#define DISK_SECTORS ((int)(DISK_BYTES / SECTOR))
#define GUESTS       4
#define CUTS_MAX     64 /* kept at a time */

/* What one sector of the disk has been told to hold, in order; stamp 0 is
 * zeroes. */
struct sector {
    GArray *stamps; /* uint64_t */
    guint done;     /* index of the last one that was answered */
    guint flushed;  /* ... that is durable */
    bool busy;
};

struct cut {
    GByteArray *left;
    guint flushed[DISK_SECTORS]; /* stamps before these must not be seen */
};

struct world {
    struct block_graph *graph;
    struct block_node *disk;
    struct block_node *image;
    GRand *chance;
    struct sector sectors[DISK_SECTORS];
    uint64_t next_stamp;
    GPtrArray *cuts; /* struct cut */
    int moments_a_cut;
    unsigned int checked;
    unsigned int guests; /* at work */
    struct co_queue rested;
    unsigned int requests; /* that are left for the guests of this round */
    uint64_t cluster_bytes;
};

static void cut_free(void *opaque)
{
    struct cut *cut = opaque;

    g_byte_array_unref(cut->left);
    g_free(cut);
}

static void take_cut(struct crash_disk *disk, void *opaque)
{
    struct world *world = opaque;
    struct cut *cut;

    if (world->cuts->len >= CUTS_MAX ||
        g_rand_int_range(world->chance, 0, world->moments_a_cut) != 0) {
        return;
    }
    cut = g_new(struct cut, 1);
    cut->left = crash_disk_cut(disk);
    for (int i = 0; i < DISK_SECTORS; i++) {
        cut->flushed[i] = world->sectors[i].flushed;
    }
    g_ptr_array_add(world->cuts, cut);
}

static bool range_is_idle(struct world *world, int first, int count)
{
    for (int i = first; i < first + count; i++) {
        if (world->sectors[i].busy) {
            return false;
        }
    }
    return true;
}

static void issue(struct world *world, int first, int count, uint64_t stamp)
{
    for (int i = first; i < first + count; i++) {
        world->sectors[i].busy = true;
        g_array_append_val(world->sectors[i].stamps, stamp);
    }
}

static void answered(struct world *world, int first, int count)
{
    for (int i = first; i < first + count; i++) {
        world->sectors[i].busy = false;
        world->sectors[i].done = world->sectors[i].stamps->len - 1;
    }
}

static void co_guest_change(struct world *world)
{
    int unit = g_rand_boolean(world->chance)
                   ? 1
                   : (int)(world->cluster_bytes / SECTOR);
    int count = MIN(unit * g_rand_int_range(world->chance, 1, 5), 64);
    int first =
        g_rand_int_range(world->chance, 0, DISK_SECTORS - count) / unit * unit;
    int kind = g_rand_int_range(world->chance, 0, 8);
    uint64_t stamp = kind < 5 ? world->next_stamp++ : 0;
    uint64_t offset = (uint64_t)first * SECTOR;
    uint64_t bytes = (uint64_t)count * SECTOR;
    int ret;

    if (!range_is_idle(world, first, count)) {
        co_reschedule();
        return;
    }
    issue(world, first, count, stamp);
    if (kind < 5) {
        g_autofree uint64_t *buffer = g_malloc(bytes);

        for (uint64_t i = 0; i < bytes / 8; i++) {
            buffer[i] = stamp;
        }
        ret = co_block_pwrite(world->image, offset, bytes, buffer, 0);
    } else {
        ret = co_block_write_zeroes(world->image, offset, bytes,
                                    kind == 5 ? 0 : BLOCK_MAY_UNMAP);
    }
    assert_int_equal(ret, 0);
    answered(world, first, count);
}

static void co_guest_flush(struct world *world)
{
    g_autofree guint *done = g_new(guint, DISK_SECTORS);

    for (int i = 0; i < DISK_SECTORS; i++) {
        done[i] = world->sectors[i].done;
    }
    assert_int_equal(co_block_flush(world->image), 0);
    for (int i = 0; i < DISK_SECTORS; i++) {
        world->sectors[i].flushed = MAX(world->sectors[i].flushed, done[i]);
    }
}

static void co_guest(void *opaque)
{
    struct world *world = opaque;

    while (world->requests > 0) {
        world->requests--;
        if (g_rand_int_range(world->chance, 0, 10) == 0) {
            co_guest_flush(world);
        } else {
            co_guest_change(world);
        }
    }
    world->guests--;
    co_queue_wake_all(&world->rested);
}

static void co_round(struct world *world, unsigned int requests)
{
    world->requests = requests;
    for (world->guests = 0; world->guests < GUESTS; world->guests++) {
        co_spawn(loop_current(), co_guest, world);
    }
    while (world->guests > 0) {
        co_queue_wait(&world->rested);
    }
}

static struct block_node *co_open_image(struct world *world,
                                        const char *name,
                                        const char *file,
                                        bool read_only)
{
    g_autoptr(json_value) options = json_dict_new();
    g_autoptr(GError) err = NULL;
    struct block_node *node = NULL;

    json_dict_set_string(options, "driver", "qcow2");
    json_dict_set_string(options, "node-name", name);
    json_dict_set_string(options, "file", file);
    json_dict_set_string(options, "discard", "unmap");
    json_dict_set_bool(options, "read-only", read_only);
    json_dict_set_uint(options, "l2-cache-size", 4096);
    json_dict_set_uint(options, "refcount-cache-size", 4096);
    if (co_block_add(world->graph, options, true, &node, &err) < 0) {
        fail_msg("%s", err->message);
    }
    return node;
}

static void tell(void *opaque, const char *sentence)
{
    (void)opaque;
    print_message("%s\n", sentence);
}

static void check_sector(struct world *world,
                         const struct cut *cut,
                         int index,
                         const uint64_t *words)
{
    const GArray *stamps = world->sectors[index].stamps;

    for (int i = 1; i < SECTOR / 8; i++) {
        assert_int_equal(words[i], words[0]);
    }
    for (guint i = cut->flushed[index]; i < stamps->len; i++) {
        if (g_array_index(stamps, uint64_t, i) == words[0]) {
            return;
        }
    }
    fail_msg("sector %d holds %" G_GUINT64_FORMAT
             ", which is lost, old or foreign",
             index, words[0]);
}

static void co_check_cut(struct world *world, const struct cut *cut)
{
    struct block_node *file = co_add(world->graph, "driver=crash-disk,"
                                                   "node-name=left");
    g_autofree uint64_t *content = g_malloc(DISK_BYTES);
    struct qcow2_check_result result;
    g_autoptr(GError) err = NULL;
    struct block_node *image;

    crash_disk_load(file, cut->left);
    if (co_qcow2_check(file, "left", QCOW2_REPAIR_NOTHING, NULL, NULL, &result,
                       &err) < 0) {
        fail_msg("%s", err->message);
    }
    if (result.corruptions + result.check_errors > 0) {
        (void)co_qcow2_check(file, "left", QCOW2_REPAIR_NOTHING, tell, NULL,
                             &result, NULL);
        fail_msg("the image is corrupt");
    }
    image = co_open_image(world, "left-image", "left", true);
    assert_int_equal(co_block_pread(image, 0, DISK_BYTES, content), 0);
    for (int i = 0; i < DISK_SECTORS; i++) {
        check_sector(world, cut, i, content + i * (SECTOR / 8));
    }
    assert_int_equal(co_block_del(world->graph, "left-image", NULL), 0);
    assert_int_equal(co_block_del(world->graph, "left", NULL), 0);
    world->checked++;
}

static void co_check_cuts(struct world *world)
{
    for (guint i = 0; i < world->cuts->len; i++) {
        co_check_cut(world, g_ptr_array_index(world->cuts, i));
    }
    g_ptr_array_set_size(world->cuts, 0);
}

/* Leaks clusters until little is left of what the refcount table can count, if
 * that is not much: it will have to grow. */
static void co_use_up(struct world *world)
{
    struct qcow2_image *image = block_state(world->image);
    uint64_t per_block =
        (image->cluster_bytes * 8) >> image->header->refcount_order;
    uint64_t clusters = image->header->refcount_table_clusters *
                        (image->cluster_bytes / 8) * per_block;
    struct qcow2_run run = { 0 };

    if (clusters * image->cluster_bytes > 4 * MIB) {
        return;
    }
    world->moments_a_cut = 3;
    while (run.host_offset / image->cluster_bytes < clusters - 100) {
        assert_int_equal(co_qcow2_allocate(image, 32, &run), 0);
    }
    assert_int_equal(co_block_flush(world->image), 0);
    co_check_cuts(world);
}

static void co_make_image(struct world *world, uint32_t seed)
{
    static const unsigned int refcount_bits[] = { 16, 1, 2, 4, 8, 32, 64 };
    g_autoptr(GError) err = NULL;
    bool extended = seed % 5 == 4;
    struct qcow2_create_options options = {
        .size_bytes = DISK_BYTES,
        .version = seed % 6 == 5 && !extended ? 2 : 3,
        .cluster_bytes = extended ? 16384 : 512U << (seed % 4),
        .extended_l2 = extended,
    };

    options.refcount_bits =
        options.version == 2
            ? 16
            : refcount_bits[seed % G_N_ELEMENTS(refcount_bits)];
    world->cluster_bytes = options.cluster_bytes;
    if (co_qcow2_create(world->disk, &options, &err) < 0) {
        fail_msg("%s", err->message);
    }
    assert_int_equal(co_block_flush(world->disk), 0);
}

static void world_init(struct world *world,
                       struct block_graph *graph,
                       uint32_t seed)
{
    uint64_t zero = 0;

    world->graph = graph;
    world->chance = g_rand_new_with_seed(seed);
    world->next_stamp = 1;
    world->moments_a_cut = 8;
    world->cuts = g_ptr_array_new_with_free_func(cut_free);
    co_queue_init(&world->rested);
    for (int i = 0; i < DISK_SECTORS; i++) {
        world->sectors[i].stamps = g_array_new(FALSE, FALSE, sizeof(uint64_t));
        g_array_append_val(world->sectors[i].stamps, zero);
    }
}

static void world_release(struct world *world)
{
    for (int i = 0; i < DISK_SECTORS; i++) {
        g_array_unref(world->sectors[i].stamps);
    }
    g_ptr_array_unref(world->cuts);
    g_rand_free(world->chance);
}

static void co_run_seed(struct block_graph *graph,
                        uint32_t seed,
                        unsigned int *checked)
{
    g_autofree struct world *world = g_new0(struct world, 1);
    struct crash_disk *disk;

    world_init(world, graph, seed);
    world->disk = co_add(graph, "driver=crash-disk,node-name=disk");
    co_make_image(world, seed);
    disk = crash_disk_of(world->disk);
    disk->chance = world->chance;
    disk->opaque = world;
    disk->moment = take_cut;
    for (int opened = 0; opened < 2; opened++) {
        world->image = co_open_image(world, "image", "disk", false);
        if (opened == 0) {
            co_use_up(world);
        }
        for (int round = 0; round < 16; round++) {
            co_round(world, 16);
            co_check_cuts(world);
        }
        assert_int_equal(co_block_del(graph, "image", NULL), 0);
        co_check_cuts(world);
    }
    disk->moment = NULL;
    assert_int_equal(co_block_del(graph, "disk", NULL), 0);
    *checked += world->checked;
    world_release(world);
}

/* More seeds, from another start: QCOW2_CRASH_SEEDS=FIRST:COUNT. */
static void co_cuts(struct block_graph *graph, void *opaque)
{
    const char *wish = g_getenv("QCOW2_CRASH_SEEDS");
    uint32_t first = 15;
    uint32_t count = 14;
    unsigned int checked = 0;

    (void)opaque;
    if (wish != NULL) {
        char *end;

        first = (uint32_t)strtoul(wish, &end, 10);
        count = *end == ':' ? (uint32_t)strtoul(end + 1, NULL, 10) : 1;
    }
    for (uint32_t seed = first; seed < first + count; seed++) {
        print_message("seed %u\n", seed);
        co_run_seed(graph, seed, &checked);
    }
    print_message("%u crashes\n", checked);
    assert_true(checked > count * 20);
}

static const struct block_driver *const drivers[] = { &driver_crash_disk,
                                                      &driver_qcow2, NULL };

static void a_power_cut_leaks_at_most(void **state)
{
    (void)state;
    run_in_graph(drivers, 0, co_cuts, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_leaks_at_most),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
