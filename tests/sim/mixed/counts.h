/* SPDX-License-Identifier: BSD-3-Clause */
/* What has happened in all worlds of a run. One that never happens is a test that
 * is not made, so a long run fails then. */
#ifndef SIM_MIXED_COUNTS_H
#define SIM_MIXED_COUNTS_H

#define WORLD_COUNTS(COUNT)                                        \
 COUNT(WORLD_LIVES, "lives")                                       \
 COUNT(WORLD_CRASHES, "crashes")                                   \
 COUNT(WORLD_KILLS, "crash: killed")                               \
 COUNT(WORLD_POWER_CUTS, "crash: power cut")                       \
 COUNT(WORLD_KILL_THEN_POWER, "crash: killed, then power cut")     \
 COUNT(WORLD_CRASHED_OPENING, "crash: while recovering")           \
 COUNT(WORLD_CRASHED_CLOSING, "crash: while closing")              \
 COUNT(WORLD_CLEAN, "closed cleanly")                              \
 COUNT(WORLD_ABSENT, "disk: absent at first")                      \
 COUNT(WORLD_CAME_LATE, "disk: came later in the same life")       \
 COUNT(WORLD_WRITES, "guest: writes")                              \
 COUNT(WORLD_FLUSHES, "guest: flushes")                            \
 COUNT(WORLD_FULL, "backup: full member")                          \
 COUNT(WORLD_INCREMENTAL, "backup: incremental member")            \
 COUNT(WORLD_GROUPS, "backup: group begun")                        \
 COUNT(WORLD_SINGLES, "backup: single job begun")                  \
 COUNT(WORLD_REFUSED, "backup: refused")                           \
 COUNT(WORLD_BASE_REFUSED, "backup: refused, another base")        \
 COUNT(WORLD_PUBLISHED, "backup: published")                       \
 COUNT(WORLD_CLIENT_DIED, "backup: its client died")               \
 COUNT(WORLD_SETTLED_PUBLISHED, "settled: published")              \
 COUNT(WORLD_SETTLED_DISCARDED, "settled: discarded")              \
 COUNT(WORLD_POINTS_COMPARED, "points compared byte by byte")      \
 COUNT(WORLD_BITMAPS_COMPARED, "bitmaps compared byte by byte")    \
 COUNT(WORLD_LEFTOVERS, "left in the image by what was in doubt")  \
 COUNT(WORLD_VERDICTS_FOUND, "transactions decided by recovery")   \
 COUNT(WORLD_VERBS, "verb: done")                                  \
 COUNT(WORLD_CHANGES, "verb: on several disks, by one record")     \
 COUNT(WORLD_MERGES, "verb: merge")                                \
 COUNT(WORLD_RESIZES, "verb: resize")                              \
 COUNT(WORLD_DOUBT, "fault: COMMIT's sync")                        \
 COUNT(WORLD_DOUBT_TOLD, "doubt: told, and all lives on")          \
 COUNT(WORLD_DOUBT_ENDED, "doubt: ended by ABORT, life goes on")   \
 COUNT(WORLD_LET_GO, "doubt: let go by a daemon that ends")        \
 COUNT(WORLD_LET_GO_CLEAN, "doubt: let go, and closed cleanly")    \
 COUNT(WORLD_LET_GO_COMMITTED, "doubt: let go, found committed")   \
 COUNT(WORLD_LET_GO_ABORTED, "doubt: let go, found aborted")       \
 COUNT(WORLD_NEVER, "mode never: committed")                       \
 COUNT(WORLD_NEVER_FAILED, "mode never: failed")                   \
 COUNT(WORLD_ALWAYS, "mode always: committed")                     \
 COUNT(WORLD_ALWAYS_FAILED, "mode always: failed")                 \
 COUNT(WORLD_ALWAYS_FOUND, "mode always: undecided at a crash")    \
 COUNT(WORLD_PARTLY, "mode on-success: failed part-way")           \
 COUNT(WORLD_NEVER_PARTLY, "mode never: failed part-way")          \
 COUNT(WORLD_ALWAYS_PARTLY, "mode always: failed part-way")        \
 COUNT(WORLD_DIFFERENTIAL, "backup: on a point before the newest") \
 COUNT(WORLD_PROCESS_DAEMONS, "process: daemon")                   \
 COUNT(WORLD_PROCESS_DISKS, "process: disk opened")                \
 COUNT(WORLD_PROCESS_KEPT, "process: disk found after a kill")     \
 COUNT(WORLD_PROCESS_LOST, "process: disk's bitmaps lost")         \
 COUNT(WORLD_PROCESS_FULL, "process: full backup after the loss")  \
 COUNT(WORLD_PROCESS_UNKNOWN, "process: outcome unknown")

#define WORLD_COUNT_ENUM(name, text) name,

enum world_count {
    WORLD_COUNTS(WORLD_COUNT_ENUM) WORLD_COUNT_KINDS
};

#undef WORLD_COUNT_ENUM

#endif
