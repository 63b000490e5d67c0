/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim: runs the simulator over seeds.
 *
 *     sim                  the fixed seeds, then fresh ones for a minute
 *     sim --seed N         that one
 *     sim --seconds S      fresh seeds for so long
 *     sim --seeds N        the first N fixed seeds
 */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "world.h"

#define FIXED_SEEDS      200
#define FRESH_SECONDS    60
#define WORLD_OPERATIONS 20000
/* From here on no bucket may be empty: the fixed seeds fill them all. */
#define WORLDS_FOR_HISTOGRAM FIXED_SEEDS

static gint64 option_seed = -1;
static gint64 option_seconds = -1;
static gint64 option_seeds = -1;
static gint64 option_operations = WORLD_OPERATIONS;
static gboolean option_trace;

static const GOptionEntry entries[] = {
    { "seed", 's', 0, G_OPTION_ARG_INT64, &option_seed, "Run this seed", "N" },
    { "seeds", 'n', 0, G_OPTION_ARG_INT64, &option_seeds,
      "Run the fixed seeds 1 to N", "N" },
    { "seconds", 't', 0, G_OPTION_ARG_INT64, &option_seconds,
      "Run fresh seeds for this long", "S" },
    { "operations", 'o', 0, G_OPTION_ARG_INT64, &option_operations,
      "Operations of one seed", "N" },
    { "trace", 'v', 0, G_OPTION_ARG_NONE, &option_trace,
      "Print every command, reply and event", NULL },
    G_OPTION_ENTRY_NULL
};

static double seconds_of(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The engine's own assertions end the process: say which seed it was. */
static void tell_seed(int signal_number)
{
    const struct world *world = world_current();
    char text[128];
    int length;

    if (world != NULL) {
        length =
            snprintf(text, sizeof(text),
                     "sim: CRASH: seed %" PRIu64 ", operation %" PRIu64 "\n",
                     world->seed, world->operations);
        if (write(STDERR_FILENO, text, (size_t)length) < 0) {
            _exit(1);
        }
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* What the engine warns of, faults mean: a part of the story. */
static void on_log(const char *domain,
                   GLogLevelFlags level,
                   const char *message,
                   void *opaque)
{
    struct world *world = world_current();

    if ((level & G_LOG_LEVEL_WARNING) == 0 || world == NULL) {
        g_log_default_handler(domain, level, message, opaque);
    } else {
        trace(world, "warning: %s", message);
    }
}

static void run_fresh(struct histogram *histogram, double seconds)
{
    double end = seconds_of(CLOCK_MONOTONIC) + seconds;
    uint64_t seed;

    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        seed = (uint64_t)time(NULL);
    }
    seed = seed % UINT64_C(1000000000) + 1000000;
    printf("fresh seeds from %" PRIu64 " on\n", seed);
    while (seconds_of(CLOCK_MONOTONIC) < end) {
        world_run(seed++, (uint64_t)option_operations, false, histogram);
    }
}

static void run_fixed(struct histogram *histogram, uint64_t count)
{
    for (uint64_t seed = 1; seed <= count; seed++) {
        world_run(seed, (uint64_t)option_operations, false, histogram);
    }
}

static int report(const struct histogram *histogram, double seconds)
{
    unsigned int empty = histogram_print(histogram);

    double cpu_seconds = seconds_of(CLOCK_PROCESS_CPUTIME_ID);

    printf("%" PRIu64 " operations in %" PRIu64 " worlds, %" PRIu64
           " turns, %.1f s, %.1f s of CPU: %.0f operations per second and "
           "core\n",
           histogram->operations, histogram->worlds, histogram->turns, seconds,
           cpu_seconds, (double)histogram->operations / cpu_seconds);
    if (empty > 0 && histogram->worlds >= WORLDS_FOR_HISTOGRAM) {
        fprintf(stderr, "sim: %u buckets are empty\n", empty);
        return 1;
    }
    return 0;
}

static bool parse(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) err = NULL;

    g_option_context_set_summary(context,
                                 "Runs the simulator: the fixed seeds and a "
                                 "minute of fresh ones, unless told "
                                 "otherwise.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &err)) {
        fprintf(stderr, "sim: %s\n", err->message);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct histogram *histogram = g_new0(struct histogram, 1);
    double begun = seconds_of(CLOCK_MONOTONIC);
    int status;

    if (!parse(argc, argv)) {
        return 2;
    }
    /* Buffers come and go by the thousand: keep their memory. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    g_log_set_default_handler(on_log, NULL);
    signal(SIGABRT, tell_seed);
    signal(SIGSEGV, tell_seed);
    signal(SIGTRAP, tell_seed);
    setvbuf(stdout, NULL, _IOLBF, 0);

    if (option_seed >= 0) {
        world_run((uint64_t)option_seed, (uint64_t)option_operations,
                  option_trace, histogram);
    } else if (option_seconds >= 0) {
        run_fresh(histogram, (double)option_seconds);
    } else if (option_seeds >= 0) {
        run_fixed(histogram, (uint64_t)option_seeds);
    } else {
        run_fixed(histogram, FIXED_SEEDS);
        run_fresh(histogram, FRESH_SECONDS);
    }
    status = report(histogram, seconds_of(CLOCK_MONOTONIC) - begun);
    g_free(histogram);
    return status;
}
