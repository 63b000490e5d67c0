/* SPDX-License-Identifier: BSD-3-Clause */
/* What every test of a loop begins with: cmocka, and a loop to run on. */
#ifndef TESTS_UNIT_LOOP_LOOP_TEST_H
#define TESTS_UNIT_LOOP_LOOP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/io.h"
#include "loop/loop.h"

struct test_run {
    coroutine_fn run;
    void *opaque;
};

static inline void test_run_and_stop(void *opaque)
{
    struct test_run *test = opaque;

    test->run(test->opaque);
    loop_stop(loop_current());
}

/* Runs `run(opaque)` in a coroutine of a loop of its own, on this thread, and
 * returns when it and all it started has ended. */
static inline void run_in_loop(coroutine_fn run, void *opaque)
{
    g_autoptr(GError) err = NULL;
    struct loop *loop = loop_new(&loop_uring_backend, "test", &err);
    struct test_run test = { run, opaque };

    if (loop == NULL) {
        print_message("%s\n", err->message);
    }
    assert_non_null(loop);
    co_spawn(loop, test_run_and_stop, &test);
    loop_run(loop);
    loop_free(loop);
}

#endif
