/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the runs have hit. A bucket that stays empty in a long run means that
 * the simulator does not test what it claims to, and is a failure.
 */
#ifndef SIM_HISTOGRAM_H
#define SIM_HISTOGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "job/job_state.h"

#define HISTOGRAM_BUCKETS(BUCKET)                                         \
 BUCKET(GUEST_WRITE, "guest: write")                                      \
 BUCKET(GUEST_ZEROES, "guest: write zeroes")                              \
 BUCKET(GUEST_DISCARD, "guest: discard")                                  \
 BUCKET(GUEST_READ, "guest: read")                                        \
 BUCKET(GUEST_FLUSH, "guest: flush")                                      \
 BUCKET(GUEST_AT_ONCE, "guest: served without waiting")                   \
 BUCKET(GUEST_UNALIGNED, "guest: unaligned write")                        \
 BUCKET(GUEST_OVERLAP, "guest: writes overlap")                           \
 BUCKET(GUEST_PAID, "guest: paid for a backup, as it was told to")        \
 BUCKET(VERB_OK, "verb: succeeded")                                       \
 BUCKET(VERB_REFUSED, "verb: refused")                                    \
 BUCKET(TRANSACTION_OK, "transaction: committed")                         \
 BUCKET(TRANSACTION_MIXED, "transaction: bitmap actions and backups")     \
 BUCKET(TRANSACTION_GROUPED, "transaction: grouped, two jobs or more")    \
 BUCKET(TRANSACTION_UNDONE, "transaction: backups prepared, then undone") \
 BUCKET(FENCE_TIMEOUT, "race: fence timeout")                             \
 BUCKET(FENCE_TIMEOUT_BACKUP, "race: fence timeout, backups prepared")    \
 BUCKET(DELETE_REFUSED, "node: deletion refused, job in the way")         \
 BUCKET(DELETE_DONE, "node: deleted and added again")                     \
 BUCKET(HOME_MOVED, "node: moved to another thread")                      \
 BUCKET(FAULT_GUEST_READ, "fault: guest's read")                          \
 BUCKET(FAULT_GUEST_WRITE, "fault: guest's write")                        \
 BUCKET(FAULT_GUEST_FLUSH, "fault: guest's flush")                        \
 BUCKET(FAULT_SOURCE_READ, "fault: background read of the source")        \
 BUCKET(FAULT_SAVE_READ, "fault: read of what a guest overwrites")        \
 BUCKET(FAULT_TARGET_WRITE, "fault: write to the target")                 \
 BUCKET(FAULT_TARGET_FLUSH, "fault: flush of the target")                 \
 BUCKET(FAULT_SOURCE_FLUSH, "fault: job's flush of the source")           \
 BUCKET(FAULT_STATUS, "fault: block status")                              \
 BUCKET(FAULT_HANG, "fault: request hangs beyond the fence")              \
 BUCKET(SAVED_FIRST, "copy: guest's write saved old content first")       \
 BUCKET(WRITE_DURING_READ, "race: write to what a job is reading")        \
 BUCKET(ALL_CANCELLED, "world: ended by cancelling every job")            \
 BUCKET(SAVED_TILL_CANCEL,                                                \
        "end: sync none, all that was overwritten is saved")              \
 BUCKET(NOTHING_TO_COPY, "job: nothing to copy")                          \
 BUCKET(MEMBER_DONE_UNDONE, "race: member was done, group failed")        \
 BUCKET(FAILED_IN_PREPARE, "race: failure while pending")                 \
 BUCKET(CANCEL_AND_FAILURE, "race: cancel and failure in one group")      \
 BUCKET(CANCEL_IN_PREPARE, "race: cancel while being prepared")           \
 BUCKET(CANCEL_SEALED, "race: cancel after the group was sealed")         \
 BUCKET(FAILED_UNTOLD, "job: broken by a guest's write")                  \
 BUCKET(THAW_DURING_WRITE, "race: bitmap let go during a write")          \
 BUCKET(GROUP_SUCCESS, "group of several: success")                       \
 BUCKET(GROUP_FAILURE, "group of several: failure")                       \
 BUCKET(GROUP_CANCELLED, "group of several: cancelled")                   \
 BUCKET(END_TOP_SUCCESS, "end: sync top, success")                        \
 BUCKET(END_NONE, "end: sync none")                                       \
 BUCKET(STOPPED_ON_ERROR, "job: stopped by an error")                     \
 BUCKET(RETRIED_ON_ERROR, "job: retried after an error")                  \
 BUCKET(CHANGE_KEPT_ADD, "group success: bitmap add")                     \
 BUCKET(CHANGE_KEPT_REMOVE, "group success: bitmap remove")               \
 BUCKET(CHANGE_KEPT_CLEAR, "group success: bitmap clear")                 \
 BUCKET(CHANGE_KEPT_ENABLE, "group success: bitmap enable")               \
 BUCKET(CHANGE_KEPT_DISABLE, "group success: bitmap disable")             \
 BUCKET(CHANGE_KEPT_MERGE, "group success: bitmap merge")                 \
 BUCKET(CHANGE_UNDONE_ADD, "group failure: bitmap add")                   \
 BUCKET(CHANGE_UNDONE_REMOVE, "group failure: bitmap remove")             \
 BUCKET(CHANGE_UNDONE_CLEAR, "group failure: bitmap clear")               \
 BUCKET(CHANGE_UNDONE_ENABLE, "group failure: bitmap enable")             \
 BUCKET(CHANGE_UNDONE_DISABLE, "group failure: bitmap disable")           \
 BUCKET(CHANGE_UNDONE_MERGE, "group failure: bitmap merge")               \
 BUCKET(END_PLAIN_SUCCESS, "end: no bitmap, success")                     \
 BUCKET(END_PLAIN_FAILURE, "end: no bitmap, failure")                     \
 BUCKET(END_ON_SUCCESS_SUCCESS, "end: on-success, success")               \
 BUCKET(END_ON_SUCCESS_FAILURE, "end: on-success, failure")               \
 BUCKET(END_NEVER_SUCCESS, "end: never, success")                         \
 BUCKET(END_NEVER_FAILURE, "end: never, failure")                         \
 BUCKET(END_ALWAYS_SUCCESS, "end: always, success")                       \
 BUCKET(END_ALWAYS_FAILURE, "end: always, failure")

#define BUCKET_ENUM(name, text) name,

enum bucket {
    HISTOGRAM_BUCKETS(BUCKET_ENUM) BUCKETS
};

#undef BUCKET_ENUM

/* Verbs that are counted by the state of their job. */
enum sim_verb {
    VERB_PAUSE,
    VERB_RESUME,
    VERB_CANCEL,
    VERB_CANCEL_SOFT, /* block-job-cancel without force */
    VERB_FINALIZE,
    VERB_DISMISS,
    VERB_SET_SPEED,
    VERB_COMPLETE,
    VERB_EXTENTS,
    SIM_VERBS,
};

/* What each is called on the wire. */
extern const char *const sim_verb_names[SIM_VERBS];

struct histogram {
    uint64_t buckets[BUCKETS];
    uint64_t verbs[SIM_VERBS][JOB_STATE_COUNT];
    uint64_t operations;
    uint64_t worlds;
    uint64_t turns;
    uint64_t longest_command_ns; /* virtual time */
    const char *longest_command;
    uint64_t longest_command_seed;
};

/* Prints all of it; returns how many buckets are empty. */
unsigned int histogram_print(const struct histogram *histogram);

#endif
