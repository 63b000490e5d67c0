/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Short writes to cached files without leaving the thread: what goes to the page
 * cache takes microseconds, and a hop to another thread takes longer.
 *
 * Where the file system takes RWF_NOWAIT nothing is ever waited for. Local disks
 * whose file system does not take it are written to plainly. A plain write that took
 * long (throttled by the kernel, most likely) sends the following ones elsewhere
 * for a while, so that one slow disk does not hold up the others of the thread.
 */
#ifndef LOOP_INLINE_WRITER_H
#define LOOP_INLINE_WRITER_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Longer ones are for other threads. */
#define INLINE_WRITE_BYTES_MAX (64 * 1024)

enum inline_writes {
    INLINE_WRITES_NEVER,  /* may hang: network, FUSE, unknown */
    INLINE_WRITES_NOWAIT, /* the file system takes RWF_NOWAIT */
    INLINE_WRITES_PLAIN,  /* local disk: a plain write seldom waits */
};

/* Of one open file. Any thread, also several at once. */
struct inline_writer {
    enum inline_writes writes;
    _Atomic uint64_t again_ns; /* no plain writes before this time */
};

/* What the file system of `fd` allows. May wait: for the offload pool. */
void inline_writer_probe(struct inline_writer *writer, int fd);

/* Writes `bytes`, all that is in `iov`. The count may be short, an error may come
 * from the file, and -EAGAIN says that nothing was done: in any of these cases
 * the whole of it is to be written in another way. Coroutines and plain callbacks
 * of a loop. */
ssize_t inline_writer_try(struct inline_writer *writer,
                          int fd,
                          const struct iovec *iov,
                          int iov_count,
                          uint64_t bytes,
                          uint64_t offset);

#endif
