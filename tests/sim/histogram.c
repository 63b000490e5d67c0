/* SPDX-License-Identifier: BSD-3-Clause */
#include "histogram.h"

#include <inttypes.h>
#include <stdio.h>

#define BUCKET_TEXT(name, text) text,
static const char *const bucket_texts[BUCKETS] = { HISTOGRAM_BUCKETS(
    BUCKET_TEXT) };
#undef BUCKET_TEXT

const char *const sim_verb_names[SIM_VERBS] = {
    [VERB_PAUSE] = "job-pause",
    [VERB_RESUME] = "job-resume",
    [VERB_CANCEL] = "job-cancel",
    [VERB_CANCEL_SOFT] = "block-job-cancel",
    [VERB_FINALIZE] = "job-finalize",
    [VERB_DISMISS] = "job-dismiss",
    [VERB_SET_SPEED] = "block-job-set-speed",
    [VERB_COMPLETE] = "job-complete",
    [VERB_EXTENTS] = "x-cohort-query-backup-extents",
};

/* The states in which a verb can meet a backup job: `created` and `null` do
 * not last until another command, `ready` and `standby` are for mirrors. */
static const enum job_state states[] = {
    JOB_RUNNING, JOB_PAUSED,   JOB_WAITING,
    JOB_PENDING, JOB_ABORTING, JOB_CONCLUDED,
};

#define STATES (sizeof(states) / sizeof(states[0]))

unsigned int histogram_print(const struct histogram *histogram)
{
    unsigned int empty = 0;

    for (unsigned int i = 0; i < BUCKETS; i++) {
        printf("%12" PRIu64 "  %s\n", histogram->buckets[i], bucket_texts[i]);
        empty += histogram->buckets[i] == 0;
    }
    printf("\n%-30s", "verb \\ state of its job");
    for (unsigned int k = 0; k < STATES; k++) {
        printf("%11s", job_state_name(states[k]));
    }
    printf("\n");
    for (unsigned int i = 0; i < SIM_VERBS; i++) {
        printf("%-30s", sim_verb_names[i]);
        for (unsigned int k = 0; k < STATES; k++) {
            uint64_t count = histogram->verbs[i][states[k]];

            printf("%11" PRIu64, count);
            empty += count == 0;
        }
        printf("\n");
    }
    printf("\nlongest command: %s, %.3f s, seed %" PRIu64 "\n",
           histogram->longest_command != NULL ? histogram->longest_command
                                              : "none",
           (double)histogram->longest_command_ns / 1e9,
           histogram->longest_command_seed);
    return empty;
}
