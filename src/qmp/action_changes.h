/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The end of a transaction's changes that are no part of a group of jobs.
 *
 * Main thread, coroutine of a command.
 */
#ifndef QMP_ACTION_CHANGES_H
#define QMP_ACTION_CHANGES_H

#include "qmp/actions.h"

/* After the instant: decides the context's group, and its companions with it; takes
 * both. 0: the changes stand, durably. On failure they are undone; or, in doubt
 * (-EINPROGRESS), they stay undecided, their bitmaps busy, and are undone in the
 * background as soon as that can be made durable. */
int co_action_changes_decide(struct action_context *context, GError **err);

#endif
