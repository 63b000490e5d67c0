/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a token's text to the value it stands for; a part of base/json_reader.h.
 *
 * Each returns what it says, owned by the caller, or NULL with `*ret_fault` set
 * to a phrase that says what is wrong (to be freed).
 */
#ifndef BASE_JSON_TOKEN_H
#define BASE_JSON_TOKEN_H

#include "base/json.h"
#include "base/json_lexer.h"

/* The UTF-8 text that a STRING token (quotes included) stands for. */
char *json_token_string(const GString *text, char **ret_fault);

/* The value of a STRING, NUMBER or KEYWORD token. */
struct json_value *json_token_value(enum json_token token,
                                    const GString *text,
                                    char **ret_fault);

/* The token's text as an error shows it: quoted, short; to be freed. */
char *json_token_quote(const GString *text);

#endif
