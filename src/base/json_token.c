/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/json_token.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* As much of a token as an error repeats. */
#define QUOTE_BYTES_MAX 32

static char *quote_bytes(const char *bytes, gsize length)
{
    GString *quote = g_string_new("'");
    gsize shown = MIN(length, QUOTE_BYTES_MAX);

    if (length == 1 && !g_ascii_isprint(bytes[0])) {
        g_string_printf(quote, "byte 0x%02x", (guchar)bytes[0]);
        return g_string_free(quote, FALSE);
    }
    for (gsize i = 0; i < shown; i++) {
        if (g_ascii_iscntrl(bytes[i])) {
            g_string_append_printf(quote, "<0x%02x>", (guchar)bytes[i]);
        } else {
            g_string_append_c(quote, bytes[i]);
        }
    }
    g_string_append(quote, shown < length ? "...'" : "'");

    g_autofree char *quoted = g_string_free(quote, FALSE);

    return g_utf8_make_valid(quoted, -1); /* it may be cut in a character */
}

char *json_token_quote(const GString *text)
{
    return quote_bytes(text->str, text->len);
}

/* Four hexadecimal digits at `text`; -1 if they are not. */
static int parse_hex4(const char *text)
{
    int code = 0;

    for (size_t i = 0; i < 4; i++) {
        int digit = g_ascii_xdigit_value(text[i]);

        if (digit < 0) {
            return -1;
        }
        code = code * 16 + digit;
    }
    return code;
}

/* Decodes \uXXXX at `*text` (behind the u), a surrogate pair as one. */
static bool append_unicode(GString *out, const char **text)
{
    int code = parse_hex4(*text);

    if (code < 0 || (code >= 0xdc00 && code <= 0xdfff)) {
        return false;
    }
    *text += 4;
    if (code >= 0xd800 && code <= 0xdbff) {
        int low = g_str_has_prefix(*text, "\\u") ? parse_hex4(*text + 2) : -1;

        if (low < 0xdc00 || low > 0xdfff) {
            return false;
        }
        *text += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code == 0) {
        g_string_append(out, "\xc0\x80"); /* see base/json.h */
    } else {
        g_string_append_unichar(out, (gunichar)code);
    }
    return true;
}

/* Decodes the escape at `*text`, a backslash. The quote that ends the token
 * is no hexadecimal digit, so nothing is read beyond it. */
static bool append_escape(GString *out, const char **text)
{
    static const char letters[] = "\"'\\/bfnrt";
    static const char meanings[] = "\"'\\/\b\f\n\r\t";
    char letter = (*text)[1];
    const char *found = strchr(letters, letter);

    *text += 2;
    if (letter == 'u') {
        return append_unicode(out, text);
    }
    if (found == NULL) {
        return false;
    }
    g_string_append_c(out, meanings[found - letters]);
    return true;
}

char *json_token_string(const GString *text, char **ret_fault)
{
    const char *rest = text->str + 1;
    const char *end = text->str + text->len - 1;
    GString *out = NULL;

    if (!g_utf8_validate_len(rest, (gsize)(end - rest), NULL)) {
        g_autofree char *quote = json_token_quote(text);

        *ret_fault = g_strdup_printf("the string %s is not UTF-8", quote);
        return NULL;
    }
    out = g_string_sized_new(text->len);
    while (rest < end) {
        const char *escape = memchr(rest, '\\', (size_t)(end - rest));
        const char *plain_end = escape != NULL ? escape : end;

        g_string_append_len(out, rest, plain_end - rest);
        rest = plain_end;
        if (escape != NULL && !append_escape(out, &rest)) {
            gsize shown = escape[1] == 'u' ? 6 : 2;
            g_autofree char *quote =
                quote_bytes(escape, MIN((gsize)(end - escape), shown));

            *ret_fault = g_strdup_printf(
                "a string has %s, which is no valid escape", quote);
            g_string_free(out, TRUE);
            return NULL;
        }
    }
    return g_string_free(out, FALSE);
}

static struct json_value *double_value(const GString *text, char **ret_fault)
{
    double number = g_ascii_strtod(text->str, NULL);

    if (!isfinite(number)) {
        g_autofree char *quote = json_token_quote(text);

        *ret_fault = g_strdup_printf("the number %s is out of range", quote);
        return NULL;
    }
    return json_double_new(number);
}

static struct json_value *number_value(const GString *text, char **ret_fault)
{
    if (strpbrk(text->str, ".eE") != NULL) {
        return double_value(text, ret_fault);
    }
    errno = 0;
    if (text->str[0] == '-') {
        int64_t integer = g_ascii_strtoll(text->str, NULL, 10);

        if (errno == 0) {
            return json_int_new(integer);
        }
    } else {
        uint64_t natural = g_ascii_strtoull(text->str, NULL, 10);

        if (errno == 0) {
            return json_uint_new(natural);
        }
    }
    return double_value(text, ret_fault);
}

static struct json_value *keyword_value(const GString *text, char **ret_fault)
{
    if (strcmp(text->str, "null") == 0) {
        return json_null_new();
    }
    if (strcmp(text->str, "true") == 0 || strcmp(text->str, "false") == 0) {
        return json_bool_new(text->str[0] == 't');
    }

    g_autofree char *quote = json_token_quote(text);

    *ret_fault = g_strdup_printf("%s is none of true, false and null", quote);
    return NULL;
}

static struct json_value *string_value(const GString *text, char **ret_fault)
{
    char *string = json_token_string(text, ret_fault);

    return string != NULL ? json_string_take(string) : NULL;
}

struct json_value *json_token_value(enum json_token token,
                                    const GString *text,
                                    char **ret_fault)
{
    switch ((int)token) {
    case JSON_TOKEN_STRING: return string_value(text, ret_fault);
    case JSON_TOKEN_NUMBER: return number_value(text, ret_fault);
    case JSON_TOKEN_KEYWORD: return keyword_value(text, ret_fault);
    default: g_assert_not_reached();
    }
}
