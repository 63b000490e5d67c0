/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tests of nodes begin with: a graph on a loop (and iothreads if wanted),
 * options from key=value text, and a driver over memory that records what
 * reaches it and can be made to fail or to wait.
 */
#ifndef TESTS_UNIT_BLOCK_BLOCK_TEST_H
#define TESTS_UNIT_BLOCK_BLOCK_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/driver.h"
#include "block/fence.h"
#include "block/hook.h"
#include "block/node.h"
#include "block/request.h"
#include "loop/co_lock.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

/* The drivers of tests: "memory" (options size, alignment), "filter" (child
 * "file"), "overlay" (memory over an optional child "backing"). */
extern const struct block_driver *const test_drivers[];

/* Switches of a memory node. */
struct memory_state {
    uint8_t *bytes;
    uint64_t size_bytes;
    unsigned int reads;
    unsigned int writes;
    unsigned int flushes;
    unsigned int last_flags;
    int write_error; /* negative errno for each write, 0: none */
    int flush_error;
    bool hold_writes; /* writes wait in `held` until it is woken */
    struct co_queue held;
    bool misaligned; /* something came that the alignment forbids */
    bool *written;   /* overlay: per byte */
};

struct memory_state *memory_of(struct block_node *node);

struct graph_run {
    struct block_graph *graph;
    const struct block_driver *const *drivers;
    void (*co_test)(struct block_graph *graph, void *opaque);
    void *opaque;
    unsigned int iothreads;
};

/* Runs the test in a coroutine of a main loop, with so many iothreads; the
 * graph is emptied and freed afterwards. */
void run_in_graph(const struct block_driver *const *drivers,
                  unsigned int iothreads,
                  void (*co_test)(struct block_graph *graph, void *opaque),
                  void *opaque);

/* blockdev-add with options as key=value text, all coerced by `type`, NULL:
 * size, alignment and booleans only. Asserts success. */
struct block_node *co_add(struct block_graph *graph, const char *options);
/* ... asserts failure, with `part` in the sentence. */
void co_add_fails(struct block_graph *graph,
                  const char *options,
                  const char *part);
/* For either: how text becomes options. Set by a test that links the drivers
 * (blockdev_options_type); NULL: the test drivers' own simple reading. */
extern const struct schema_type *test_options_type;

/* Goes to the node's home, and back. */
void co_go_home(struct block_node *node);
void co_go_main(struct block_node *node);

/* Does the file system of `path` have O_DIRECT? Says so if not. */
bool can_do_direct_io(const char *path);

void assert_error(GError **err, const char *part);

#endif
