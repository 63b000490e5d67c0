/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Forgetting what the page cache shows, see
 * docs/decisions/035-a-crash-costs-the-cache.md.
 *
 * A page that could not be written out is clean afterwards, and stays; whoever
 * asks then is told that all is well. So what can be written out is, and all that
 * is clean goes. What is read after that comes from the medium.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "drivers/file_priv.h"

/* Offload pool. */
static int run_forget(void *opaque)
{
    const struct file_state *state = opaque;
    int ret = fdatasync(state->fd) < 0 ? -errno : 0;
    int advised = posix_fadvise(state->fd, 0, 0, POSIX_FADV_DONTNEED);

    return advised != 0 ? -advised : ret;
}

int co_file_forget_cache(struct block_node *node)
{
    struct file_state *state = block_state(node);
    int ret;

    if (state->direct) {
        return 0; /* it is not looked at */
    }
    ret = co_file_call(state, run_forget, state);
    state->extent = (struct file_extent){ .end = 0 };
    if (ret < 0 && state->writes > FILE_WRITES_AT_OPEN) {
        state->flush_failed = true; /* the kernel tells of it only once */
    }
    return ret;
}
