/* SPDX-License-Identifier: BSD-3-Clause */
/* File descriptors that close themselves at the end of their scope. */
#ifndef REPO_FD_H
#define REPO_FD_H

#include <unistd.h>

static inline void fd_cleanup(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd); /* what must be durable was synced before */
    }
}

/* `auto_fd int fd = open(...);` */
#define auto_fd __attribute__((cleanup(fd_cleanup)))

static inline int fd_steal(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

#endif
