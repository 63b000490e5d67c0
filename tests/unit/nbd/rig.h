/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of the NBD server stand on: a main and two other loop threads,
 * and a node whose content is memory and which can be made to wait or fail.
 *
 * Everything is called from the test's own thread. Whatever waits gives up
 * after ten seconds and fails the test.
 */
#ifndef TESTS_NBD_RIG_H
#define TESTS_NBD_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block/node.h"
#include "nbd/export.h"
#include "nbd/negotiate.h"

#define RIG_DISK_BYTES ((size_t)1024 * 1024 + 100) /* not of whole sectors */

struct rig;

struct rig *rig_new(void);
/* Stops the server, deletes the node, ends the threads. */
void rig_free(struct rig *rig);

/* Runs `call(opaque)` in a coroutine on the main loop and returns its result
 * when it is done. */
int rig_run(struct rig *rig, int (*co_call)(void *opaque), void *opaque);

/* The node `disk` and its content. Look at it when no request is under way. */
struct block_node *rig_node(struct rig *rig);
uint8_t *rig_content(struct rig *rig);
unsigned int rig_flushes(struct rig *rig);

/* How the disk behaves from now on. */
enum rig_mood {
    RIG_QUICK, /* answers without waiting */
    RIG_SLOW,  /* every request needs a coroutine */
    RIG_HUNG,  /* ... and waits until the mood changes */
    RIG_BROKEN /* every request fails with EIO */
};

void rig_set_mood(struct rig *rig, enum rig_mood mood);
/* Waits until `count` requests hang. */
void rig_wait_for_hung(struct rig *rig, unsigned int count);

/* The export list, with its server on rig_socket() once started. */
struct export_list *rig_exports(struct rig *rig);
const char *rig_socket(struct rig *rig);
void rig_start_server(struct rig *rig, uint32_t connections_max);
/* Export `id` of the node, with that name. */
int rig_export(struct rig *rig, const char *id, bool writable, GError **err);
int rig_delete(struct rig *rig, const char *id, bool hard, GError **err);
/* Waits for that many BLOCK_EXPORT_DELETED since the rig began. */
void rig_wait_for_deleted(struct rig *rig, unsigned int count);
/* Moves the node to the other of the two threads. */
void rig_move(struct rig *rig);
/* Tries to; the result of co_block_move(). */
int rig_try_move(struct rig *rig);

#endif
