/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NBD protocol's numbers.
 *
 * Source: "The NBD protocol" (doc/proto.md of the NetworkBlockDevice project);
 * each group names its section. All integers on the wire are big-endian.
 */
#ifndef NBD_PROTOCOL_H
#define NBD_PROTOCOL_H

#include <stdint.h>

/* "Newstyle negotiation" and "Fixed newstyle negotiation". */
#define NBD_INIT_MAGIC         UINT64_C(0x4e42444d41474943) /* NBDMAGIC */
#define NBD_OPTION_MAGIC       UINT64_C(0x49484156454f5054) /* IHAVEOPT */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)

#define NBD_GREETING_BYTES      18  /* magic, magic, handshake flags */
#define NBD_OPTION_BYTES        16  /* magic, option, data length */
#define NBD_OPTION_REPLY_BYTES  20  /* magic, option, type, data length */
#define NBD_EXPORT_REPLY_ZEROES 124 /* end of the reply to EXPORT_NAME */

/* "Handshake flags" and "Client flags": the same two bits. */
enum nbd_handshake_flags {
    NBD_HANDSHAKE_FIXED_NEWSTYLE = 1 << 0,
    NBD_HANDSHAKE_NO_ZEROES = 1 << 1,
};

/* "Transmission flags". */
enum nbd_transmission_flags {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_CACHE = 1 << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

/* "Option types". */
enum nbd_option {
    NBD_OPTION_EXPORT_NAME = 1,
    NBD_OPTION_ABORT = 2,
    NBD_OPTION_LIST = 3,
    NBD_OPTION_STARTTLS = 5,
    NBD_OPTION_INFO = 6,
    NBD_OPTION_GO = 7,
    NBD_OPTION_STRUCTURED_REPLY = 8,
    NBD_OPTION_LIST_META_CONTEXT = 9,
    NBD_OPTION_SET_META_CONTEXT = 10,
};

/* "Option reply types". */
#define NBD_REPLY_ACK               UINT32_C(1)
#define NBD_REPLY_SERVER            UINT32_C(2)
#define NBD_REPLY_INFO              UINT32_C(3)
#define NBD_REPLY_META_CONTEXT      UINT32_C(4)
#define NBD_REPLY_ERROR_UNSUPPORTED UINT32_C(0x80000001)
#define NBD_REPLY_ERROR_POLICY      UINT32_C(0x80000002)
#define NBD_REPLY_ERROR_INVALID     UINT32_C(0x80000003)
#define NBD_REPLY_ERROR_UNKNOWN     UINT32_C(0x80000006)
#define NBD_REPLY_ERROR_SHUTDOWN    UINT32_C(0x80000007)
#define NBD_REPLY_ERROR_TOO_BIG     UINT32_C(0x80000009)

/* Information types of "NBD_OPT_INFO". */
enum nbd_info {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

/* "Metadata contexts". */
#define NBD_CONTEXT_ALLOCATION    "base:allocation"
#define NBD_CONTEXT_ALLOCATION_ID 1 /* ours to choose */

enum nbd_allocation_state {
    NBD_STATE_HOLE = 1 << 0,
    NBD_STATE_ZERO = 1 << 1,
};

/* "Request message" and "Request types". */
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_REQUEST_BYTES 28 /* magic, flags, type, cookie, offset, length */

enum nbd_command {
    NBD_COMMAND_READ = 0,
    NBD_COMMAND_WRITE = 1,
    NBD_COMMAND_DISCONNECT = 2,
    NBD_COMMAND_FLUSH = 3,
    NBD_COMMAND_TRIM = 4,
    NBD_COMMAND_CACHE = 5,
    NBD_COMMAND_WRITE_ZEROES = 6,
    NBD_COMMAND_BLOCK_STATUS = 7,
};

/* "Command flags". */
enum nbd_command_flags {
    NBD_COMMAND_FUA = 1 << 0,
    NBD_COMMAND_NO_HOLE = 1 << 1,
    NBD_COMMAND_DF = 1 << 2,
    NBD_COMMAND_REQ_ONE = 1 << 3,
    NBD_COMMAND_FAST_ZERO = 1 << 4,
};

/* "Simple reply message" and "Structured reply chunk message". */
#define NBD_SIMPLE_MAGIC     UINT32_C(0x67446698)
#define NBD_SIMPLE_BYTES     16 /* magic, error, cookie */
#define NBD_STRUCTURED_MAGIC UINT32_C(0x668e33ef)
#define NBD_STRUCTURED_BYTES 20 /* magic, flags, type, cookie, length */
#define NBD_CHUNK_DONE       1  /* flag of a structured reply */

/* "Structured reply types". */
#define NBD_CHUNK_NONE         0
#define NBD_CHUNK_OFFSET_DATA  1
#define NBD_CHUNK_OFFSET_HOLE  2
#define NBD_CHUNK_BLOCK_STATUS 5
#define NBD_CHUNK_ERROR        ((1 << 15) + 1)

/* "Error values". */
enum nbd_error {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* "Block size constraints": what every export of ours advertises. The block
 * layer aligns, so any byte may be addressed. */
#define NBD_BLOCK_MINIMUM   1
#define NBD_BLOCK_PREFERRED 4096

#endif
