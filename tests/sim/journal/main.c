/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * journal-sim [--seed N | --seeds N | --seconds N | --crashes N] [--first N]
 *
 * Runs worlds, prints what they hit, and fails on the first problem. --crashes
 * goes on until so many lives have ended in the middle, with fresh seeds as
 * --seconds does unless --first gives them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "journal/disk_world.h"

#define WORLD_COUNT_TEXT(name, text) text,

static const char *const count_texts[] = { WORLD_COUNTS(WORLD_COUNT_TEXT) };

/* Every fourth has faults, another is in process mode. */
static void run_world(uint64_t seed, struct world_result *ret)
{
    const struct world_options options = {
        .seed = seed,
        .lives = 12,
        .power_cuts = true,
        .faults = seed % 4 == 3,
        .durability = seed % 4 == 1 ? TRACKER_PROCESS : TRACKER_POWER,
        .steps = 30,
        .bitmaps = seed % 3 + 1,
    };

    disk_world_run(&options, ret);
}

/* What the engine warns of, faults mean. */
static void drop_warning(const char *domain,
                         GLogLevelFlags level,
                         const char *message,
                         void *opaque)
{
    if ((level & G_LOG_LEVEL_WARNING) == 0) {
        g_log_default_handler(domain, level, message, opaque);
    }
}

int main(int argc, char **argv)
{
    struct world_result total = { .problem = NULL };
    uint64_t first = 1, seeds = 200, seconds = 0, crashes = UINT64_MAX;
    time_t began = time(NULL);

    g_log_set_default_handler(drop_warning, NULL);
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t value = strtoull(argv[i + 1], NULL, 0);

        if (strcmp(argv[i], "--seed") == 0) {
            first = value;
            seeds = 1;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            seeds = value;
        } else if (strcmp(argv[i], "--first") == 0) {
            first = value;
        } else if (strcmp(argv[i], "--seconds") == 0) {
            seconds = value;
            seeds = UINT64_MAX;
            first = (uint64_t)began << 20;
        } else if (strcmp(argv[i], "--crashes") == 0) {
            crashes = value;
            seeds = UINT64_MAX;
            first = first == 1 ? (uint64_t)began << 20 : first;
        }
    }
    for (uint64_t i = 0; i < seeds && total.crashes < crashes; i++) {
        struct world_result result;

        if (seconds > 0 && (uint64_t)(time(NULL) - began) >= seconds) {
            break;
        }
        run_world(first + i, &result);
        for (int k = 0; k < WORLD_COUNT_KINDS; k++) {
            total.counts[k] += result.counts[k];
        }
        total.crashes += result.crashes;
        total.operations += result.operations;
        if (result.problem != NULL) {
            printf("VIOLATION %s\n", result.problem);
            return EXIT_FAILURE;
        }
    }
    for (int k = 0; k < WORLD_COUNT_KINDS; k++) {
        printf("%12lu  %s\n", (unsigned long)total.counts[k], count_texts[k]);
    }
    printf("%12lu  storage operations\n", (unsigned long)total.operations);
    printf("%12lu  crashes\n", (unsigned long)total.crashes);
    return EXIT_SUCCESS;
}
