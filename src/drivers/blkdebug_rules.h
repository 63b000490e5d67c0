/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of blkdebug: a state machine that says which requests fail.
 *
 * Events happen; a rule belongs to an event and, if it says so, to one state.
 * `set-state` rules change the state. `inject-error` rules become active when
 * their event happens in their state, and take the place of those that were
 * active before; they stay so, and hit every request that matches in kind and
 * sector, until others take their place or (`once`) they have hit. The event
 * "none" happens once, when the node is opened; state 0 means any, the first
 * state is 1.
 *
 * Pure data; the node's home thread.
 */
#ifndef DRIVERS_BLKDEBUG_RULES_H
#define DRIVERS_BLKDEBUG_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/schema.h"

enum blkdebug_event {
    BLKDEBUG_NONE,
    BLKDEBUG_READ_AIO,
    BLKDEBUG_WRITE_AIO,
    BLKDEBUG_PWRITEV,
    BLKDEBUG_PWRITEV_ZERO,
    BLKDEBUG_PWRITEV_DONE,
    BLKDEBUG_FLUSH_TO_OS,
    BLKDEBUG_FLUSH_TO_DISK,
};

enum blkdebug_iotype {
    BLKDEBUG_READ,
    BLKDEBUG_WRITE,
    BLKDEBUG_WRITE_ZEROES,
    BLKDEBUG_DISCARD,
    BLKDEBUG_FLUSH,
    BLKDEBUG_BLOCK_STATUS,
};

struct blkdebug_rules;

/* Types of the two options, lists of structs. */
extern const struct schema_type blkdebug_inject_error_type;
extern const struct schema_type blkdebug_set_state_type;

/* From the node's checked options. */
int blkdebug_rules_new(const struct json_value *options,
                       struct blkdebug_rules **ret_rules,
                       GError **err);
void blkdebug_rules_free(struct blkdebug_rules *rules);

void blkdebug_rules_happen(struct blkdebug_rules *rules,
                           enum blkdebug_event event);
/* 0, or the negative errno with which a request shall fail. `*ret_immediately`:
 * without letting others run first. */
int blkdebug_rules_apply(struct blkdebug_rules *rules,
                         enum blkdebug_iotype iotype,
                         uint64_t offset,
                         uint64_t bytes,
                         bool *ret_immediately);

#endif
