/* SPDX-License-Identifier: BSD-3-Clause */
/* What tracking_file.c has for tracking_file_poison.c. */
#ifndef JOURNAL_TRACKING_FILE_PRIV_H
#define JOURNAL_TRACKING_FILE_PRIV_H

#include "journal/tracking_file.h"

/* As co_tracking_file_flip(), when so many syncs had failed: none since. */
int co_tracking_file_flip_since(struct tracking_file *file,
                                struct tracking_superblock *superblock,
                                unsigned int failed_syncs);
/* The directory of the file's name, unless nothing is synced. */
int co_tracking_file_sync_name(struct tracking_file *file);

#endif
