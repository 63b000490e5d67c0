/* SPDX-License-Identifier: BSD-3-Clause */
#include "repo/file_data.h"

#include <errno.h>
#include <unistd.h>

#include "base/error.h"

int file_data_find(struct file_data *data, uint64_t offset, GError **err)
{
    off_t start;
    off_t end;

    if (offset < data->end) {
        return 0;
    }
    start = lseek(data->fd, (off_t)offset, SEEK_DATA);
    if (start < 0 && errno == ENXIO) {
        data->start = data->end = UINT64_MAX;
        return 0;
    }
    end = start < 0 ? -1 : lseek(data->fd, start, SEEK_HOLE);
    if (end < 0) {
        return error_set_errno(err, -errno, "cannot find the file's holes");
    }
    data->start = (uint64_t)start;
    data->end = (uint64_t)end;
    return 0;
}
