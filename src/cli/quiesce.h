/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Freezes a guest around the instant of a backup, and thaws it whatever
 * happens.
 *
 *     quiesce_begin()  ──> freeze command
 *     ... the transaction ...
 *     quiesce_end()    ──> thaw command
 *
 * The thaw command is run by a small process of its own, the guard, forked
 * before the freeze: when it is told to; when this process dies, by whatever
 * signal; or when the guest has been frozen for too long.
 *
 * One thread.
 */
#ifndef CLI_QUIESCE_H
#define CLI_QUIESCE_H

#include <glib.h>

#include "cli/interrupt.h"

struct quiesce;

/* Either command may be NULL. Each may take `timeout_ms`, and so may what is
 * between them. When the freeze fails the guest has been thawed again. */
int quiesce_begin(const char *freeze_command,
                  const char *thaw_command,
                  unsigned timeout_ms,
                  struct interrupt *interrupt,
                  struct quiesce **ret_quiesce,
                  GError **err);

/* Thaws, waits for it, frees. -EIO: the thaw command failed, the guest may be
 * frozen still. -ETIME: it was thawed before this was called, for taking too
 * long, so what happened between may not be quiescent. */
int quiesce_end(struct quiesce *quiesce, GError **err);

#endif
