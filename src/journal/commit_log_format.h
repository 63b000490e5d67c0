/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bytes of the commit log: docs/reference/commit-log.md, section by section
 * ("Header", "Frames", "Records").
 *
 * Writing: commit_header_encode(), then commit_frame_encode() for each payload,
 * which is built by commit_payload_add_*(). Reading: commit_file_parse() takes a
 * whole file and calls back for each record.
 *
 * Pure; any thread. Whatever the bytes are, reading ends and stays within them.
 */
#ifndef JOURNAL_COMMIT_LOG_FORMAT_H
#define JOURNAL_COMMIT_LOG_FORMAT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "journal/bitmap_base.h"
#include "journal/journal_id.h"
#include "journal/storage.h"

#define COMMIT_HEADER_BYTES      128
#define COMMIT_FRAME_ALIGN       8
#define COMMIT_PAYLOAD_BYTES_MAX (UINT64_C(8) << 20)
#define COMMIT_MEMBERS_MAX       4096
#define COMMIT_FILE_BYTES_MAX    (UINT64_C(64) << 20)

enum commit_file_kind {
    COMMIT_FILE_LOG,
    COMMIT_FILE_SEALED,
    COMMIT_FILE_RETIRED,
};

struct commit_header {
    enum commit_file_kind kind;
    struct journal_id run; /* none in the list of retired runs */
    uint32_t part;
    uint32_t first_part; /* the lowest part that still counts */
    uint64_t made_us;    /* wall clock */
    bool is_process;     /* durability=process: good for one boot only */
    uint8_t boot_id[STORAGE_BOOT_ID_BYTES];
};

enum commit_record_type {
    COMMIT_RECORD_BEGIN = 1,
    COMMIT_RECORD_COMMIT,
    COMMIT_RECORD_ABORT,
    COMMIT_RECORD_OUTCOME,
    COMMIT_RECORD_ACKNOWLEDGED,
    COMMIT_RECORD_DAMAGED,
    COMMIT_RECORD_RETIRED,
};

/* As it stands in an OUTCOME. */
enum commit_verdict {
    COMMIT_VERDICT_COMMITTED = 1,
    COMMIT_VERDICT_ABORTED,
    COMMIT_VERDICT_UNKNOWN,
};

/* One bitmap of one disk. */
struct commit_member {
    struct journal_id disk;
    struct bitmap_base old_base;
    bool gets_base;  /* committing gives it the base (txid, disk) */
    bool keeps_base; /* committing leaves its base; neither: it has none then */
    char *node;      /* owned, as the two below; "" : none */
    char *job;
    char *bitmap;
    bool acknowledged; /* of the reader's making; not in the record */
};

/* What BEGIN, COMMIT and OUTCOME say. */
struct commit_transaction {
    struct journal_id txid;
    uint64_t began_us;
    char *client_id;             /* owned; "": none */
    GPtrArray *members;          /* struct commit_member, owned */
    enum commit_verdict verdict; /* of OUTCOME */
    bool client_acknowledged;    /* of the reader's making */
};

struct commit_transaction *commit_transaction_new(const struct journal_id *txid,
                                                  const char *client_id,
                                                  uint64_t began_us);
/* NULL is fine. */
void commit_transaction_free(struct commit_transaction *transaction);
/* A new member, to be filled in; owned by the transaction. Names are copied. */
struct commit_member *commit_transaction_add(
    struct commit_transaction *transaction,
    const struct journal_id *disk,
    const char *node,
    const char *job,
    const char *bitmap);

/* Notes in memory that a disk (NULL: the client) has acknowledged. True: that
 * was new. */
bool commit_transaction_acknowledge(struct commit_transaction *transaction,
                                    const struct journal_id *disk_or_null);
/* Will nobody ask for it any more? An aborted one is told from none only by its
 * client. */
bool commit_transaction_is_over(const struct commit_transaction *transaction);

/* One record, as read. */
struct commit_record {
    enum commit_record_type type;
    struct journal_id txid; /* of RETIRED: the run */
    uint64_t time_us;       /* ABORT, RETIRED */
    /* BEGIN, COMMIT, OUTCOME; owned by the reader, who may take it. */
    struct commit_transaction *transaction;
    bool by_client;         /* ACKNOWLEDGED: the client, not a disk */
    struct journal_id disk; /* ACKNOWLEDGED */
    const char *text;       /* DAMAGED; NUL-terminated */
};

/* `ret_bytes`: COMMIT_HEADER_BYTES of them. */
void commit_header_encode(const struct commit_header *header,
                          uint8_t *ret_bytes);
/* -EINVAL (no such header, or damaged) or -ENOTSUP (a newer version), with a
 * sentence; `name` is the file's. */
int commit_header_decode(const uint8_t *bytes,
                         uint64_t size,
                         const char *name,
                         struct commit_header *ret_header,
                         GError **err);

/* Payloads grow by records. */
void commit_payload_add_transaction(
    GByteArray *payload,
    enum commit_record_type type,
    const struct commit_transaction *transaction);
void commit_payload_add_abort(GByteArray *payload,
                              const struct journal_id *txid,
                              uint64_t time_us);
void commit_payload_add_acknowledged(GByteArray *payload,
                                     const struct journal_id *txid,
                                     const struct journal_id *disk_or_null);
void commit_payload_add_damaged(GByteArray *payload, const char *text);
void commit_payload_add_retired(GByteArray *payload,
                                const struct journal_id *run,
                                uint64_t time_us);

/* A frame around the payload, which is 1 to COMMIT_PAYLOAD_BYTES_MAX long; new,
 * owned by the caller. Its length is a multiple of COMMIT_FRAME_ALIGN. */
GByteArray *commit_frame_encode(const struct commit_header *header,
                                uint32_t number,
                                const GByteArray *payload);
uint64_t commit_frame_bytes(uint64_t payload_bytes);

/* Called for each record, in order; a negative errno ends the reading. */
typedef int (*commit_record_fn)(void *opaque,
                                struct commit_record *record,
                                GError **err);

/* Where a file's good frames end. */
struct commit_file_end {
    uint64_t offset;
    uint32_t frames;
};

/* A whole file. -EINVAL when it is damaged (header, a record, or a bad frame
 * before a good one), with a sentence; records before the damage have been
 * called back for then. An incomplete last frame is no damage. */
int commit_file_parse(const uint8_t *bytes,
                      uint64_t size,
                      const char *name,
                      commit_record_fn call,
                      void *opaque,
                      struct commit_header *ret_header,
                      struct commit_file_end *ret_end,
                      GError **err);

#endif
