/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A state machine fed byte by byte. A byte either goes into the token, or ends
 * it and goes in, or ends it and is left for the next one, or breaks it.
 *
 *     between ── " or ' ──> string <──> escape
 *        │ ├─── - ──> minus ──> zero or integer ──> point ──> fraction
 *        │ │                     └──> exponent letter ──> sign ──> exponent
 *        │ └─── a..z ──> keyword
 *        └── anything else ──> skipping ──> end of line or { } [ ] , :
 */
#include "base/json_lexer.h"

#include <string.h>

/* A token's buffer that grew past this is given back. */
#define TEXT_KEPT_BYTES (64 * 1024)

enum step {
    STEP_TAKE,      /* the byte is part of the token */
    STEP_IGNORE,    /* the byte is part of nothing */
    STEP_TAKE_END,  /* the byte is the token's last */
    STEP_LEAVE_END, /* the token ended before the byte */
    STEP_BREAK,     /* the byte cannot be here */
};

void json_lexer_init(struct json_lexer *lexer)
{
    *lexer = (struct json_lexer){ .text = g_string_new(NULL) };
}

void json_lexer_release(struct json_lexer *lexer)
{
    if (lexer->text != NULL) {
        g_string_free(lexer->text, TRUE);
        lexer->text = NULL;
    }
}

void json_lexer_reset(struct json_lexer *lexer)
{
    lexer->state = JSON_LEXER_BETWEEN;
    g_string_truncate(lexer->text, 0);
}

bool json_lexer_is_busy(const struct json_lexer *lexer)
{
    return lexer->state > JSON_LEXER_SKIPPING;
}

static void clear_text(struct json_lexer *lexer)
{
    if (lexer->text->allocated_len > TEXT_KEPT_BYTES) {
        g_string_free(lexer->text, TRUE);
        lexer->text = g_string_new(NULL);
    } else {
        g_string_truncate(lexer->text, 0);
    }
}

static bool is_structural(char byte)
{
    return byte != '\0' && strchr("{}[],:", byte) != NULL;
}

static bool is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

/* Bytes that no text holds: with them a client resets the reader. */
static bool is_forbidden(char byte)
{
    guchar code = (guchar)byte;

    return code < ' ' || code >= 0xfe;
}

static enum step step_between(struct json_lexer *lexer, char byte)
{
    if (strchr(" \t\r\n", byte) != NULL && byte != '\0') {
        return STEP_IGNORE;
    }
    if (is_structural(byte)) {
        return STEP_TAKE_END;
    }
    if (byte == '"' || byte == '\'') {
        lexer->quote = byte;
        lexer->state = JSON_LEXER_STRING;
    } else if (byte == '-') {
        lexer->state = JSON_LEXER_MINUS;
    } else if (is_digit(byte)) {
        lexer->state = byte == '0' ? JSON_LEXER_ZERO : JSON_LEXER_INTEGER;
    } else if (byte >= 'a' && byte <= 'z') {
        lexer->state = JSON_LEXER_KEYWORD;
    } else {
        return STEP_BREAK;
    }
    return STEP_TAKE;
}

static enum step step_skipping(struct json_lexer *lexer, char byte)
{
    if (byte == '\r' || byte == '\n') {
        lexer->state = JSON_LEXER_BETWEEN;
        return STEP_IGNORE;
    }
    if (is_structural(byte)) {
        return step_between(lexer, byte);
    }
    return is_forbidden(byte) && byte != '\t' ? STEP_BREAK : STEP_IGNORE;
}

static enum step step_string(struct json_lexer *lexer, char byte)
{
    if (is_forbidden(byte)) {
        return STEP_BREAK;
    }
    if (lexer->state == JSON_LEXER_ESCAPE) {
        lexer->state = JSON_LEXER_STRING;
        return STEP_TAKE;
    }
    if (byte == '\\') {
        lexer->state = JSON_LEXER_ESCAPE;
    }
    return byte == lexer->quote ? STEP_TAKE_END : STEP_TAKE;
}

static enum step go(struct json_lexer *lexer, enum json_lexer_state state)
{
    lexer->state = state;
    return STEP_TAKE;
}

/* After a complete whole part: a fraction, an exponent, or the end. */
static enum step step_after_integer(struct json_lexer *lexer, char byte)
{
    if (byte == '.') {
        return go(lexer, JSON_LEXER_POINT);
    }
    if (byte == 'e' || byte == 'E') {
        return go(lexer, JSON_LEXER_EXPONENT_LETTER);
    }
    return STEP_LEAVE_END;
}

static enum step step_number(struct json_lexer *lexer, char byte)
{
    bool digit = is_digit(byte);

    switch ((int)lexer->state) {
    case JSON_LEXER_MINUS:
        if (!digit) {
            return STEP_BREAK;
        }
        return go(lexer, byte == '0' ? JSON_LEXER_ZERO : JSON_LEXER_INTEGER);
    case JSON_LEXER_ZERO:
        return digit ? STEP_BREAK : step_after_integer(lexer, byte);
    case JSON_LEXER_INTEGER:
        return digit ? STEP_TAKE : step_after_integer(lexer, byte);
    case JSON_LEXER_POINT:
        return digit ? go(lexer, JSON_LEXER_FRACTION) : STEP_BREAK;
    case JSON_LEXER_FRACTION:
        if (byte == 'e' || byte == 'E') {
            return go(lexer, JSON_LEXER_EXPONENT_LETTER);
        }
        return digit ? STEP_TAKE : STEP_LEAVE_END;
    case JSON_LEXER_EXPONENT_LETTER:
        if (byte == '+' || byte == '-') {
            return go(lexer, JSON_LEXER_EXPONENT_SIGN);
        }
        return digit ? go(lexer, JSON_LEXER_EXPONENT) : STEP_BREAK;
    case JSON_LEXER_EXPONENT_SIGN:
        return digit ? go(lexer, JSON_LEXER_EXPONENT) : STEP_BREAK;
    case JSON_LEXER_EXPONENT: return digit ? STEP_TAKE : STEP_LEAVE_END;
    default: g_assert_not_reached();
    }
}

static enum step step(struct json_lexer *lexer, char byte)
{
    switch ((int)lexer->state) {
    case JSON_LEXER_BETWEEN: return step_between(lexer, byte);
    case JSON_LEXER_SKIPPING: return step_skipping(lexer, byte);
    case JSON_LEXER_STRING:
    case JSON_LEXER_ESCAPE: return step_string(lexer, byte);
    case JSON_LEXER_KEYWORD:
        return byte >= 'a' && byte <= 'z' ? STEP_TAKE : STEP_LEAVE_END;
    default: return step_number(lexer, byte);
    }
}

/* The kind of the token that `state` and the text's first byte tell. */
static enum json_token token_kind(enum json_lexer_state state, char first)
{
    switch (first) {
    case '{': return JSON_TOKEN_DICT_OPEN;
    case '}': return JSON_TOKEN_DICT_CLOSE;
    case '[': return JSON_TOKEN_LIST_OPEN;
    case ']': return JSON_TOKEN_LIST_CLOSE;
    case ',': return JSON_TOKEN_COMMA;
    case ':': return JSON_TOKEN_COLON;
    case '"':
    case '\'': return JSON_TOKEN_STRING;
    default:
        return state == JSON_LEXER_KEYWORD ? JSON_TOKEN_KEYWORD
                                           : JSON_TOKEN_NUMBER;
    }
}

static enum json_token end_token(struct json_lexer *lexer)
{
    enum json_token kind = token_kind(lexer->state, lexer->text->str[0]);

    lexer->state = JSON_LEXER_BETWEEN;
    return kind;
}

/* In a string, most bytes are taken without looking at the state. */
static size_t plain_run(const struct json_lexer *lexer,
                        const char *bytes,
                        size_t length)
{
    size_t run = 0;

    if (lexer->state != JSON_LEXER_STRING) {
        return 0;
    }
    while (run < length && bytes[run] != '\\' && bytes[run] != lexer->quote &&
           !is_forbidden(bytes[run])) {
        run++;
    }
    return run;
}

/* Appends, unless the text would pass its limit: then skips from here on. */
static bool append(struct json_lexer *lexer, const char *bytes, size_t length)
{
    if (length > lexer->text_max - MIN(lexer->text->len, lexer->text_max)) {
        clear_text(lexer);
        lexer->state = JSON_LEXER_SKIPPING;
        return false;
    }
    g_string_append_len(lexer->text, bytes, (gssize)length);
    return true;
}

/* Takes one byte, or a run of a string's; NONE: the token goes on. */
static enum json_token take(struct json_lexer *lexer,
                            const char **bytes,
                            size_t *length)
{
    size_t run = plain_run(lexer, *bytes, *length);
    enum step what = run > 0 ? STEP_TAKE : step(lexer, **bytes);
    const char *taken = *bytes;

    if (what == STEP_LEAVE_END) {
        return end_token(lexer);
    }
    run = MAX(run, 1);
    *bytes += run;
    *length -= run;
    if (what == STEP_IGNORE) {
        return JSON_TOKEN_NONE;
    }
    if (what == STEP_BREAK) {
        if (lexer->state == JSON_LEXER_SKIPPING) {
            clear_text(lexer);
        }
        g_string_append_c(lexer->text, *taken);
        lexer->state = JSON_LEXER_SKIPPING;
        return JSON_TOKEN_BROKEN;
    }
    if (!append(lexer, taken, run)) {
        return JSON_TOKEN_TOO_LONG;
    }
    return what == STEP_TAKE_END ? end_token(lexer) : JSON_TOKEN_NONE;
}

enum json_token json_lexer_next(struct json_lexer *lexer,
                                const char **bytes,
                                size_t *length)
{
    enum json_token token = JSON_TOKEN_NONE;

    if (!json_lexer_is_busy(lexer)) {
        clear_text(lexer);
    }
    while (token == JSON_TOKEN_NONE && *length > 0) {
        token = take(lexer, bytes, length);
    }
    return token;
}
