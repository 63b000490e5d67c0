/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/reference_page.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

static int check_page(const char *path, const char *page, const char *recipe)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;

    if (!g_file_get_contents(path, &text, NULL, &err)) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    if (strcmp(text, page) != 0) {
        fprintf(stderr, "%s is not what the table says; make it anew:\n  %s\n",
                path, recipe);
        return 1;
    }
    return 0;
}

int reference_page_main(int argc,
                        char **argv,
                        const char *page,
                        const char *recipe)
{
    if (argc > 1) {
        return check_page(argv[1], page, recipe);
    }
    return fputs(page, stdout) < 0 || fflush(stdout) != 0;
}
