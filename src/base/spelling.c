/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/spelling.h"

#include <string.h>

#include <glib.h>

/* Longer words are not compared: nobody mistypes those. */
#define WORD_MAX 48

/* Edits (insert, delete, replace) that turn `a` into `b`: the Levenshtein
 * distance, one row of its table at a time. */
static size_t edit_distance(const char *a, const char *b, size_t b_length)
{
    size_t row[WORD_MAX + 1];

    for (size_t i = 0; i <= b_length; i++) {
        row[i] = i;
    }
    for (size_t line = 1; *a != '\0'; a++, line++) {
        size_t diagonal = row[0];

        row[0] = line;
        for (size_t i = 1; i <= b_length; i++) {
            size_t replaced = diagonal + (*a != b[i - 1]);

            diagonal = row[i];
            row[i] = MIN(replaced, MIN(row[i], row[i - 1]) + 1);
        }
    }
    return row[b_length];
}

void spelling_offer(struct spelling *spelling, const char *candidate)
{
    size_t word_length = strlen(spelling->word);
    size_t length = strlen(candidate);

    if (word_length == 0 || word_length > WORD_MAX || length > WORD_MAX) {
        return;
    }

    size_t distance = edit_distance(spelling->word, candidate, length);

    /* One edit for each three letters: "sise" is "size", "a" is not "id". */
    if (distance > MIN(word_length, length) / 3 ||
        (spelling->nearest != NULL && distance >= spelling->distance)) {
        return;
    }
    spelling->nearest = candidate;
    spelling->distance = distance;
}
