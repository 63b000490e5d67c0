/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What of our needs beyond QEMU's QMP the daemon serves.
 * One thread; blocking.
 */
#ifndef CLI_DAEMON_FEATURES_H
#define CLI_DAEMON_FEATURES_H

#include <stdbool.h>

#include "cli/qmp_client.h"

struct daemon_features {
    bool tells_extents; /* what an increment copied: else all goes full */
    bool keeps_records; /* bitmaps and outcomes that outlive it */
    char *refusal;      /* why it cannot, though it has the commands */
};

void daemon_features_clear(struct daemon_features *features);

/* `*ret_features` is to be cleared, also after a failure. */
int daemon_features_query(struct qmp_client *client,
                          struct daemon_features *ret_features,
                          GError **err);

#endif
