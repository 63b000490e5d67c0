/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From one request to one reply (QMP specification, "Issuing Commands").
 *
 * Knows nothing of sockets. Main thread.
 */
#ifndef QMP_DISPATCH_H
#define QMP_DISPATCH_H

#include "base/json.h"
#include "qmp/command.h"

/* Where a session stands: until qmp_capabilities only that command runs and no
 * event is delivered. */
enum qmp_mode {
    QMP_MODE_NEGOTIATION,
    QMP_MODE_COMMAND,
};

/* Checks `request` (any JSON value, borrowed), runs its command and returns the
 * reply, a new dict that carries the request's id. Never fails: what is wrong
 * is in the reply. `*mode` moves on when qmp_capabilities succeeds. */
struct json_value *co_qmp_dispatch(const struct qmp_command *const *tables,
                                   struct engine *engine,
                                   enum qmp_mode *mode,
                                   const struct json_value *request);

/* {"error": {"class", "desc"}}: for what is no request at all. */
struct json_value *qmp_error_reply(const GError *err);

#endif
