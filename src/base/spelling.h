/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "Did you mean": the nearest of several known words to one mistyped.
 *
 *     struct spelling spelling = { .word = typed };
 *     for each known name: spelling_offer(&spelling, name);
 *     if (spelling.nearest != NULL) ...
 *
 * Any thread.
 */
#ifndef BASE_SPELLING_H
#define BASE_SPELLING_H

#include <stddef.h>

struct spelling {
    const char *word;    /* borrowed */
    const char *nearest; /* borrowed from what was offered; NULL: none near */
    size_t distance;     /* of `nearest`, in edits */
};

/* Keeps `candidate` if it is near the word, and nearer than those before. */
void spelling_offer(struct spelling *spelling, const char *candidate);

#endif
