/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tracking file that is open: reading and writing its parts, in the order that
 * keeps it whole. What stands in them is the tracker's business.
 *
 *     co_tracking_file_create()   "NAME.new", written out in full
 *     ... pages, intent map, co_tracking_file_flip()
 *     co_tracking_file_publish()  becomes NAME
 *     co_tracking_file_close()
 *
 *     co_tracking_file_open()     NAME; then, if it was not closed cleanly,
 *     co_tracking_file_rewrite()  before anything else
 *
 * The kernel tells one of several syncs of an error, so they are taken in turn; once
 * one has failed all later ones fail, and nothing more may be written but the
 * poison. Intents, which writes wait for, do not wait for the syncs of a
 * checkpoint: they are synced through a handle of their own, which is told by
 * itself.
 *
 * Coroutines; one loop at a time. Results: 0 or a negative errno.
 */
#ifndef JOURNAL_TRACKING_FILE_H
#define JOURNAL_TRACKING_FILE_H

#include "journal/tracking_file_format.h"
#include "loop/co_lock.h"

struct tracking_file {
    struct storage *storage; /* borrowed */
    struct storage_file *file;
    struct storage_file *intents; /* the same, for co_..._sync_intents() */
    char *path;                   /* its name once published */
    struct tracking_layout layout;
    bool is_published; /* or may be: its rename failed late */
    bool syncs; /* true until it is in use; then false for process mode */
    struct co_mutex sync_turn;
    unsigned int failed_syncs; /* how many, since it was opened */
    bool has_unsynced_pages;   /* written while it did not sync */
    uint64_t sequence;         /* the last one that was tried */
    unsigned int durable_slot; /* holds the last durable superblock */
    uint8_t *map;              /* the intent map, as it is or will be on disk */
    uint64_t *sector_sequences; /* one per sector */
    bool *page_used; /* [number - 1]: named by the durable superblock */
};

/* What a file has to have room for. */
struct tracking_needs {
    struct journal_id disk_id;
    uint64_t region_bytes;
    uint64_t region_count;
    uint64_t superblock_bytes;
    uint64_t page_count;
};

/* Locked; without a superblock. Refused with a sentence (-ENOSPC and others). */
int co_tracking_file_create(struct storage *storage,
                            const char *path,
                            const struct tracking_needs *needs,
                            struct tracking_file **ret_file,
                            GError **err);
/* Also false when a sync has failed: such a file is of no use any more. */
bool tracking_file_fits(const struct tracking_file *file,
                        const struct tracking_needs *needs);
/* The name becomes the file's, durably. A failure other than -EBUSY leaves in
 * doubt which file has it. */
int co_tracking_file_publish(struct tracking_file *file);
/* A file that was not published is unlinked. NULL is fine. */
void co_tracking_file_close(struct tracking_file **file);

/* -ENOENT: there is none. -EAGAIN: another process or node has it. -ENOTSUP: a
 * newer version. -EINVAL: it is damaged as a whole. Else 0, and the superblock
 * that counts, NULL: there is none. The intent map has been read. */
int co_tracking_file_open(struct storage *storage,
                          const char *path,
                          struct tracking_file **ret_file,
                          struct tracking_superblock **ret_superblock,
                          GError **err);
/* Writes what was read once more, and syncs it; and its name: the one before may
 * have died between renaming and syncing the directory. */
int co_tracking_file_rewrite(struct tracking_file *file);

int co_tracking_file_read_page(struct tracking_file *file,
                               uint32_t number,
                               uint8_t ret_bytes[TRACKING_PAGE_BYTES]);
int co_tracking_file_write_page(struct tracking_file *file,
                                uint32_t number,
                                const uint8_t bytes[TRACKING_PAGE_BYTES]);
/* Sectors [first, first + count) of the map, sealed. */
int co_tracking_file_write_sectors(struct tracking_file *file,
                                   uint64_t first,
                                   uint64_t count);
/* 0: all that was written before is durable. Nothing while it does not sync. */
int co_tracking_file_sync(struct tracking_file *file);
/* As above, also while another sync is under way; one of this kind at a time. */
int co_tracking_file_sync_intents(struct tracking_file *file);
/* Gives the superblock the next sequence, writes it to the slot that is not the
 * durable one, and syncs. All that it names is durable already. */
int co_tracking_file_flip(struct tracking_file *file,
                          struct tracking_superblock *superblock);
/* Marks the pages that it names as used, and no other. */
void tracking_file_use_pages(struct tracking_file *file,
                             const struct tracking_superblock *superblock);

/* Makes it durable, by whichever way works, that this file is not to be
 * believed. `superblock`: what it said last; NULL: nothing yet. */
int co_tracking_file_poison(struct tracking_file *file,
                            struct tracking_superblock *superblock,
                            const char *reason,
                            const char *state_directory);
/* Does the state directory say that files of this disk are lost? */
int co_tracking_file_is_tombstoned(struct storage *storage,
                                   const char *state_directory,
                                   const struct journal_id *disk_id,
                                   bool *ret_is);

#endif
