/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal/tracking_peek.h"

#include <errno.h>

#include "journal/tracking_file.h"

/* 0: nobody has it, as of now. */
static int co_probe(struct storage *storage, const char *path)
{
    struct storage_file *file = NULL;
    int ret = co_storage_open(storage, path, 0, &file, NULL);

    if (ret == 0) {
        ret = co_storage_lock(file, false);
    }
    co_storage_close(&file);
    return ret;
}

bool co_tracking_was_cut_off(struct storage *storage, const char *path)
{
    g_autoptr(tracking_superblock) superblock = NULL;
    struct tracking_file *file = NULL;
    int ret = co_probe(storage, path);

    if (ret == -ENOENT || ret == -EAGAIN) {
        return false;
    }
    if (ret == 0) {
        ret = co_tracking_file_open(storage, path, &file, &superblock, NULL);
    }
    co_tracking_file_close(&file);
    return ret < 0 || superblock == NULL || superblock->is_poisoned ||
           !superblock->is_clean;
}
