/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * qmp-reference          prints docs/reference/qmp.md
 * qmp-reference FILE     ends with code 1 if FILE is not what it would print
 */
#include <stdio.h>
#include <string.h>

#include "qmp/reference.h"

static int check_page(const char *path, const char *page)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;

    if (!g_file_get_contents(path, &text, NULL, &err)) {
        fprintf(stderr, "qmp-reference: %s\n", err->message);
        return 1;
    }
    if (strcmp(text, page) != 0) {
        fprintf(stderr,
                "%s is not what the command table says; make it anew:\n"
                "  build/src/qmp/qmp-reference > docs/reference/qmp.md\n",
                path);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    g_autofree char *page =
        qmp_reference_page(qmp_all_commands, qmp_all_events);

    if (argc > 1) {
        return check_page(argv[1], page);
    }
    return fputs(page, stdout) < 0 || fflush(stdout) != 0;
}
