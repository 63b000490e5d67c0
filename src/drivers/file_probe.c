/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a file system wants and can. Runs on the offload pool.
 *
 * The kernel tells what direct I/O needs (statx, Linux 6.1); an older one, or
 * a file system that does not answer, is tried with reads of growing size.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "drivers/file_priv.h"

#define PROBE_BYTES_MAX 65536

static bool ask_kernel(int fd, uint32_t *ret_offset, uint32_t *ret_memory)
{
    struct statx found = { 0 };

    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &found) < 0 ||
        (found.stx_mask & STATX_DIOALIGN) == 0 ||
        !is_power_of_two(found.stx_dio_offset_align) ||
        !is_power_of_two(found.stx_dio_mem_align)) {
        return false;
    }
    *ret_offset = found.stx_dio_offset_align;
    *ret_memory = found.stx_dio_mem_align;
    return true;
}

/* The smallest read that is not refused. An empty file refuses none. */
static int try_reads(int fd, uint32_t *ret_offset)
{
    void *buffer = NULL;
    int ret = -EINVAL;

    if (posix_memalign(&buffer, PROBE_BYTES_MAX, PROBE_BYTES_MAX) != 0) {
        return -ENOMEM;
    }
    for (uint32_t bytes = 512; bytes <= PROBE_BYTES_MAX; bytes *= 2) {
        if (pread(fd, buffer, bytes, 0) >= 0) {
            *ret_offset = bytes;
            ret = 0;
            break;
        }
        if (errno != EINVAL) {
            ret = -errno;
            break;
        }
    }
    free(buffer);
    return ret;
}

int file_probe_direct(int fd,
                      bool is_device,
                      uint32_t *ret_offset_alignment_bytes,
                      uint32_t *ret_memory_alignment_bytes)
{
    uint32_t offset_bytes = 0;
    uint32_t memory_bytes = 0;
    int sector_bytes = 0;

    if (ask_kernel(fd, &offset_bytes, &memory_bytes)) {
        *ret_offset_alignment_bytes = offset_bytes;
        *ret_memory_alignment_bytes = memory_bytes;
        return 0;
    }
    if (is_device && ioctl(fd, BLKSSZGET, &sector_bytes) == 0 &&
        sector_bytes > 0 && is_power_of_two((uint64_t)sector_bytes)) {
        offset_bytes = (uint32_t)sector_bytes;
    } else {
        int ret = try_reads(fd, &offset_bytes);

        if (ret < 0) {
            return ret;
        }
    }
    *ret_offset_alignment_bytes = offset_bytes;
    *ret_memory_alignment_bytes = offset_bytes;
    return 0;
}
