/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The first bytes of a disk, and what is known of them: a target writes to it at
 * random, and may ask at any time whether it reads as it must.
 *
 *     co_window_read()     what is there is what is known
 *     co_window_change()   one request; what it wrote is known
 *     co_window_compare()  aborts if something known reads otherwise
 *
 * A request that fails leaves its range unknown. Coroutines of the node's home.
 */
#ifndef TESTS_FUZZ_DISK_WINDOW_H
#define TESTS_FUZZ_DISK_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "block/node.h"

#define WINDOW_BYTES (96 * 1024)
#define UNIT_BYTES   512
#define WINDOW_UNITS (WINDOW_BYTES / UNIT_BYTES)

struct disk_window {
    uint64_t random; /* state of the generator; set by the user */
    uint8_t bytes[WINDOW_BYTES];
    bool known[WINDOW_UNITS];
};

uint64_t window_random(struct disk_window *window);

void co_window_read(struct disk_window *window, struct block_node *node);
/* A write (plain or compressed), zeroes, a discard, or a resize; at times a flush
 * after it. */
void co_window_change(struct disk_window *window, struct block_node *node);
void co_window_compare(const struct disk_window *window,
                       struct block_node *node);

#endif
