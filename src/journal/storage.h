/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The seam between the journal and what keeps its files.
 *
 * Everything that the room journal reads or writes beside the guest's image
 * goes through these operations: tracking files, the commit log, the state
 * directory. Two implementations: storage_real (the file system), and the
 * tests' storage in memory, which crashes on demand and then has lost, kept,
 * torn or reordered whatever was not synced.
 *
 * What may be relied on after power loss, and nothing else:
 *   - Written data is durable once a co_storage_sync() that began after the
 *     write has succeeded. Before, each sector of STORAGE_SECTOR_BYTES is, by
 *     itself, the old one or the new one.
 *   - A name (created, renamed, unlinked) is durable once a
 *     co_storage_sync_directory() of its directory that began later has
 *     succeeded. Before, it may be there, or not.
 *   - After a failed sync nothing is known of what was written since the last
 *     good one, and a later sync that succeeds says nothing about it: a failed
 *     sync is final.
 *   - Of several syncs of one open file at once, one may be told of an error for
 *     all. Opened again (co_storage_open_again()), a file is told by itself, if
 *     need be later than the others.
 * What was read may come from a cache and not be durable.
 * After a mere kill of the process everything written is there.
 *
 * Paths are absolute or relative to the working directory, UTF-8 or not; a
 * directory is given without a trailing slash.
 *
 * Coroutines of any loop; one file may be used by several at once. A failing
 * call returns a negative errno (and sets err where there is one: what failed,
 * on which path, why). Random numbers come from loop_random().
 */
#ifndef JOURNAL_STORAGE_H
#define JOURNAL_STORAGE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define STORAGE_SECTOR_BYTES  512
#define STORAGE_BOOT_ID_BYTES 16

struct storage;
struct storage_file;

enum storage_open_flags {
    STORAGE_WRITABLE = 1 << 0, /* else read only */
    STORAGE_CREATE = 1 << 1,   /* must not exist: -EEXIST; implies WRITABLE */
};

enum storage_kind {
    STORAGE_REGULAR,
    STORAGE_DIRECTORY,
    STORAGE_BLOCK_DEVICE,
    STORAGE_OTHER,
};

/* What identifies a file and tells that it was changed. Times are nanoseconds
 * since the epoch, INT64_MIN: the file system does not say. */
struct storage_stat {
    enum storage_kind kind;
    uint64_t size_bytes; /* of a block device: its capacity */
    uint64_t device;
    uint64_t inode;
    int64_t modified_ns;
    int64_t changed_ns;
    int64_t born_ns;
    /* Block device: sectors written since boot (/sys/block), else 0. */
    uint64_t sectors_written;
};

struct storage_ops {
    int (*co_open)(struct storage *storage,
                   const char *path,
                   unsigned int flags,
                   struct storage_file **ret_file,
                   GError **err);
    /* The same file, whatever its name is by now, with no lock of its own. */
    int (*co_open_again)(struct storage_file *file,
                         struct storage_file **ret_file);
    /* Lets go of its lock, too. Makes nothing durable. */
    void (*co_close)(struct storage_file *file);
    /* All bytes: -ENODATA when the file ends before. */
    int (*co_read)(struct storage_file *file,
                   uint64_t offset,
                   void *buffer,
                   uint64_t bytes);
    /* All bytes; the file grows where needed. */
    int (*co_write)(struct storage_file *file,
                    uint64_t offset,
                    const void *buffer,
                    uint64_t bytes);
    /* The range reads as zeroes and writing to it needs no new space, as far as
     * a file system can promise that: written out, not only reserved. */
    int (*co_allocate)(struct storage_file *file,
                       uint64_t offset,
                       uint64_t bytes);
    int (*co_truncate)(struct storage_file *file, uint64_t bytes);
    int (*co_sync)(struct storage_file *file);
    int (*co_size)(struct storage_file *file, uint64_t *ret_bytes);
    int (*co_file_stat)(struct storage_file *file, struct storage_stat *ret);
    /* Against other openers, of this process or another, until closed; without
     * waiting: -EAGAIN when another holds it. Advisory. */
    int (*co_lock)(struct storage_file *file, bool exclusive);

    int (*co_stat)(struct storage *storage,
                   const char *path,
                   struct storage_stat *ret);
    /* Replaces what is at `to`. Both are in one directory. */
    int (*co_rename)(struct storage *storage, const char *from, const char *to);
    int (*co_unlink)(struct storage *storage, const char *path);
    int (*co_sync_directory)(struct storage *storage, const char *path);
    /* What co_stat() tells of a file is durable; co_sync() and a flush of a node
     * need not see to its times. */
    int (*co_sync_times)(struct storage *storage, const char *path);
    /* Names in the directory, without "." and "..", sorted; char *, owned by
     * the array. */
    int (*co_list)(struct storage *storage,
                   const char *path,
                   GPtrArray **ret_names);
    /* Mode 0700. -EEXIST if there is anything of that name. */
    int (*co_make_directory)(struct storage *storage, const char *path);
    /* Is the directory on a file system that lives in memory (tmpfs, ramfs)? */
    int (*co_is_volatile)(struct storage *storage,
                          const char *path,
                          bool *ret_volatile);
    /* Another after each boot of the machine. */
    int (*co_boot_id)(struct storage *storage,
                      uint8_t ret_id[STORAGE_BOOT_ID_BYTES]);
};

/* Embedded first by the implementation. */
struct storage {
    const struct storage_ops *ops;
};

struct storage_file {
    struct storage *storage;
    char *path; /* as opened; for error sentences */
};

/* The file system. Stateless, shared by all threads; never freed. */
struct storage *storage_real(void);

/* Short forms; see the operations. */
int co_storage_open(struct storage *storage,
                    const char *path,
                    unsigned int flags,
                    struct storage_file **ret_file,
                    GError **err);
int co_storage_open_again(struct storage_file *file,
                          struct storage_file **ret_file);
/* NULL is fine. Leaves NULL behind. */
void co_storage_close(struct storage_file **file);
int co_storage_read(struct storage_file *file,
                    uint64_t offset,
                    void *buffer,
                    uint64_t bytes);
int co_storage_write(struct storage_file *file,
                     uint64_t offset,
                     const void *buffer,
                     uint64_t bytes);
int co_storage_allocate(struct storage_file *file,
                        uint64_t offset,
                        uint64_t bytes);
int co_storage_truncate(struct storage_file *file, uint64_t bytes);
int co_storage_sync(struct storage_file *file);
int co_storage_size(struct storage_file *file, uint64_t *ret_bytes);
int co_storage_file_stat(struct storage_file *file, struct storage_stat *ret);
int co_storage_lock(struct storage_file *file, bool exclusive);
int co_storage_stat(struct storage *storage,
                    const char *path,
                    struct storage_stat *ret);
/* Whether a rename that failed with this negative errno may have happened all the
 * same. What the kernel refuses before it begins has not; an error of the disk, or
 * of a server, may come when it is done. */
bool storage_rename_may_hold(int error);
int co_storage_rename(struct storage *storage,
                      const char *from,
                      const char *to);
int co_storage_unlink(struct storage *storage, const char *path);
int co_storage_sync_directory(struct storage *storage, const char *path);
int co_storage_sync_times(struct storage *storage, const char *path);
int co_storage_list(struct storage *storage,
                    const char *path,
                    GPtrArray **ret_names);
int co_storage_make_directory(struct storage *storage, const char *path);
int co_storage_is_volatile(struct storage *storage,
                           const char *path,
                           bool *ret_volatile);
int co_storage_boot_id(struct storage *storage,
                       uint8_t ret_id[STORAGE_BOOT_ID_BYTES]);

/* The whole file, at most `limit_bytes` (-EFBIG); freed with g_free(). */
int co_storage_read_all(struct storage_file *file,
                        uint64_t limit_bytes,
                        void **ret_data,
                        uint64_t *ret_bytes);

#endif
