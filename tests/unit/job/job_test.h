/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tests of jobs share: a place with a main loop and homes for the jobs, a
 * log of events, and a kind of job that does as it is told.
 *
 * The log is one line of words: "a:running", "a:COMPLETED", and for a failure
 * "a:COMPLETED(text)". Tests wait for what happens by waiting for its event.
 */
#ifndef TESTS_UNIT_JOB_JOB_TEST_H
#define TESTS_UNIT_JOB_JOB_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "job/job.h"
#include "job/job_txn.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

#define HOMES 2

struct place {
    struct loop *main;
    struct loop *homes[HOMES];
    struct job_list *jobs;
    GString *log;
    GString *calls;          /* of the driver: "a:commit b:commit ..." */
    struct co_queue changed; /* woken at each event */
    void (*test)(struct place *place);
};

/* A job of `steps` steps that then returns `result`. While not `open` it goes
 * round and round at its pause point instead. */
struct work {
    struct place *place;
    struct job *job; /* dangling once it has ended */
    int steps;
    int result;
    int prepare_result;
    bool sleeps; /* in co_job_sleep_until(), for an hour, instead */
    atomic_bool open;
    atomic_int rounds;
    atomic_int cancel_calls;
    atomic_uint_fast64_t speed_seen;
    int final; /* job_result() as co_clean saw it */
    int clean_calls;
    /* Called in co_run and in co_prepare, if not NULL. */
    void (*during_run)(struct work *work);
    void (*co_during_prepare)(struct work *work);
};

/* Runs `test` in a coroutine of a main loop, with jobs at home there or
 * (`iothreads`) each on one of two other threads. No job may be left after. */
void run_in_place(void (*test)(struct place *place), bool iothreads);

/* A job over `work`, homes in turn. `options` NULL: all automatic. */
struct job *work_job(struct place *place,
                     struct work *work,
                     const char *id,
                     const struct job_options *options);

/* A group of all that NULL ends; started. */
void start_group(struct place *place,
                 struct work *first,
                 ...) G_GNUC_NULL_TERMINATED;

/* Waits until the log holds the word; forever if it never does. */
void co_wait_for(struct place *place, const char *word);
/* Waits until no job is left. */
void co_wait_for_all(struct place *place);

/* Compares the words that concern job `id` (NULL: all) with the line. */
void assert_log(struct place *place, const char *id, const char *expected);

#endif
