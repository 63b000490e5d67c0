/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads JSON values from a byte stream in QMP's dialect, as it arrives.
 *
 *     for each chunk received:
 *         while ((result = json_reader_next(reader, &bytes, &length,
 *                                           &value, &err)) !=
 *                JSON_READER_MORE)
 *             answer the value, or the error
 *
 * Sources: RFC 8259 (JSON); QEMU's "QMP Specification", sections "General
 * Definitions", "Protocol Specification" and "Forcing the JSON parser into
 * known-good state"; what both leave open follows qemu-storage-daemon 7.2.
 *
 * The dialect. UTF-8. Strings may stand in single quotes too, and \' is an
 * escape in both kinds. A repeated key is an error. Integers are exact from
 * -2^63 to 2^64-1; beyond, and with a fraction or exponent, they are doubles
 * (out of a double's range: an error). Values need no separator and may be
 * split anywhere: an object or list ends when its braces and brackets balance,
 * a string at its quote, a number or keyword at the first byte that cannot
 * belong to it.
 *
 * Errors and how reading goes on. An error never ends the stream:
 *
 * - Wrong grammar, a bad escape, invalid UTF-8, an unknown keyword, a repeated
 *   key: one error, given when the value's braces and brackets balance (each
 *   kind is counted by itself) or at the closing one too many. Reading goes on
 *   behind it. A lone ',' or ':' or closer is such a value.
 * - A byte that starts no token, or breaks one (a control character in a
 *   string, a letter after a minus sign): one error at once. The half-read
 *   value and this byte are dropped. What follows is skipped silently up to
 *   the end of the line, which goes too, or the next of { } [ ] , : which is
 *   read again as the start of something.
 * - Any other control character except TAB, and the bytes FE and FF, are
 *   such an error each, also while skipping: this is how a client forces the
 *   reader to a known state, whatever it had sent before. (Between tokens and
 *   at the end of a number or keyword; inside a string they break the string,
 *   which comes to the same.)
 * - A value beyond a limit of base/limits.h (token text, tokens, nesting): one
 *   error at once, what was collected is dropped, reading goes on with the next
 *   byte; if that is in the middle of a token, as after a broken one.
 *
 * Time is linear in the input; memory is bounded by the limits, and what was
 * collected of a value that turned out wrong is freed early. A reader belongs
 * to one thread at a time.
 */
#ifndef BASE_JSON_READER_H
#define BASE_JSON_READER_H

#include <stddef.h>

#include "base/json.h"

/* The typedef exists for g_autoptr(json_reader) only. */
typedef struct json_reader json_reader;
struct json_reader;

enum json_reader_result {
    JSON_READER_MORE,  /* all bytes are taken, no value is complete */
    JSON_READER_VALUE, /* `*ret_value` is set; owned by the caller */
    JSON_READER_ERROR, /* `err` is set: a sentence, class GenericError */
};

struct json_reader *json_reader_new(void);
void json_reader_free(struct json_reader *reader); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(json_reader, json_reader_free)

/* Takes bytes from `*bytes` until a value or an error is there or all are
 * taken; advances `*bytes` and `*length` by what it took. Nothing is kept of
 * the buffer. Call again with the rest. */
enum json_reader_result json_reader_next(struct json_reader *reader,
                                         const char **bytes,
                                         size_t *length,
                                         struct json_value **ret_value,
                                         GError **err);

/* Forgets a half-read value, as for a new client. */
void json_reader_reset(struct json_reader *reader);

/* Reads `text`, which must be one value in the same dialect with nothing but
 * white space around it (an option such as --blockdev '{...}'). Returns a new
 * value, NULL with err set. */
struct json_value *json_read_text(const char *text, GError **err);

#endif
