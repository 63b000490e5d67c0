/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From tokens to values.
 *
 * The tree grows with the tokens: `open` is the path of containers that are not
 * closed yet, each already hanging in its parent, and `expected` says what the
 * grammar allows next. On the first fault the tree is dropped and tokens are
 * only counted, until the braces and brackets balance and the fault is told.
 *
 * Strings are copied more than once on their way (token, decoded text, value);
 * commands are small, and a copy is cheap beside the system call that brought
 * the bytes.
 */
#include "base/json_reader.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/json_lexer.h"
#include "base/json_token.h"
#include "base/limits.h"

enum expected {
    EXPECT_VALUE,
    EXPECT_ITEM_OR_END, /* behind [ */
    EXPECT_KEY_OR_END,  /* behind { */
    EXPECT_KEY,
    EXPECT_COLON,
    EXPECT_COMMA_OR_END,
};

struct json_reader {
    struct json_lexer lexer;

    /* What the value being read has taken up, for the limits. */
    size_t text_bytes;
    size_t tokens;
    /* Braces and brackets open. Never negative between tokens. */
    int braces;
    int brackets;

    enum expected expected;
    struct json_value *root; /* owned; NULL: nothing yet, or a fault */
    GPtrArray *open;         /* containers of `root`, borrowed */
    char *key;               /* of the member whose value is next, or NULL */
    char *fault;             /* first fault, NULL: none */
};

/* Readies for the next value. */
static void forget(struct json_reader *reader)
{
    reader->text_bytes = 0;
    reader->tokens = 0;
    reader->braces = 0;
    reader->brackets = 0;
    reader->expected = EXPECT_VALUE;
    g_clear_pointer(&reader->root, json_free);
    g_ptr_array_set_size(reader->open, 0);
    g_clear_pointer(&reader->key, g_free);
    g_clear_pointer(&reader->fault, g_free);
}

struct json_reader *json_reader_new(void)
{
    struct json_reader *reader = g_new0(struct json_reader, 1);

    json_lexer_init(&reader->lexer);
    reader->open = g_ptr_array_new();
    return reader;
}

void json_reader_free(struct json_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    forget(reader);
    json_lexer_release(&reader->lexer);
    g_ptr_array_free(reader->open, TRUE);
    g_free(reader);
}

void json_reader_reset(struct json_reader *reader)
{
    forget(reader);
    json_lexer_reset(&reader->lexer);
}

/* Notes the first fault (taken over), and drops the tree. */
static void set_fault(struct json_reader *reader, char *fault)
{
    g_assert(reader->fault == NULL);
    reader->fault = fault;
    g_clear_pointer(&reader->root, json_free);
    g_ptr_array_set_size(reader->open, 0);
}

static struct json_value *innermost(const struct json_reader *reader)
{
    guint depth = reader->open->len;

    return depth > 0 ? reader->open->pdata[depth - 1] : NULL;
}

static void set_unexpected(struct json_reader *reader)
{
    const struct json_value *container = innermost(reader);
    bool in_list = container != NULL && json_type_of(container) == JSON_LIST;
    const char *wanted = NULL;
    g_autofree char *found = json_token_quote(reader->lexer.text);

    switch (reader->expected) {
    case EXPECT_VALUE: wanted = "a value"; break;
    case EXPECT_ITEM_OR_END: wanted = "a value or ']'"; break;
    case EXPECT_KEY_OR_END: wanted = "a member's name in quotes or '}'"; break;
    case EXPECT_KEY: wanted = "a member's name in quotes"; break;
    case EXPECT_COLON: wanted = "':' after a member's name"; break;
    case EXPECT_COMMA_OR_END:
    default: wanted = in_list ? "',' or ']'" : "',' or '}'"; break;
    }
    set_fault(reader, g_strdup_printf("expected %s, found %s", wanted, found));
}

/* Hangs `value` (consumed) where the grammar stands. */
static void place_value(struct json_reader *reader, struct json_value *value)
{
    struct json_value *container = innermost(reader);
    enum json_type type = json_type_of(value);

    if (container == NULL) {
        reader->root = value;
    } else if (json_type_of(container) == JSON_LIST) {
        json_list_append(container, value);
    } else {
        json_dict_set(container, reader->key, value);
        g_clear_pointer(&reader->key, g_free);
    }
    reader->expected = EXPECT_COMMA_OR_END;
    if (type == JSON_LIST || type == JSON_DICT) {
        g_ptr_array_add(reader->open, value);
        reader->expected =
            type == JSON_LIST ? EXPECT_ITEM_OR_END : EXPECT_KEY_OR_END;
    }
}

static void build_scalar(struct json_reader *reader, enum json_token token)
{
    char *fault = NULL;
    struct json_value *value =
        json_token_value(token, reader->lexer.text, &fault);

    if (value != NULL) {
        place_value(reader, value);
    } else {
        set_fault(reader, fault);
    }
}

static void build_key(struct json_reader *reader)
{
    char *fault = NULL;

    reader->key = json_token_string(reader->lexer.text, &fault);
    if (reader->key == NULL) {
        set_fault(reader, fault);
    } else if (json_dict_get(innermost(reader), reader->key) != NULL) {
        g_autofree char *quote = json_token_quote(reader->lexer.text);

        set_fault(reader,
                  g_strdup_printf("the member %s is given twice", quote));
    } else {
        reader->expected = EXPECT_COLON;
    }
}

static bool expects_value(const struct json_reader *reader)
{
    return reader->expected == EXPECT_VALUE ||
           reader->expected == EXPECT_ITEM_OR_END;
}

/* May the innermost container, which must be of `type`, end here? */
static bool may_close(const struct json_reader *reader,
                      enum json_type type,
                      enum expected when_empty)
{
    const struct json_value *container = innermost(reader);

    return container != NULL && json_type_of(container) == type &&
           (reader->expected == EXPECT_COMMA_OR_END ||
            reader->expected == when_empty);
}

static void build_close(struct json_reader *reader)
{
    g_ptr_array_set_size(reader->open, (gint)reader->open->len - 1);
    reader->expected = EXPECT_COMMA_OR_END;
}

static void build_comma(struct json_reader *reader)
{
    bool in_list = json_type_of(innermost(reader)) == JSON_LIST;

    reader->expected = in_list ? EXPECT_VALUE : EXPECT_KEY;
}

/* Lets the tree grow by one token, or sets the fault. */
static void build(struct json_reader *reader, enum json_token token)
{
    bool is_string = token == JSON_TOKEN_STRING;
    bool is_scalar =
        is_string || token == JSON_TOKEN_NUMBER || token == JSON_TOKEN_KEYWORD;
    bool wants_key =
        reader->expected == EXPECT_KEY || reader->expected == EXPECT_KEY_OR_END;

    if (is_scalar && expects_value(reader)) {
        build_scalar(reader, token);
    } else if (is_string && wants_key) {
        build_key(reader);
    } else if (token == JSON_TOKEN_DICT_OPEN && expects_value(reader)) {
        place_value(reader, json_dict_new());
    } else if (token == JSON_TOKEN_LIST_OPEN && expects_value(reader)) {
        place_value(reader, json_list_new());
    } else if (token == JSON_TOKEN_COLON && reader->expected == EXPECT_COLON) {
        reader->expected = EXPECT_VALUE;
    } else if (token == JSON_TOKEN_COMMA &&
               reader->expected == EXPECT_COMMA_OR_END) {
        build_comma(reader);
    } else if ((token == JSON_TOKEN_DICT_CLOSE &&
                may_close(reader, JSON_DICT, EXPECT_KEY_OR_END)) ||
               (token == JSON_TOKEN_LIST_CLOSE &&
                may_close(reader, JSON_LIST, EXPECT_ITEM_OR_END))) {
        build_close(reader);
    } else {
        set_unexpected(reader);
    }
}

static void count(struct json_reader *reader, enum json_token token)
{
    reader->tokens++;
    reader->text_bytes += reader->lexer.text->len;
    reader->braces +=
        (token == JSON_TOKEN_DICT_OPEN) - (token == JSON_TOKEN_DICT_CLOSE);
    reader->brackets +=
        (token == JSON_TOKEN_LIST_OPEN) - (token == JSON_TOKEN_LIST_CLOSE);
}

static enum json_reader_result refuse(struct json_reader *reader,
                                      GError **err,
                                      const char *why)
{
    error_set(err, -EINVAL, "Malformed JSON: %s", why);
    forget(reader);
    return JSON_READER_ERROR;
}

static enum json_reader_result refuse_broken(struct json_reader *reader,
                                             GError **err)
{
    g_autofree char *quote = json_token_quote(reader->lexer.text);
    g_autofree char *why = g_strdup_printf("%s cannot stand here", quote);

    return refuse(reader, err, why);
}

static enum json_reader_result refuse_limit(struct json_reader *reader,
                                            GError **err,
                                            const char *what,
                                            uint64_t limit)
{
    g_autofree char *why = g_strdup_printf(
        "one value has more than %" G_GUINT64_FORMAT " %s", limit, what);

    return refuse(reader, err, why);
}

/* Takes in a token; MORE: the value goes on. */
static enum json_reader_result collect(struct json_reader *reader,
                                       enum json_token token,
                                       struct json_value **ret_value,
                                       GError **err)
{
    count(reader, token);
    if (reader->tokens > LIMIT_JSON_TOKENS) {
        return refuse_limit(reader, err, "tokens", LIMIT_JSON_TOKENS);
    }
    if (reader->braces + reader->brackets > LIMIT_JSON_NESTING) {
        return refuse_limit(reader, err, "levels of nesting",
                            LIMIT_JSON_NESTING);
    }
    if (reader->fault == NULL) {
        build(reader, token);
    }
    if (reader->braces >= 0 && reader->brackets >= 0 &&
        (reader->braces > 0 || reader->brackets > 0)) {
        return JSON_READER_MORE;
    }
    if (reader->fault != NULL) {
        return refuse(reader, err, reader->fault);
    }
    g_assert(reader->root != NULL && reader->open->len == 0);
    *ret_value = g_steal_pointer(&reader->root);
    forget(reader);
    return JSON_READER_VALUE;
}

enum json_reader_result json_reader_next(struct json_reader *reader,
                                         const char **bytes,
                                         size_t *length,
                                         struct json_value **ret_value,
                                         GError **err)
{
    enum json_reader_result result = JSON_READER_MORE;

    while (result == JSON_READER_MORE) {
        reader->lexer.text_max = LIMIT_JSON_TEXT_BYTES - reader->text_bytes;

        enum json_token token = json_lexer_next(&reader->lexer, bytes, length);

        if (token == JSON_TOKEN_NONE) {
            break;
        }
        if (token == JSON_TOKEN_BROKEN) {
            result = refuse_broken(reader, err);
        } else if (token == JSON_TOKEN_TOO_LONG) {
            result = refuse_limit(reader, err, "bytes", LIMIT_JSON_TEXT_BYTES);
        } else {
            result = collect(reader, token, ret_value, err);
        }
    }
    return result;
}

struct json_value *json_read_text(const char *text, GError **err)
{
    g_autoptr(json_reader) reader = json_reader_new();
    g_autoptr(json_value) value = NULL;
    size_t length = strlen(text);
    const char *end_of_line = "\n"; /* completes a number or keyword */
    size_t one = 1;
    enum json_reader_result result =
        json_reader_next(reader, &text, &length, &value, err);

    if (result == JSON_READER_MORE) {
        result = json_reader_next(reader, &end_of_line, &one, &value, err);
    }
    if (result == JSON_READER_ERROR) {
        return NULL;
    }
    if (result == JSON_READER_MORE) {
        error_set(err, -EINVAL, "Malformed JSON: the text ends too early");
        return NULL;
    }
    text += strspn(text, " \t\r\n");
    if (*text != '\0') {
        error_set(err, -EINVAL,
                  "Malformed JSON: there is more text behind the value");
        return NULL;
    }
    return g_steal_pointer(&value);
}
