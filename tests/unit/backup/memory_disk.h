/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A disk in memory whose requests can be made to hang or to fail: the driver
 * "memory-disk" with the one option `size`.
 */
#ifndef TESTS_UNIT_BACKUP_MEMORY_DISK_H
#define TESTS_UNIT_BACKUP_MEMORY_DISK_H

#include "block/driver.h"
#include "loop/co_lock.h"

extern const struct block_driver driver_memory_disk;

/* The state of a node of that driver. Home thread. */
struct memory_disk {
    uint8_t *data;
    bool hang_reads;
    bool hang_writes;
    struct co_queue released;
    int read_error;
    bool fail_once; /* read_error goes after its first use */
    int write_error;
    unsigned int reads;
    unsigned int writes;
    unsigned int zero_writes;
    uint64_t written_bytes;
    unsigned int last_write_flags;
    unsigned int status; /* of all of it; 0: data */
};

struct memory_disk *memory_disk_of(struct block_node *node);
/* Ends both kinds of hanging. */
void memory_disk_release(struct memory_disk *disk);

/* Adds a node of `size` bytes to the graph. In a coroutine of its main loop. */
struct block_node *co_memory_disk_add(struct block_graph *graph,
                                      const char *name,
                                      uint64_t size_bytes);

#endif
