/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The 128-bit names of the journal: transactions, disks, runs of a daemon.
 *
 * Random, never reused; all zeroes means none. In text: 32 lower-case
 * hexadecimal digits, first byte first. Pure, except journal_id_new().
 */
#ifndef JOURNAL_JOURNAL_ID_H
#define JOURNAL_JOURNAL_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define JOURNAL_ID_BYTES      16
#define JOURNAL_ID_TEXT_BYTES (2 * JOURNAL_ID_BYTES + 1) /* with its NUL */

struct journal_id {
    uint8_t bytes[JOURNAL_ID_BYTES];
};

static inline bool journal_id_equal(const struct journal_id *a,
                                    const struct journal_id *b)
{
    return memcmp(a->bytes, b->bytes, JOURNAL_ID_BYTES) == 0;
}

static inline bool journal_id_is_none(const struct journal_id *id)
{
    static const struct journal_id none;

    return journal_id_equal(id, &none);
}

/* From the current loop's random numbers. */
struct journal_id journal_id_new(void);

void journal_id_format(const struct journal_id *id,
                       char ret_text[JOURNAL_ID_TEXT_BYTES]);
/* The 32 digits at `text`, whatever follows them; false: they are not. */
bool journal_id_parse(const char *text, struct journal_id *ret_id);

#endif
