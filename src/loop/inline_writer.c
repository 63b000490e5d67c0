/* SPDX-License-Identifier: BSD-3-Clause */
#include "loop/inline_writer.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "loop/io.h"
#include "loop/loop.h"

#define SLOW_NS  (UINT64_C(1) * 1000 * 1000)
#define PAUSE_NS (UINT64_C(100) * 1000 * 1000)

#ifndef XFS_SUPER_MAGIC
# define XFS_SUPER_MAGIC 0x58465342
#endif

static enum inline_writes probe(int fd)
{
    struct stat kind;
    struct statfs found;

    if (fstat(fd, &kind) < 0) {
        return INLINE_WRITES_NEVER;
    }
    if (S_ISBLK(kind.st_mode)) {
        return INLINE_WRITES_NOWAIT;
    }
    if (fstatfs(fd, &found) < 0) {
        return INLINE_WRITES_NEVER;
    }
    switch ((uint32_t)found.f_type) {
    case EXT4_SUPER_MAGIC: /* of ext2 and ext3, too */
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC: return INLINE_WRITES_PLAIN;
    case XFS_SUPER_MAGIC: return INLINE_WRITES_NOWAIT;
    default: return INLINE_WRITES_NEVER;
    }
}

void inline_writer_probe(struct inline_writer *writer, int fd)
{
    writer->writes = probe(fd);
    atomic_init(&writer->again_ns, 0);
}

/* Watched by the clock. */
static ssize_t write_plain(struct inline_writer *writer,
                           int fd,
                           const struct iovec *iov,
                           int iov_count,
                           uint64_t offset)
{
    uint64_t start_ns = loop_now_ns();
    uint64_t end_ns;
    ssize_t count;

    if (start_ns <
        atomic_load_explicit(&writer->again_ns, memory_order_relaxed)) {
        return -EAGAIN;
    }
    count = file_pwritev_inline(fd, iov, iov_count, offset);
    end_ns = loop_now_ns();
    if (end_ns - start_ns > SLOW_NS) {
        atomic_store_explicit(&writer->again_ns, end_ns + PAUSE_NS,
                              memory_order_relaxed);
    }
    return count;
}

ssize_t inline_writer_try(struct inline_writer *writer,
                          int fd,
                          const struct iovec *iov,
                          int iov_count,
                          uint64_t bytes,
                          uint64_t offset)
{
    if (bytes > INLINE_WRITE_BYTES_MAX) {
        return -EAGAIN;
    }
    switch (writer->writes) {
    case INLINE_WRITES_NEVER: break;
    case INLINE_WRITES_NOWAIT:
        return file_try_pwritev(fd, iov, iov_count, offset);
    case INLINE_WRITES_PLAIN:
        return write_plain(writer, fd, iov, iov_count, offset);
    }
    return -EAGAIN;
}
