/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How trackers, which live on many threads, ask the coordinator, which lives on
 * one, and tell it what they have settled.
 */
#ifndef JOURNAL_OUTCOME_SOURCE_H
#define JOURNAL_OUTCOME_SOURCE_H

#include "journal/group_commit.h"
#include "journal/tracker.h"
#include "loop/loop.h"

struct outcome_source {
    struct tracker_outcomes outcomes; /* what trackers are given */
    struct coordinator *coordinator;  /* borrowed */
    struct loop *main;                /* the coordinator's */
};

/* Lives longer than every tracker that uses it. */
void outcome_source_init(struct outcome_source *source,
                         struct coordinator *coordinator,
                         struct loop *main);

#endif
