/* SPDX-License-Identifier: BSD-3-Clause */
/* Named maxima of everything that comes from outside or can pile up. */
#ifndef BASE_LIMITS_H
#define BASE_LIMITS_H

#include "base/bytes.h"

/* QMP: one incoming JSON value (docs/reference/qmp.md, "Framing"). */
#define LIMIT_JSON_TEXT_BYTES  (64 * MIB)
#define LIMIT_JSON_TOKENS      (UINT64_C(1) << 21)
#define LIMIT_JSON_NESTING     1024
#define LIMIT_QMP_SESSIONS     64
#define LIMIT_QMP_OUTPUT_BYTES (64 * MIB) /* unsent; beyond: client dropped */

/* Names. */
#define LIMIT_NODE_NAME_BYTES   31
#define LIMIT_BITMAP_NAME_BYTES 1023
#define LIMIT_IMAGE_NAME_BYTES  4095
#define LIMIT_ID_BYTES          255

/* NBD (protocol document, "Size constraints"). */
#define LIMIT_NBD_NAME_BYTES    4096
#define LIMIT_NBD_PAYLOAD_BYTES (32 * MIB)
#define LIMIT_NBD_REQUESTS      64   /* in flight per connection */
#define LIMIT_NBD_OPTIONS       1024 /* per negotiation */

/* Disks. */
#define LIMIT_DISK_BYTES             (UINT64_C(1) << 62)
#define LIMIT_BITMAP_GRANULARITY_MIN UINT64_C(512)
#define LIMIT_BITMAP_GRANULARITY_MAX (UINT64_C(1) << 31)
#define LIMIT_BITMAP_BYTES           GIB /* memory of one bitmap */
#define LIMIT_BITMAPS_PER_NODE       65535

#define LIMIT_IOTHREADS           64
#define LIMIT_TRANSACTION_ACTIONS 65536
/* Of this run, not acknowledged by all who took part. */
#define LIMIT_TRANSACTIONS_KEPT 4096

#endif
