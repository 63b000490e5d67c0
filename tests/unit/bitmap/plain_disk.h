/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk for tests that keeps nothing and may hang: nodes of driver "plain",
 * and a place with a graph to put them in.
 */
#ifndef TESTS_UNIT_BITMAP_PLAIN_DISK_H
#define TESTS_UNIT_BITMAP_PLAIN_DISK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/node.h"
#include "block/request.h"
#include "loop/coroutine.h"
#include "loop/loop.h"

#define DISK_LOOPS 2

struct disk_place {
    struct loop *main;
    struct loop *homes[DISK_LOOPS];
    struct block_graph *graph;
    void (*test)(struct disk_place *place);
};

/* Runs `test` in a coroutine of the main loop; nodes live on it, or
 * (`iothreads`) in turn on two other threads. Deletes the nodes afterwards. */
void run_with_disks(void (*test)(struct disk_place *place), bool iothreads);

/* `cluster_bytes` 0: has none. */
struct block_node *co_disk_add(struct disk_place *place,
                               const char *name,
                               uint64_t size_bytes,
                               uint64_t cluster_bytes);

/* From now on writes hang until disk_unhang(). Home thread. */
void disk_hang(struct block_node *node);
void disk_unhang(struct block_node *node);

/* Moves the test to the node's home thread, and back to the main thread. */
void co_go_home(struct block_node *node);
void co_go_back(struct disk_place *place);

#endif
