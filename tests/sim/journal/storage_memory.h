/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A storage in memory that crashes.
 *
 * Each operation that changes something is a crash point: they are counted, and
 * at the one that was chosen the storage dies: that operation happens not at all
 * or in part, and everything after it fails with -EIO and has no effect, so that
 * the engine under test unwinds. Then storage_memory_reboot() tells what is
 * left, and the next life begins.
 *
 * What a power cut leaves of a file: of each sector one of the versions written
 * since the last good sync, or the one from before; sectors by themselves. Of a
 * directory: any of the changes since its last sync, each by itself.
 *
 * Operations take a turn of the loop, so that coroutines meet.
 */
#ifndef SIM_JOURNAL_STORAGE_MEMORY_H
#define SIM_JOURNAL_STORAGE_MEMORY_H

#include "journal/storage.h"
#include "random.h"

enum storage_crash {
    STORAGE_CRASH_KILL,  /* of the process: what was written is there */
    STORAGE_CRASH_POWER, /* the machine: what was not synced may be lost */
};

struct storage_memory;

/* What is about to happen at a crash point. */
enum storage_step_kind {
    STORAGE_STEP_WRITE,
    STORAGE_STEP_SYNC,
    STORAGE_STEP_TRUNCATE,
    STORAGE_STEP_CREATE,
    STORAGE_STEP_RENAME, /* `path` is the new name */
    STORAGE_STEP_UNLINK,
    STORAGE_STEP_SYNC_NAMES,
};

struct storage_step {
    enum storage_step_kind kind;
    const char *path; /* the name that a file got last */
    uint64_t offset;  /* of a write, as are these */
    const void *data; /* borrowed */
    uint64_t bytes;
};

enum storage_verdict {
    STORAGE_GOES_ON,
    STORAGE_DIES,  /* here */
    STORAGE_FAILS, /* writes: without effect; syncs: as a failed one */
};

/* Decides about each step; must not wait. */
typedef enum storage_verdict (
    *storage_observe_fn)(void *opaque, const struct storage_step *step);

/* `random`: borrowed. */
struct storage_memory *storage_memory_new(struct random *random);
void storage_memory_free(struct storage_memory *memory);
struct storage *storage_memory_storage(struct storage_memory *memory);

/* The clock for time stamps, nanoseconds; borrowed. NULL: stands still. */
void storage_memory_set_clock(struct storage_memory *memory,
                              const uint64_t *clock_ns);

/* Dies at the n-th crash point from now (1: the next one); 0: never. */
void storage_memory_crash_at(struct storage_memory *memory, uint64_t point);
/* Dies instead at the n-th sync of a file, before it has done anything; or
 * (`names`) at the n-th rename, unlink or sync of a directory. */
void storage_memory_crash_at_sync(struct storage_memory *memory,
                                  bool names,
                                  uint64_t count);
/* Asked at each crash point, beside what is planned. NULL: nobody is. */
void storage_memory_observe(struct storage_memory *memory,
                            storage_observe_fn observe,
                            void *opaque);
bool storage_memory_is_dead(const struct storage_memory *memory);
/* In what it died last: "write /a.cbt"; NULL: it never did. Borrowed. */
const char *storage_memory_died_in(const struct storage_memory *memory);
/* Crash points since it was made: operations that might have been the last. */
uint64_t storage_memory_points(const struct storage_memory *memory);
/* All is closed and unlocked. Lives on after a kill, or a power cut. */
void storage_memory_reboot(struct storage_memory *memory,
                           enum storage_crash crash);

/* If a sync of the file has failed: it shows what the disk has from now on. */
void storage_memory_drop_suspect_cache(struct storage_memory *memory,
                                       const char *path);

/* The n-th sync from now, of a file whose path ends in `suffix` (NULL: any),
 * fails; what it was to make durable may be or not, and later syncs say nothing
 * of it. 0: none. */
void storage_memory_fail_sync(struct storage_memory *memory,
                              const char *suffix,
                              uint64_t count);
/* As above: the n next syncs fail, one after the other. */
void storage_memory_fail_syncs(struct storage_memory *memory,
                               const char *suffix,
                               uint64_t count);
/* All writes and syncs of paths that end in `suffix` fail. NULL: none. */
void storage_memory_fail_writes(struct storage_memory *memory,
                                const char *suffix,
                                int error);
/* The next rename to a path that ends in `suffix` is done, and fails with -EIO all
 * the same. NULL: none. */
void storage_memory_fail_rename_late(struct storage_memory *memory,
                                     const char *suffix);
/* All reads of paths that end in `suffix` fail. NULL: none. */
void storage_memory_fail_reads(struct storage_memory *memory,
                               const char *suffix,
                               int error);
/* So many bytes fit; UINT64_MAX: no limit. */
void storage_memory_set_space(struct storage_memory *memory, uint64_t bytes);
/* A directory that is not synced yet counts as durable; for set-up. */
void storage_memory_sync_all(struct storage_memory *memory);
/* The file system of every directory lives in memory (co_is_volatile). */
void storage_memory_set_volatile(struct storage_memory *memory, bool is);

/* Direct looks and changes, by tests. Data is borrowed until the next operation;
 * NULL: no such file. */
const uint8_t *storage_memory_peek(struct storage_memory *memory,
                                   const char *path,
                                   uint64_t *ret_bytes);
/* As a stranger: durable at once. */
void storage_memory_poke(struct storage_memory *memory,
                         const char *path,
                         uint64_t offset,
                         const void *data,
                         uint64_t bytes);
/* Durable at once. */
void storage_memory_make_folder(struct storage_memory *memory,
                                const char *path);
void storage_memory_remove(struct storage_memory *memory, const char *path);
/* Copies a file as cp would: another inode, new times (`keep_times`: the old
 * modification time). */
void storage_memory_copy(struct storage_memory *memory,
                         const char *from,
                         const char *to,
                         bool keep_times);

#endif
