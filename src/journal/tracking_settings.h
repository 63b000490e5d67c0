/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a node's persistent bitmaps are kept, as the user wants it: the daemon's
 * --tracking, over which each node's x-cohort-tracking goes
 * (docs/reference/qmp.md, XCohortTracking).
 *
 * Pure; any thread.
 */
#ifndef JOURNAL_TRACKING_SETTINGS_H
#define JOURNAL_TRACKING_SETTINGS_H

#include "base/json.h"
#include "journal/tracker.h"

#define TRACKING_OVER_MARKING_MIN  (16 * MIB)
#define TRACKING_CHECKPOINT_MS_MIN 10

struct tracking_settings {
    enum tracker_durability durability;
    bool stop_on_error;
    uint64_t over_marking_bytes; /* 0: by the size of the disk */
    uint64_t checkpoint_ns;      /* 0: the tracker's default */
    bool in_state_directory; /* where a file is made that is not there yet */
};

/* All zeroes is what holds when nobody says anything. */

/* `options`: a checked XCohortTracking, NULL: nothing is said. What it leaves out
 * stays as in `*settings`. Refused, with a sentence and nothing changed: values
 * out of range. */
int tracking_settings_read(struct tracking_settings *settings,
                           const struct json_value *options,
                           GError **err);

/* As above for a node, over the daemon's defaults; refuses also what those do not
 * allow. */
int tracking_settings_read_node(const struct tracking_settings *defaults,
                                const struct json_value *options,
                                struct tracking_settings *ret_settings,
                                GError **err);

#endif
