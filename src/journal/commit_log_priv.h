/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the commit log's format, for the files of this folder. */
#ifndef JOURNAL_COMMIT_LOG_PRIV_H
#define JOURNAL_COMMIT_LOG_PRIV_H

#include "journal/commit_log_format.h"

/* The records of one frame. */
int commit_payload_parse(const uint8_t *bytes,
                         uint64_t size,
                         const char *name,
                         commit_record_fn call,
                         void *opaque,
                         GError **err);

#endif
