/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The driver `crash-disk`: a file in memory that remembers how it came about.
 *
 * Its log holds, in order, what reached the file and what was synced; others
 * add marks of their own. Afterwards crash_replay_*() go through the log and
 * make, at any place in it, the file that a crash there could have left: what
 * was synced is there; of the rest each sector, by itself, is as it was or as any
 * write since has left it.
 */
#ifndef SIM_QCOW2_CRASH_DISK_H
#define SIM_QCOW2_CRASH_DISK_H

#include "block/driver.h"
#include "random.h"

#define SECTOR_BYTES         512
#define CRASH_DISK_BYTES_MAX (64 << 20)

enum crash_event_kind {
    EVENT_WRITE,      /* `bytes` at `offset`; data NULL: zeroes */
    EVENT_RESIZE,     /* the file has `bytes` */
    EVENT_SYNC_BEGIN, /* number: of the sync */
    EVENT_SYNC_END,
    EVENT_MARK, /* someone else's; offset, bytes and number are his */
};

struct crash_event {
    enum crash_event_kind kind;
    unsigned int mark;
    unsigned int number;
    uint64_t offset;
    uint64_t bytes;
    uint8_t *data;
};

struct crash_disk {
    const char *name;      /* of the node and of the disk */
    struct random *random; /* NULL: no request takes time */
    bool is_logging;
    uint8_t *bytes; /* CRASH_DISK_BYTES_MAX of address space */
    uint64_t size_bytes;
    unsigned int syncs;
    GArray *log; /* struct crash_event */
};

extern const struct block_driver driver_crash_disk;

void crash_disk_init(struct crash_disk *disk, const char *name);
void crash_disk_release(struct crash_disk *disk);
/* The disks that nodes of the driver may be opened on, by node name. */
void crash_disks_set(struct crash_disk *const *disks, size_t count);
/* Opens a node on it. */
struct block_node *co_crash_disk_add(struct block_graph *graph,
                                     struct crash_disk *disk);
void crash_disk_mark(struct crash_disk *disk,
                     unsigned int mark,
                     uint64_t offset,
                     uint64_t bytes,
                     unsigned int number);

/* How much of what was not synced has survived. */
enum crash_mode {
    CRASH_PROCESS,   /* all of it */
    CRASH_NOTHING,   /* nothing */
    CRASH_SOME,      /* each sector as chance will have it */
    CRASH_LAST_LOST, /* all but some of the newest */
    CRASH_MODES,
};

struct crash_replay; /* a place in a log */

/* At the beginning of the log: the file is as it was when logging began. */
struct crash_replay *crash_replay_new(const struct crash_disk *disk,
                                      const uint8_t *begun,
                                      uint64_t begun_bytes);
void crash_replay_free(struct crash_replay *replay);
/* Takes in one more event. */
void crash_replay_step(struct crash_replay *replay, guint index);
/* How many sectors may be other than they seem. */
unsigned int crash_replay_unsynced(const struct crash_replay *replay);
/* The file that a crash here leaves, into `to`. */
void crash_replay_crash(const struct crash_replay *replay,
                        enum crash_mode mode,
                        struct random *random,
                        struct crash_disk *to);

#endif
