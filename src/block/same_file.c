/* SPDX-License-Identifier: BSD-3-Clause */
/* Is it the same file, by whatever name? */
#include <sys/stat.h>

#include "block/node_priv.h"
#include "loop/coroutine.h"

struct file_search {
    const char *filename;
    const char *const *others;
    size_t count;
};

static int run_search(void *opaque)
{
    const struct file_search *search = opaque;
    struct stat sought;
    struct stat other;

    if (stat(search->filename, &sought) < 0) {
        return 0;
    }
    for (size_t i = 0; i < search->count; i++) {
        if (search->others[i] != NULL && stat(search->others[i], &other) == 0 &&
            sought.st_dev == other.st_dev && sought.st_ino == other.st_ino) {
            return 1;
        }
    }
    return 0;
}

bool co_block_file_is_among(const char *filename,
                            const char *const *others,
                            size_t count)
{
    struct file_search search = { filename, others, count };

    return co_offload(run_search, &search) > 0;
}
