/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small backend without a kernel, for tests: time passes only when a loop
 * sleeps, a file is a piece of memory, and nothing happens by chance.
 *
 * All loops that use it share one world, in one thread. `opaque` to a backend's
 * open() there is none, so the world is the test's one static object.
 */
#ifndef TESTS_UNIT_LOOP_FAKE_BACKEND_H
#define TESTS_UNIT_LOOP_FAKE_BACKEND_H

#include "loop/backend.h"

struct fake_world {
    uint64_t now_ns;
    uint64_t tick_ns; /* how far each look at the clock moves it */
    char file[4096];
    size_t file_bytes;
    size_t transfer_max; /* an operation moves no more; 0: no limit */
    int fail_once;    /* an operation's result, if not 0: that of the next, */
    size_t fail_skip; /* after so many that succeed */
    void (*on_clock)(void); /* called once, at the next look at the clock */
    bool refuse_open;
    /* What was asked of the backend. */
    size_t submitted;
    size_t sleeps;
    size_t wakes;
    uint64_t slept_until_ns;
    size_t chooser_asked;
    size_t chooser_answer; /* modulo the count */
};

extern struct fake_world fake_world;
extern const struct loop_backend fake_backend;
extern const struct loop_backend fake_choosing_backend;
extern const struct loop_backend fake_spinning_backend;

#endif
