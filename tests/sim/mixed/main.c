/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sim-mixed: crashes several disks and their repository.
 *
 *     sim-mixed                fixed seeds, then fresh ones for a while
 *     sim-mixed --seed N       that one
 *     sim-mixed --seeds N      the first N fixed seeds
 *     sim-mixed --seconds S    fresh seeds for so long
 *     sim-mixed --crashes N    fresh seeds until so many crashes
 */
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "mixed/world.h"

#define FIXED_SEEDS   150
#define FRESH_SECONDS 15
/* A run of so many crashes must have died everywhere; one of so many, everywhere
 * a hundred times. */
#define CRASHES_FOR_ALL     1000
#define CRASHES_FOR_HUNDRED 50000

static gint64 option_seed = -1;
static gint64 option_seeds = -1;
static gint64 option_seconds = -1;
static gint64 option_crashes = -1;
static gboolean option_trace;

static const GOptionEntry entries[] = {
    { "seed", 's', 0, G_OPTION_ARG_INT64, &option_seed, "Run this seed", "N" },
    { "seeds", 'n', 0, G_OPTION_ARG_INT64, &option_seeds,
      "Run the fixed seeds 1 to N", "N" },
    { "seconds", 't', 0, G_OPTION_ARG_INT64, &option_seconds,
      "Run fresh seeds for this long", "S" },
    { "crashes", 'c', 0, G_OPTION_ARG_INT64, &option_crashes,
      "Run fresh seeds until there were so many crashes", "N" },
    { "trace", 'v', 0, G_OPTION_ARG_NONE, &option_trace,
      "Print every command and event", NULL },
    G_OPTION_ENTRY_NULL
};

#define WORLD_COUNT_TEXT(name, text) text,

static const char *const count_texts[] = { WORLD_COUNTS(WORLD_COUNT_TEXT) };

struct totals {
    struct coverage coverage;
    uint64_t counts[WORLD_COUNT_KINDS];
    uint64_t seeds;
};

/* The engine's own assertions end the process: say which seed it was. */
static void tell_seed(int signal_number)
{
    const struct world *world = world_current();
    char text[128];
    int length;

    if (world != NULL) {
        length = snprintf(text, sizeof(text),
                          "sim-mixed: CRASH: seed %" PRIu64 ", life %u\n",
                          world->seed, world->lives);
        if (write(STDERR_FILENO, text, (size_t)length) < 0) {
            _exit(1);
        }
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* What the engine warns of, crashes mean. */
static void on_log(const char *domain,
                   GLogLevelFlags level,
                   const char *message,
                   void *opaque)
{
    if ((level & G_LOG_LEVEL_WARNING) == 0) {
        g_log_default_handler(domain, level, message, opaque);
    } else if (world_current() != NULL) {
        world_trace(world_current(), "warning: %s", message);
    }
}

static void run(uint64_t seed, struct totals *totals)
{
    char *problem =
        world_run(seed, option_trace, &totals->coverage, totals->counts);

    totals->seeds++;
    if (problem != NULL) {
        fflush(stdout);
        fprintf(stderr,
                "sim-mixed: VIOLATION: %s\n"
                "  replay: ./dev test sim-mixed --seed %" PRIu64 " --trace\n",
                problem, seed);
        exit(EXIT_FAILURE);
    }
}

static uint64_t fresh_seed(void)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        seed = (uint64_t)time(NULL);
    }
    seed = seed % UINT64_C(1000000000) + 1000000;
    printf("fresh seeds from %" PRIu64 " on\n", seed);
    fflush(stdout);
    return seed;
}

static void run_fresh(struct totals *totals, gint64 seconds, gint64 crashes)
{
    time_t began = time(NULL);

    for (uint64_t seed = fresh_seed();; seed++) {
        if (seconds >= 0 && time(NULL) - began >= seconds) {
            return;
        }
        if (crashes >= 0 &&
            totals->counts[WORLD_CRASHES] >= (uint64_t)crashes) {
            return;
        }
        run(seed, totals);
    }
}

/* Places and counts that have been missed too often. */
static unsigned int print(const struct totals *totals)
{
    uint64_t crashes = totals->counts[WORLD_CRASHES];
    uint64_t wanted = crashes >= CRASHES_FOR_HUNDRED ? 100
                      : crashes >= CRASHES_FOR_ALL   ? 1
                                                     : 0;
    unsigned int missed = 0;

    printf("%12s  %s\n", "crashes", "at");
    for (int i = 0; i < COVERAGE_PLACE_COUNT; i++) {
        bool misses = totals->coverage.hits[i] < wanted;

        printf("%12" PRIu64 "  %s%s\n", totals->coverage.hits[i],
               coverage_name(i), misses ? "  TOO FEW" : "");
        missed += misses;
    }
    for (int i = 0; i < WORLD_COUNT_KINDS; i++) {
        /* The one that is rare takes the long form. */
        bool misses = wanted > (i == WORLD_LEFTOVERS) && totals->counts[i] == 0;

        printf("%12" PRIu64 "  %s%s\n", totals->counts[i], count_texts[i],
               misses ? "  NONE" : "");
        missed += misses;
    }
    return missed;
}

static void run_all(struct totals *totals)
{
    if (option_seed >= 0) {
        run((uint64_t)option_seed, totals);
        return;
    }
    if (option_seconds < 0 && option_crashes < 0) {
        gint64 seeds = option_seeds >= 0 ? option_seeds : FIXED_SEEDS;

        for (gint64 seed = 1; seed <= seeds; seed++) {
            run((uint64_t)seed, totals);
        }
        if (option_seeds >= 0) {
            return;
        }
        option_seconds = FRESH_SECONDS;
    }
    run_fresh(totals, option_seconds, option_crashes);
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;
    struct totals *totals = g_new0(struct totals, 1);
    unsigned int missed;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fprintf(stderr, "sim-mixed: %s\n", error->message);
        return 2;
    }
    (void)mallopt(M_TRIM_THRESHOLD, 256 << 20); /* lives come and go */
    signal(SIGABRT, tell_seed);
    signal(SIGSEGV, tell_seed);
    g_log_set_default_handler(on_log, NULL);
    run_all(totals);
    missed = print(totals);
    printf("%" PRIu64 " seeds, %" PRIu64 " crashes\n", totals->seeds,
           totals->counts[WORLD_CRASHES]);
    g_free(totals);
    if (missed > 0) {
        fprintf(stderr, "sim-mixed: %u places were missed\n", missed);
    }
    return missed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
