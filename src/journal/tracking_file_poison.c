/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Poison: each way is tried when the one before has failed. None touches the
 * newest superblock: were it torn, the one before it would count.
 */
#include <errno.h>

#include "journal/tracking_file_priv.h"

static int co_poison_superblock(struct tracking_file *file,
                                struct tracking_superblock *superblock,
                                const char *reason)
{
    superblock->is_poisoned = true;
    superblock->is_clean = false;
    g_free(superblock->reason);
    superblock->reason = g_strndup(reason, TRACKING_REASON_BYTES_MAX);
    /* What is written only now no failure of before is about. */
    return co_tracking_file_flip_since(file, superblock, file->failed_syncs);
}

static int co_poison_name(struct tracking_file *file)
{
    int ret = co_storage_unlink(file->storage, file->path);

    return ret < 0 && ret != -ENOENT ? ret : co_tracking_file_sync_name(file);
}

static char *tombstone_path(const char *state_directory,
                            const struct journal_id *disk_id)
{
    char text[JOURNAL_ID_TEXT_BYTES];

    journal_id_format(disk_id, text);
    return g_strdup_printf("%s/%s.untracked", state_directory, text);
}

static int co_poison_state_directory(struct tracking_file *file,
                                     const char *state_directory)
{
    g_autofree char *path =
        tombstone_path(state_directory, &file->layout.disk_id);
    struct storage_file *tombstone = NULL;
    int ret =
        co_storage_open(file->storage, path, STORAGE_CREATE, &tombstone, NULL);

    if (ret < 0 && ret != -EEXIST) {
        return ret;
    }
    co_storage_close(&tombstone);
    return co_storage_sync_directory(file->storage, state_directory);
}

int co_tracking_file_poison(struct tracking_file *file,
                            struct tracking_superblock *superblock,
                            const char *reason,
                            const char *state_directory)
{
    int ret = superblock == NULL
                  ? -ENODATA
                  : co_poison_superblock(file, superblock, reason);

    if (ret < 0) {
        ret = co_poison_name(file);
    }
    if (ret < 0 && state_directory != NULL) {
        ret = co_poison_state_directory(file, state_directory);
    }
    return ret;
}

int co_tracking_file_is_tombstoned(struct storage *storage,
                                   const char *state_directory,
                                   const struct journal_id *disk_id,
                                   bool *ret_is)
{
    g_autofree char *path = NULL;
    struct storage_stat found;
    int ret;

    *ret_is = false;
    if (state_directory == NULL) {
        return 0;
    }
    path = tombstone_path(state_directory, disk_id);
    ret = co_storage_stat(storage, path, &found);
    *ret_is = ret == 0;
    return ret == -ENOENT ? 0 : ret;
}
