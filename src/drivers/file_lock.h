/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Image locks, for who looks at an image without opening it as a node
 * (docs/decisions/006-image-locking.md). May block; any thread.
 */
#ifndef DRIVERS_FILE_LOCK_H
#define DRIVERS_FILE_LOCK_H

#include <glib.h>

/* -EBUSY, naming who it is, when someone has the image open for writing; a
 * reader of a raw image need not care, a reader of tables must. 0 also where
 * there are no locks. */
int file_lock_refuse_writer(const char *filename, GError **err);

#endif
