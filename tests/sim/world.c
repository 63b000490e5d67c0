/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a world. A director on the main loop opens the nodes, starts the
 * guests and the client, and waits until enough has been done. Then faults
 * stop, and every job must end; the guests stop; the nodes go. After that
 * nothing may be left: no node, no job, no timer, no coroutine.
 */
#include "world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "drivers/drivers.h"

#include "client.h"
#include "guest.h"
#include "model.h"
#include "simdisk.h"

#define MS           UINT64_C(1000000)
#define PATIENCE_NS  (UINT64_C(60) * 1000 * MS)
#define WIND_DOWN_NS (UINT64_C(100) * 1000 * MS)
#define QUIET_TURNS  100000

static struct world *current;

struct world *world_current(void)
{
    return current;
}

struct disk *world_disk(struct world *world, const char *name)
{
    for (unsigned int i = 0; i < world->disk_count; i++) {
        if (strcmp(world->disks[i].name, name) == 0) {
            return &world->disks[i];
        }
    }
    return NULL;
}

/* --- Telling ------------------------------------------------------------------ */

static void print_unfinished(const struct world *world)
{
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *job = &world->jobs[i];

        if (job->used) {
            fprintf(stderr, "  job %s: %s%s\n", job->id,
                    job_state_name(job->state), job->told ? ", ended" : "");
        }
    }
    for (unsigned int i = 0; i < world->disk_count; i++) {
        const struct disk *disk = &world->disks[i];

        fprintf(stderr, "  disk %s: %u guests run, %u writes inside\n",
                disk->name, disk->guests_running, disk->writes_inside);
    }
    if (world->command.name != NULL) {
        fprintf(stderr, "  command: %s\n", world->command.name);
    }
}

void violation(const char *format, ...)
{
    const struct world *world = world_current();
    va_list arguments;

    fflush(stdout);
    fprintf(stderr, "sim: VIOLATION: ");
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr,
            "\n  seed %" PRIu64 ", operation %" PRIu64
            ", at %.6f s, turn %" PRIu64 "\n",
            world->seed, world->operations,
            (double)world->scheduler.now_ns / 1e9, world->scheduler.turns);
    print_unfinished(world);
    fprintf(stderr, "  replay: ./dev test sim --seed %" PRIu64 " --trace\n",
            world->seed);
    exit(1);
}

void trace(struct world *world, const char *format, ...)
{
    va_list arguments;

    if (!world->trace) {
        return;
    }
    printf("%12.6f  ", (double)world->scheduler.now_ns / 1e9);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

static void on_event(void *opaque, const char *event, struct json_value *data)
{
    model_event(opaque, event, data);
    json_free(data);
}

/* --- Building ------------------------------------------------------------------- */

static void plan_faults(struct world *world, struct disk *disk)
{
    static const uint64_t errors[][5] = { { 0, 0, 3000, 400, 60 },
                                          { 0, 1000, 400, 60, 12 } };
    static const uint64_t hangs[] = { 0, 0, 20000, 2000 };
    static const unsigned int instants[] = { 10, 40, 80 };
    struct random *random = &world->random;

    disk->faults = (struct faults){
        .error_one_in = errors[disk->is_target][random_below(random, 5)],
        .hang_one_in = hangs[random_below(random, G_N_ELEMENTS(hangs))],
        .instant_percent =
            instants[random_below(random, G_N_ELEMENTS(instants))],
    };
}

static void plan_disk(struct world *world, unsigned int index, uint64_t bytes)
{
    static const uint32_t alignments[] = { 1, 1, 512, 4096 };
    static const uint32_t clusters[] = { 0, 0, 64 * KIB, 128 * KIB };
    struct random *random = &world->random;
    struct disk *disk = &world->disks[index];

    disk->world = world;
    disk->index = index;
    disk->is_target = index >= world->source_count;
    g_snprintf(disk->name, sizeof(disk->name), "%c%u",
               disk->is_target ? 't' : 'd', index);
    disk->size_bytes = bytes;
    disk->block_count = (unsigned int)(bytes / BLOCK_BYTES);
    disk->word_count = (disk->block_count + 63) / 64;
    disk->alignment_bytes =
        alignments[random_below(random, G_N_ELEMENTS(alignments))];
    disk->cluster_bytes =
        clusters[random_below(random, G_N_ELEMENTS(clusters))];
    disk->is_sparse = random_once_in(random, 2);
    disk->zeroes_by_driver = random_once_in(random, 2);
    disk->over_raw = random_once_in(random, 4);
    list_init(&disk->reads_inside);
    co_queue_init(&disk->stopped);
    for (unsigned int i = 0; i < BITMAPS_PER_DISK; i++) {
        disk->bitmaps[i].frozen_by = NOBODY;
    }
    if (!disk->is_target) {
        disk->guest_count =
            (unsigned int)random_between(random, 1, GUESTS_PER_DISK);
    }
    plan_faults(world, disk);
}

/* Most disks are small, so that things happen close to each other; on some the
 * copy engine reaches its limits. */
static uint64_t random_size(struct random *random)
{
    uint64_t clusters = random_once_in(random, 12)
                            ? random_between(random, 140, 160)
                            : random_between(random, 4, 40);

    return clusters * CLUSTER_BYTES +
           random_below(random, BLOCKS_PER_CLUSTER - 1) * BLOCK_BYTES;
}

static void plan(struct world *world)
{
    struct random *random = &world->random;
    uint64_t sizes[] = { random_size(random), random_size(random) };
    unsigned int targets;

    scheduler_init(&world->scheduler, random);
    world->source_count = (unsigned int)random_between(random, 3, 6);
    targets = world->source_count + (unsigned int)random_below(random, 3);
    world->disk_count = world->source_count + targets;
    for (unsigned int i = 0; i < world->disk_count; i++) {
        plan_disk(world, i, sizes[random_once_in(random, 3)]);
    }
}

static const struct block_driver *const drivers[] = {
    &driver_simdisk,
    &driver_raw,
    NULL,
};

static void build_engine(struct world *world)
{
    static const char *const names[] = { "main", "thread0", "thread1",
                                         "thread2" };
    struct scheduler *scheduler = &world->scheduler;
    unsigned int loops =
        (unsigned int)random_between(&world->random, 1, SCHEDULER_LOOPS_MAX);

    for (unsigned int i = 0; i < loops; i++) {
        scheduler_add_loop(scheduler, names[i]);
    }
    world->engine.main = scheduler->loops[0];
    world->engine.graph = block_graph_new(scheduler->loops[0], drivers);
    for (unsigned int i = 1; i < loops; i++) {
        block_graph_add_loop(world->engine.graph, scheduler->loops[i]);
    }
    world->engine.jobs = job_list_new(on_event, world);
}

/* --- Directing -------------------------------------------------------------------- */

static void co_begin(struct world *world)
{
    g_autoptr(GError) err = NULL;

    for (unsigned int i = 0; i < world->disk_count; i++) {
        if (!co_add_node(&world->disks[i], &err)) {
            violation("%s cannot be opened: %s", world->disks[i].name,
                      err->message);
        }
    }
    for (unsigned int i = 0; i < world->source_count; i++) {
        co_guests_start(&world->disks[i]);
    }
    world->faults_on = true;
    world->client_running = true;
    co_spawn(loop_current(), co_run_client, world);
}

/* Does for a job what its client would. */
static void help_on(struct job *job)
{
    (void)job_set_speed(job, 0, NULL);
    if (job_state_of(job) == JOB_CONCLUDED) {
        (void)job_dismiss(job, NULL);
    } else if (job_state_of(job) == JOB_PENDING) {
        struct job_model *model = model_job(world_current(), job_id(job));

        if (job_finalize(job, NULL) == 0) {
            model->group->finalized = true;
        }
    } else if (model_job(world_current(), job_id(job))->none) {
        if (job_cancel(job, true, NULL) == 0) {
            model_cancelled(world_current(),
                            model_job(world_current(), job_id(job))->group);
        }
    } else {
        (void)job_resume(job, NULL);
    }
}

/* Every job ends, now that nothing fails any more. */
static void co_wind_down(struct world *world)
{
    uint64_t deadline_ns = loop_now_ns() + WIND_DOWN_NS;
    struct job *job;

    while ((job = job_next(world->engine.jobs, NULL)) != NULL) {
        while (job != NULL) {
            struct job *next = job_next(world->engine.jobs, job);

            help_on(job);
            job = next;
        }
        if (loop_now_ns() > deadline_ns) {
            violation("jobs do not end, though nothing fails any more");
        }
        co_sleep_until(loop_now_ns() + 50 * MS);
    }
}

static void co_end(struct world *world)
{
    for (unsigned int i = 0; i < world->source_count; i++) {
        co_guests_stop(&world->disks[i]);
    }
    for (unsigned int i = 0; i < world->disk_count; i++) {
        model_check_bitmaps(&world->disks[i]);
    }
    co_block_del_all(world->engine.graph);
    if (block_next(world->engine.graph, NULL) != NULL) {
        violation("node '%s' cannot be deleted at the end",
                  block_name(block_next(world->engine.graph, NULL)));
    }
}

static void co_direct(void *opaque)
{
    struct world *world = opaque;

    co_begin(world);
    while (world->operations < world->operations_wanted) {
        co_sleep_until(loop_now_ns() + 10 * MS);
    }
    world->faults_on = false;
    world->client_stops = true;
    while (world->client_running) {
        co_sleep_until(loop_now_ns() + 10 * MS);
    }
    if (random_once_in(&world->random, 4)) {
        world->cancelling_since_ns = loop_now_ns();
        world->histogram->buckets[ALL_CANCELLED]++;
        co_job_cancel_all(world->engine.jobs);
    } else {
        co_wind_down(world);
    }
    co_end(world);
    world->over = true;
}

/* --- Running ----------------------------------------------------------------------- */

/* Nothing may take longer than the hangs that are injected, a few in a row, and
 * the engine's own deadlines. */
static void check_patience(const struct world *world)
{
    uint64_t now_ns = world->scheduler.now_ns;

    for (unsigned int i = 0; i < world->disk_count; i++) {
        const struct disk *disk = &world->disks[i];

        for (unsigned int k = 0; k < disk->guest_count; k++) {
            if (disk->guests[k].begun_ns != 0 &&
                now_ns > disk->guests[k].begun_ns + PATIENCE_NS) {
                violation("a guest's request on %s does not end", disk->name);
            }
        }
    }
    for (unsigned int i = 0; i < JOBS_MAX; i++) {
        const struct job_model *job = &world->jobs[i];

        if (job->used && job->begun && !job->told && job->group->cancelled &&
            now_ns > job->group->cancelled_ns + PATIENCE_NS) {
            violation("job '%s' does not end, though its group was cancelled",
                      job->id);
        }
    }
    if (world->cancelling_since_ns != 0 &&
        now_ns > world->cancelling_since_ns + WIND_DOWN_NS) {
        violation("jobs do not end, though all are cancelled");
    }
    if (world->command_begun_ns != 0 &&
        now_ns > world->command_begun_ns + PATIENCE_NS) {
        violation("a command does not end");
    }
}

static void run(struct world *world)
{
    uint64_t quiet = 0;
    uint64_t operations = 0;

    co_spawn(world->engine.main, co_direct, world);
    while (!world->over) {
        if (!scheduler_turn(&world->scheduler)) {
            violation("a wake-up was lost: nothing is ready, no timer runs, "
                      "and all wait");
        }
        model_after_turn(world);
        quiet = operations == world->operations ? quiet + 1 : 0;
        operations = world->operations;
        if (world->scheduler.turns % 1024 == 0) {
            check_patience(world);
        }
        if (quiet > 10 * QUIET_TURNS) {
            violation("the loops turn, and nothing gets done");
        }
    }
    quiet = 0;
    while (scheduler_turn(&world->scheduler)) {
        if (quiet++ > QUIET_TURNS) {
            violation("the loops do not come to rest at the end");
        }
    }
}

uint64_t world_run(uint64_t seed,
                   uint64_t operations,
                   bool with_trace,
                   struct histogram *histogram)
{
    struct world *world = g_new0(struct world, 1);
    uint64_t done;

    current = world;
    world->seed = seed;
    world->trace = with_trace;
    world->operations_wanted = operations;
    world->histogram = histogram;
    random_init(&world->random, seed);
    plan(world);
    build_engine(world);
    run(world);
    job_list_free(world->engine.jobs);
    block_graph_free(world->engine.graph);
    scheduler_release(&world->scheduler);
    done = world->operations;
    histogram->operations += done;
    histogram->turns += world->scheduler.turns;
    histogram->worlds++;
    current = NULL;
    g_free(world);
    return done;
}
