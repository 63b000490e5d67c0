/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where a sparse file has data, asked of the file system once for each stretch. A
 * file system that knows no holes shows one stretch. Blocking; any thread.
 */
#ifndef REPO_FILE_DATA_H
#define REPO_FILE_DATA_H

#include <glib.h>
#include <stdint.h>

/* Zeroed but for `fd` at first. */
struct file_data {
    int fd;         /* borrowed */
    uint64_t start; /* of the stretch that was found last; ... */
    uint64_t end;   /* ... both UINT64_MAX: there is none to the end */
};

/* Makes it the stretch of data at `offset` or, in a hole, the next one. To be
 * asked with offsets that only grow. */
int file_data_find(struct file_data *data, uint64_t offset, GError **err);

#endif
