/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Puts right what a run left behind, also the one that has just failed: jobs,
 * target nodes and bitmaps in the daemon, a partial point in the repository.
 * docs/internals/repository-protocol.md says why each step is right.
 *
 * The repository's lock is held. One thread; blocking.
 */
#ifndef CLI_SETTLE_H
#define CLI_SETTLE_H

#include <glib.h>

#include "cli/daemon_features.h"
#include "cli/qmp_client.h"
#include "repo/repository.h"

/* How long cancelled jobs, and outcomes in doubt, are waited for. */
#define SETTLE_US INT64_C(60000000)

enum settle_news {
    SETTLE_DISCARDED, /* a point that had not come to its end */
    SETTLE_PUBLISHED, /* one that had, but for its name */
    SETTLE_WARNING,
};

/* Told of each thing that was put right, with a sentence for people. */
typedef void (*settle_say_fn)(void *opaque,
                              enum settle_news news,
                              const char *sentence);

/* After this the daemon has no job and no target node of this repository, only
 * those of its bitmaps that the newest points name, and no record that is not
 * acknowledged. A point whose group turns out to be committed is published. The
 * repository has no partial points but those whose outcome the daemon, which
 * should have a record of it, does not know: nothing builds on these.
 *
 * -ETIMEDOUT: an outcome is in doubt, or a job does not end; nothing of that
 * point was changed. */
int settle(struct repository *repository,
           struct qmp_client *client,
           const struct daemon_features *features,
           settle_say_fn say,
           void *opaque,
           GError **err);

/* Gives the bitmaps of the point's increments their new names, in one
 * transaction: from then on these say that the bitmap is relative to this
 * point. Nodes whose bitmap has its new name already are left out. */
int settle_rename_bitmaps(struct qmp_client *client,
                          const struct manifest *point,
                          GError **err);

#endif
