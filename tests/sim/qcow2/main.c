/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim-qcow2: crashes qcow2 images.
 *
 *     sim-qcow2                 the fixed seeds, then fresh ones for some seconds
 *     sim-qcow2 --seed N        that one
 *     sim-qcow2 --crashes N     fresh seeds, until there were so many crashes
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "base/bytes.h"
#include "qcow2/world.h"

#define FIXED_SEEDS          40
#define FRESH_SECONDS        15
#define WORLD_CRASHES        60
#define WORLDS_FOR_HISTOGRAM FIXED_SEEDS

static gint64 option_seed = -1;
static gint64 option_crashes = -1;

static const GOptionEntry entries[] = {
    { "seed", 's', 0, G_OPTION_ARG_INT64, &option_seed, "Run this seed", "N" },
    { "crashes", 'c', 0, G_OPTION_ARG_INT64, &option_crashes,
      "Run fresh seeds until there were N crashes", "N" },
    G_OPTION_ENTRY_NULL
};

static const char *const bucket_names[BUCKETS] = {
    [CRASH_CLEAN] = "with nothing unsynced",
    [CRASH_FEW_UNSYNCED] = "with up to 8 sectors unsynced",
    [CRASH_MANY_UNSYNCED] = "with more sectors unsynced",
    [CRASH_IN_FLUSH] = "in a guest's flush",
    [CRASH_IN_RESIZE] = "in a resize",
    [CRASH_IN_WRITE] = "in a guest's write",
    [CRASH_AFTER_DISCARD] = "after a discard",
    [CRASH_AFTER_COMPRESSED] = "with compressed clusters",
    [CRASH_LOST_WRITES] = "sectors that lost unflushed writes",
    [CRASH_LEAKED] = "checks that found leaks",
    [CRASH_WITH_BASE] = "with a backing file",
    [CRASH_WITH_SUBCLUSTERS] = "with subclusters",
    [CRASH_IN_PARTS] = "with clusters that are there in part",
    [CRASH_SMALL_CACHE] = "with a small cache",
    [CRASH_VERSION_2] = "of a version 2 image",
};

void world_fail(const struct world *world, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "sim-qcow2: seed %" PRIu64 ": ", world->seed);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr,
            "\n  cluster bits %u, version %u, refcount bits %u, "
            "subclusters %d, base %d, cache %" PRIu64 "\n",
            world->shape.cluster_bits, world->shape.version,
            world->shape.refcount_bits, world->shape.extended_l2,
            world->shape.has_base, world->shape.l2_cache_bytes);
    exit(1);
}

static void choose_shape(struct world *world)
{
    struct random *random = &world->random;
    struct shape *shape = &world->shape;

    static const unsigned int refcount_bits[] = { 1, 2, 4, 8, 16, 32, 64 };

    shape->version = random_once_in(random, 6) ? 2 : 3;
    shape->extended_l2 = shape->version == 3 && random_once_in(random, 4);
    shape->cluster_bits = shape->extended_l2
                              ? (unsigned int)random_between(random, 14, 16)
                              : (unsigned int)random_between(random, 9, 13);
    shape->refcount_bits = shape->version == 2 || random_once_in(random, 2)
                               ? 16
                               : refcount_bits[random_below(random, 7)];
    /* Compressed clusters share host clusters: 1 bit cannot count them. */
    shape->has_base = random_once_in(random, 2);
    shape->sectors = (unsigned int)random_between(random, 16, 900);
    shape->base_sectors =
        (unsigned int)random_between(random, 1, shape->sectors + 100);
    shape->l2_cache_bytes =
        random_once_in(random, 2) ? 32 * MIB : 2 * SECTOR_BYTES;
}

void world_run(uint64_t seed, unsigned int crashes, struct histogram *histogram)
{
    struct world *world = g_new0(struct world, 1);
    g_autofree uint8_t *begun = NULL;
    uint64_t begun_bytes;

    world->seed = seed;
    world->histogram = histogram;
    random_init(&world->random, seed);
    choose_shape(world);
    world->requests_left =
        (unsigned int)random_between(&world->random, 20, 300);
    world->sector_count = world->shape.sectors;
    for (unsigned int i = 0; i < WORLD_SECTORS_MAX; i++) {
        uint8_t base = CONTENT_STAMP;

        world->sectors[i].contents = g_byte_array_new();
        g_byte_array_append(world->sectors[i].contents, &base, 1);
    }
    crash_disk_init(&world->disk, "disk");
    crash_disk_init(&world->base, "base");
    crash_disk_init(&world->crashed, "crashed");
    life_run(world, &begun, &begun_bytes);
    death_run(world, begun, begun_bytes, crashes);
    crash_disk_release(&world->disk);
    crash_disk_release(&world->base);
    crash_disk_release(&world->crashed);
    for (unsigned int i = 0; i < WORLD_SECTORS_MAX; i++) {
        g_byte_array_unref(world->sectors[i].contents);
    }
    g_free(world);
    histogram->worlds++;
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void run_fresh(struct histogram *histogram, uint64_t crashes, double end)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        seed = (uint64_t)time(NULL);
    }
    seed = seed % UINT64_C(1000000000) + 1000000;
    printf("fresh seeds from %" PRIu64 " on\n", seed);
    while (histogram->crashes < crashes || seconds_now() < end) {
        world_run(seed++, WORLD_CRASHES, histogram);
    }
}

static int report(const struct histogram *histogram, double seconds)
{
    unsigned int empty = 0;

    for (unsigned int i = 0; i < BUCKETS; i++) {
        printf("%-40s %10" PRIu64 "\n", bucket_names[i], histogram->buckets[i]);
        empty += histogram->buckets[i] == 0;
    }
    printf("%" PRIu64 " crashes in %" PRIu64 " worlds, %" PRIu64
           " requests, %.1f s: no corruption, nothing lost that was flushed\n",
           histogram->crashes, histogram->worlds, histogram->requests, seconds);
    if (empty > 0 && histogram->worlds >= WORLDS_FOR_HISTOGRAM) {
        fprintf(stderr, "sim-qcow2: %u buckets are empty\n", empty);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) err = NULL;
    struct histogram histogram = { 0 };
    double begun = seconds_now();

    g_option_context_set_summary(context, "Crashes qcow2 images.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err)) {
        fprintf(stderr, "sim-qcow2: %s\n", err->message);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (option_seed >= 0) {
        world_run((uint64_t)option_seed, WORLD_CRASHES, &histogram);
    } else if (option_crashes >= 0) {
        run_fresh(&histogram, (uint64_t)option_crashes, 0);
    } else {
        for (uint64_t seed = 1; seed <= FIXED_SEEDS; seed++) {
            world_run(seed, WORLD_CRASHES, &histogram);
        }
        run_fresh(&histogram, 0, seconds_now() + FRESH_SECONDS);
    }
    return report(&histogram, seconds_now() - begun);
}
