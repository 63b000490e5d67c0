/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Options in dotted form, parsed and held against a schema. Promises:
 * - each step gives a value or an error with a sentence, never both;
 * - what coercing gives passes the check, and coercing it again changes
 *   nothing.
 */
#include <glib.h>

#include "base/keyval.h"
#include "sample_schema.h"

#include "target.h"

static void check_coerce(const struct schema_type *type,
                         const struct json_value *tree)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) value = schema_coerce(type, tree, "--option", &err);

    g_assert((value == NULL) == (err != NULL));
    if (value != NULL) {
        g_autoptr(json_value) again = schema_coerce(type, value, NULL, NULL);

        g_assert(schema_check(type, value, NULL, NULL) == 0);
        g_assert(again != NULL && json_equal(value, again));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autoptr(GError) err = NULL;
    g_autoptr(json_value) tree =
        keyval_parse(text, size % 2 == 0 ? "driver" : NULL, &err);

    g_assert((tree == NULL) == (err != NULL));
    if (tree != NULL) {
        check_coerce(&sample_options, tree);
        check_coerce(&sample_address, tree);
    }
    return 0;
}
