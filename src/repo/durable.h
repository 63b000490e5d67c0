/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Files and directories that are on stable storage when the call returns.
 *
 * Names are single path components relative to a directory's descriptor; no
 * symbolic link is followed in the last one. Blocking; any thread.
 */
#ifndef REPO_DURABLE_H
#define REPO_DURABLE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A descriptor of the directory, owned by the caller, or a negative errno. */
int durable_open_directory(int parent_fd, const char *name, GError **err);

/* fsync; `what` names the file in the error. */
int durable_sync(int fd, const char *what, GError **err);

/* Replaces the file's content whole: a temporary file, fsync, rename, fsync of
 * the directory. */
int durable_write(int directory_fd,
                  const char *name,
                  const void *data,
                  size_t bytes,
                  GError **err);

/* The whole file, NUL added, owned by the caller. -EFBIG beyond `bytes_max`,
 * -ENOENT when there is none. */
int durable_read(int directory_fd,
                 const char *name,
                 size_t bytes_max,
                 char **ret_data,
                 size_t *ret_bytes,
                 GError **err);

/* Removes a directory of plain files and the files in it. No error when there
 * is none. */
int durable_remove_directory(int parent_fd, const char *name, GError **err);

/* write and pwrite until all is written. */
int write_fully(int fd, const void *data, size_t bytes);
int pwrite_fully(int fd, const void *data, size_t bytes, uint64_t offset);

/* pread until `bytes` or the end of the file; the number of bytes read. */
ssize_t pread_fully(int fd, void *data, size_t bytes, uint64_t offset);

#endif
