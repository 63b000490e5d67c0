/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tokens of QMP's JSON dialect, from bytes as they arrive; a part of
 * base/json_reader.h, which tells the dialect and how errors are recovered from.
 *
 * A token's text is looked at once: strings are not decoded here, only their
 * end is found.
 */
#ifndef BASE_JSON_LEXER_H
#define BASE_JSON_LEXER_H

#include <stdbool.h>
#include <stddef.h>

#include <glib.h>

enum json_token {
    JSON_TOKEN_NONE, /* all bytes are taken */
    JSON_TOKEN_DICT_OPEN,
    JSON_TOKEN_DICT_CLOSE,
    JSON_TOKEN_LIST_OPEN,
    JSON_TOKEN_LIST_CLOSE,
    JSON_TOKEN_COMMA,
    JSON_TOKEN_COLON,
    JSON_TOKEN_STRING, /* text includes the quotes */
    JSON_TOKEN_NUMBER,
    JSON_TOKEN_KEYWORD,  /* any lower-case letters */
    JSON_TOKEN_BROKEN,   /* text is what was read of it */
    JSON_TOKEN_TOO_LONG, /* above text_max; the text is gone */
};

enum json_lexer_state {
    JSON_LEXER_BETWEEN, /* tokens */
    JSON_LEXER_SKIPPING,
    JSON_LEXER_STRING,
    JSON_LEXER_ESCAPE,
    JSON_LEXER_MINUS,
    JSON_LEXER_ZERO,
    JSON_LEXER_INTEGER,
    JSON_LEXER_POINT,
    JSON_LEXER_FRACTION,
    JSON_LEXER_EXPONENT_LETTER,
    JSON_LEXER_EXPONENT_SIGN,
    JSON_LEXER_EXPONENT,
    JSON_LEXER_KEYWORD,
};

struct json_lexer {
    enum json_lexer_state state;
    char quote;      /* of the string being read */
    GString *text;   /* of the token being read, or just completed */
    size_t text_max; /* set by the caller before each call */
};

void json_lexer_init(struct json_lexer *lexer);
void json_lexer_release(struct json_lexer *lexer);

/* Forgets a half-read token. */
void json_lexer_reset(struct json_lexer *lexer);

/* Is the lexer within a token? */
bool json_lexer_is_busy(const struct json_lexer *lexer);

/* Takes bytes up to the end of the next token, which may be fewer than are
 * there. The token's text is valid until the next call. */
enum json_token json_lexer_next(struct json_lexer *lexer,
                                const char **bytes,
                                size_t *length);

#endif
