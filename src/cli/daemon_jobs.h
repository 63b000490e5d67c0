/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's jobs that are ours: those whose id starts with a prefix.
 * One thread; blocking.
 */
#ifndef CLI_DAEMON_JOBS_H
#define CLI_DAEMON_JOBS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cli/qmp_client.h"

struct daemon_job {
    char *id;
    char *status; /* as QMP says it: "running", "pending", "concluded" ... */
    char *error;  /* NULL: none */
    uint64_t current;
    uint64_t total;
};

/* struct daemon_job *, owned by the caller. */
int daemon_jobs_query(struct qmp_client *client,
                      const char *prefix,
                      GPtrArray **ret_jobs,
                      GError **err);

/* Borrowed; NULL when there is none. */
struct daemon_job *daemon_jobs_find(const GPtrArray *jobs, const char *id);

/* Are there any, and are all in this status? */
bool daemon_jobs_all(const GPtrArray *jobs, const char *status);

/* Waits a moment for news: until something arrives or a quarter second has
 * passed. */
int daemon_jobs_pause(struct qmp_client *client, GError **err);

/* Cancels those of ours that have not ended and waits until all have. Signals
 * should be ignored by then. `*ret_jobs` is what they ended as. */
int daemon_jobs_end_all(struct qmp_client *client,
                        const char *prefix,
                        GPtrArray **ret_jobs,
                        GError **err);

/* Removes the records of those that have ended. */
int daemon_jobs_dismiss_all(struct qmp_client *client,
                            const char *prefix,
                            GError **err);

#endif
