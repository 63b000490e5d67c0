/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying between files within the kernel. */
#include <errno.h>
#include <unistd.h>

#include "drivers/file_priv.h"

struct copying {
    int from_fd;
    int to_fd;
    off_t from_offset;
    off_t to_offset;
    size_t bytes;
};

/* The file's own threads. */
static int run_copying(void *opaque)
{
    struct copying *copying = opaque;

    while (copying->bytes > 0) {
        ssize_t copied = copy_file_range(
            copying->from_fd, &copying->from_offset, copying->to_fd,
            &copying->to_offset, copying->bytes, 0);

        if (copied < 0 && errno == EINTR) {
            continue;
        }
        if (copied < 0) {
            return -errno;
        }
        if (copied == 0) {
            return -EIO; /* the file ends before what it was said to hold */
        }
        copying->bytes -= (size_t)copied;
    }
    return 0;
}

int co_file_copy_in(struct block_node *node,
                    uint64_t offset,
                    uint64_t bytes,
                    int fd,
                    uint64_t file_offset)
{
    struct file_state *state = block_state(node);
    struct copying copying = {
        .from_fd = fd,
        .to_fd = state->fd,
        .from_offset = (off_t)file_offset,
        .to_offset = (off_t)offset,
        .bytes = bytes,
    };
    int ret;

    if (state->direct || state->is_device) {
        return -ENOTSUP;
    }
    file_note_change(state);
    ret = co_file_call(state, run_copying, &copying);
    file_note_change(state);
    return ret;
}
