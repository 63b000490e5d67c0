/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/outcome_source.h"

#include "base/list.h"
#include "loop/coroutine.h"

static struct outcome_source *source_of(struct tracker_outcomes *outcomes)
{
    return LIST_ENTRY(outcomes, struct outcome_source, outcomes);
}

static enum tracker_outcome outcome_of(enum outcome outcome)
{
    switch (outcome) {
    case OUTCOME_COMMITTED: return TRACKER_COMMITTED;
    case OUTCOME_ABORTED: return TRACKER_ABORTED;
    case OUTCOME_UNKNOWN: return TRACKER_UNKNOWN;
    case OUTCOME_PENDING: break;
    }
    return TRACKER_PENDING;
}

/* From a directory that cannot be used now nothing follows: pending. */
static enum tracker_outcome co_ask(struct tracker_outcomes *outcomes,
                                   const struct journal_id *txid,
                                   const struct log_segment *segment)
{
    struct outcome_source *source = source_of(outcomes);
    struct loop *home = loop_current();
    enum outcome outcome = OUTCOME_PENDING;

    co_move(source->main);
    (void)co_coordinator_look_up(source->coordinator, segment, txid, &outcome,
                                 NULL, NULL);
    co_move(home);
    return outcome_of(outcome);
}

static void co_acknowledge(struct tracker_outcomes *outcomes,
                           const struct journal_id *txid,
                           const struct journal_id *disk)
{
    struct outcome_source *source = source_of(outcomes);
    struct loop *home = loop_current();

    co_move(source->main);
    co_coordinator_settled(source->coordinator, disk, txid);
    co_move(home);
}

void outcome_source_init(struct outcome_source *source,
                         struct coordinator *coordinator,
                         struct loop *main)
{
    source->outcomes.co_ask = co_ask;
    source->outcomes.co_acknowledge = co_acknowledge;
    source->coordinator = coordinator;
    source->main = main;
}
