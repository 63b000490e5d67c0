/* SPDX-License-Identifier: BSD-3-Clause */
#include "scratch.h"

#include <fcntl.h>
#include <ftw.h>
#include <glib.h>
#include <stdio.h>
#include <unistd.h>

int scratch_setup(void **state)
{
    struct scratch *scratch = g_new0(struct scratch, 1);

    scratch->path = g_dir_make_tmp("cohort-unit-XXXXXX", NULL);
    if (scratch->path == NULL) {
        return -1;
    }
    scratch->fd = open(scratch->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = scratch;
    return scratch->fd < 0 ? -1 : 0;
}

static int remove_one(const char *path,
                      const struct stat *status,
                      int type,
                      struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

int scratch_teardown(void **state)
{
    struct scratch *scratch = *state;

    (void)nftw(scratch->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    (void)close(scratch->fd);
    g_free(scratch->path);
    g_free(scratch);
    return 0;
}
