/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * JSON text held against a schema. Promises: a refusal has a sentence in valid
 * UTF-8 of bounded length; what passes the check is left alone by coercing.
 */
#include <glib.h>
#include <string.h>

#include "base/json_reader.h"
#include "sample_schema.h"

#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autoptr(json_value) value = json_read_text(text, NULL);
    g_autoptr(GError) err = NULL;

    if (value == NULL) {
        return 0;
    }
    if (schema_check(&sample_options, value, "arguments", &err) == 0) {
        g_autoptr(json_value) same =
            schema_coerce(&sample_options, value, NULL, NULL);

        g_assert(err == NULL && same != NULL);
    } else {
        g_assert(g_utf8_validate(err->message, -1, NULL));
        g_assert(strlen(err->message) < 1000);
    }
    return 0;
}
