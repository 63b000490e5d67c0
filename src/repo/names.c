/* SPDX-License-Identifier: BSD-3-Clause */
#include "repo/names.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/error.h"
#include "base/limits.h"

/* 20260131T235959Z */
#define STAMP_BYTES 16

bool disk_name_is_legal(const char *name)
{
    size_t length = strlen(name);

    if (length > LIMIT_NODE_NAME_BYTES || !g_ascii_isalpha(name[0])) {
        return false;
    }
    for (size_t i = 1; i < length; i++) {
        if (!g_ascii_isalnum(name[i]) && strchr("-._", name[i]) == NULL) {
            return false;
        }
    }
    return true;
}

bool point_id_is_legal(const char *id)
{
    size_t length = strlen(id);

    if (length < STAMP_BYTES + 5 || length > POINT_ID_BYTES_MAX ||
        id[8] != 'T' || id[STAMP_BYTES - 1] != 'Z' || id[STAMP_BYTES] != '-') {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        bool is_mark = i == 8 || i == STAMP_BYTES - 1 || i == STAMP_BYTES;
        if (!is_mark && !g_ascii_isdigit(id[i])) {
            return false;
        }
    }
    return true;
}

char *point_id_new(GDateTime *when, uint64_t sequence)
{
    g_autofree char *stamp = g_date_time_format(when, "%Y%m%dT%H%M%SZ");

    return g_strdup_printf("%s-%04" G_GUINT64_FORMAT, stamp, sequence);
}

bool hex_is_legal(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

char *hex_random(size_t digits, GError **err)
{
    g_autoptr(GString) text = g_string_new(NULL);
    unsigned char byte;

    while (text->len < digits) {
        if (getrandom(&byte, 1, 0) != 1) {
            (void)error_set_errno(err, -errno, "no random numbers");
            return NULL;
        }
        g_string_append_c(text, "0123456789abcdef"[byte & 15]);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}
