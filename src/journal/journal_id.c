/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/journal_id.h"

#include "loop/loop.h"

static const char digits[] = "0123456789abcdef";

struct journal_id journal_id_new(void)
{
    struct journal_id id;

    do {
        loop_random(id.bytes, sizeof(id.bytes));
    } while (journal_id_is_none(&id));
    return id;
}

void journal_id_format(const struct journal_id *id,
                       char ret_text[JOURNAL_ID_TEXT_BYTES])
{
    for (int i = 0; i < JOURNAL_ID_BYTES; i++) {
        ret_text[2 * i] = digits[id->bytes[i] >> 4];
        ret_text[2 * i + 1] = digits[id->bytes[i] & 15];
    }
    ret_text[JOURNAL_ID_TEXT_BYTES - 1] = '\0';
}

bool journal_id_parse(const char *text, struct journal_id *ret_id)
{
    struct journal_id id = { { 0 } };

    for (int i = 0; i < 2 * JOURNAL_ID_BYTES; i++) {
        const char *digit =
            text[i] == '\0' ? NULL : memchr(digits, text[i], 16);

        if (digit == NULL) {
            return false;
        }
        id.bytes[i / 2] = (uint8_t)((unsigned int)id.bytes[i / 2] << 4 |
                                    (unsigned int)(digit - digits));
    }
    *ret_id = id;
    return true;
}
