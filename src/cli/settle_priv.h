/* SPDX-License-Identifier: BSD-3-Clause */
/* What settle.c and settle_clean.c share. */
#ifndef CLI_SETTLE_PRIV_H
#define CLI_SETTLE_PRIV_H

#include "cli/daemon_nodes.h"
#include "cli/daemon_transactions.h"
#include "cli/settle.h"

struct settlement {
    struct repository *repository; /* borrowed, as are these */
    struct qmp_client *client;
    const struct daemon_features *features;
    GPtrArray *jobs;         /* struct daemon_job *, all ended */
    GPtrArray *transactions; /* struct daemon_transaction *, all decided */
    GPtrArray *nodes;        /* struct daemon_node * */
    GHashTable *kept;        /* labels of points that stay prepared */
    settle_say_fn say;
    void *opaque;
};

void settle_tell(const struct settlement *settlement,
                 enum settle_news news,
                 const char *format,
                 ...) G_GNUC_PRINTF(3, 4);

/* Once all points are settled: removes what the daemon still has of ours. */
int settle_clean(struct settlement *settlement, GError **err);

#endif
