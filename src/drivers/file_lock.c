/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Image locks: telling other processes what we do with an image.
 *
 * The protocol is QEMU's, so that a running QEMU and we exclude each other. A
 * permission is a number n: 0 consistent read, 1 write, 3 resize. Who holds
 * permission n has a shared OFD lock on byte 100 + n of the file; who does not
 * let others have it, on byte 200 + n. The locks never block: having taken its
 * own, everyone looks whether someone else holds a contrary byte, and if so
 * gives up. So two that come at the same time may both give up, never neither.
 *
 * What a process held that was killed just now may stay locked for a moment
 * (loop/process.h). So if no process can be found that holds a contrary byte, or
 * one that is ending, we wait a little for it to go.
 *
 * Resizing is held for as long as it takes, and refused while any other opener
 * relies on the size.
 *
 * We read and, if the image is writable, write; we let nobody resize, and if
 * writable let nobody else write, since bitmaps would not see it
 * (docs/decisions/006-image-locking.md).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/error.h"
#include "drivers/file_priv.h"
#include "loop/process.h"

enum shared_permission {
    SHARE_READ = 0,
    SHARE_WRITE = 1,
    SHARE_RESIZE = 3,
};

#define HELD_BYTE(permission)     (100 + (permission))
#define UNSHARED_BYTE(permission) (200 + (permission))

/* Bytes we lock, and bytes that nobody else may have locked; -1 ends. */
static const int read_locks[] = { HELD_BYTE(SHARE_READ),
                                  UNSHARED_BYTE(SHARE_RESIZE), -1 };
static const int read_contrary[] = { UNSHARED_BYTE(SHARE_READ),
                                     HELD_BYTE(SHARE_RESIZE), -1 };
static const int write_locks[] = { HELD_BYTE(SHARE_READ),
                                   HELD_BYTE(SHARE_WRITE),
                                   UNSHARED_BYTE(SHARE_WRITE),
                                   UNSHARED_BYTE(SHARE_RESIZE), -1 };
static const int write_contrary[] = { UNSHARED_BYTE(SHARE_READ),
                                      UNSHARED_BYTE(SHARE_WRITE),
                                      HELD_BYTE(SHARE_WRITE),
                                      HELD_BYTE(SHARE_RESIZE), -1 };

static const char *describe_contrary(int byte)
{
    switch (byte) {
    case HELD_BYTE(SHARE_WRITE): return "may write to it";
    case HELD_BYTE(SHARE_RESIZE): return "may resize it";
    case UNSHARED_BYTE(SHARE_READ): return "lets nobody else read it";
    case UNSHARED_BYTE(SHARE_WRITE): return "lets nobody else write to it";
    case UNSHARED_BYTE(SHARE_RESIZE): return "lets nobody resize it";
    default: return "uses it";
    }
}

/* Does a "lock:" line of /proc/PID/fdinfo/FD tell of an OFD lock on `byte` of
 * that inode? */
static bool line_has_lock(const char *line, const struct stat *image, int byte)
{
    unsigned int major_number;
    unsigned int minor_number;
    unsigned long long inode;
    unsigned long long first;
    char last[32];

    if (sscanf(line, "lock: %*d: OFDLCK %*s %*s %*d %x:%x:%llu %llu %31s",
               &major_number, &minor_number, &inode, &first, last) != 5) {
        return false;
    }
    return makedev(major_number, minor_number) == image->st_dev &&
           inode == image->st_ino && first <= (unsigned long long)byte &&
           (strcmp(last, "EOF") == 0 ||
            g_ascii_strtoull(last, NULL, 10) >= (unsigned long long)byte);
}

static bool descriptor_has_lock(const char *path,
                                const struct stat *image,
                                int byte)
{
    char line[256];
    bool found = false;
    FILE *file = fopen(path, "re");

    if (file == NULL) {
        return false;
    }
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        found = line_has_lock(line, image, byte);
    }
    (void)fclose(file); /* was only read */
    return found;
}

/* `except_fd`: a descriptor to leave out, as text; NULL: none. */
static bool process_has_lock(const char *pid,
                             const struct stat *image,
                             int byte,
                             const char *except_fd)
{
    g_autofree char *folder = g_strdup_printf("/proc/%s/fdinfo", pid);
    DIR *directory = opendir(folder);
    bool found = false;
    const struct dirent *entry;

    if (directory == NULL) {
        return false; /* gone, or not ours to look at */
    }
    while (!found && (entry = readdir(directory)) != NULL) {
        g_autofree char *path = g_strdup_printf("%s/%s", folder, entry->d_name);

        found = g_ascii_isdigit(entry->d_name[0]) &&
                g_strcmp0(entry->d_name, except_fd) != 0 &&
                descriptor_has_lock(path, image, byte);
    }
    (void)closedir(directory);
    return found;
}

/* "process 4711 (qemu-system-x86)", or less if that cannot be found out. */
static char *describe_process(const char *pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/comm", pid);
    g_autofree char *command = NULL;

    if (!g_file_get_contents(path, &command, NULL, NULL)) {
        return g_strdup_printf("process %s", pid);
    }
    return g_strdup_printf("process %s (%s)", pid, g_strstrip(command));
}

/* Who has the byte locked, in words: an OFD lock belongs to no process, so we
 * look who has it open. Owned by the caller; NULL: nobody that we can see. Also
 * tells whether that process is ending. */
static char *find_holder(int fd, int byte, bool *ret_ending)
{
    g_autofree char *own_pid = g_strdup_printf("%d", (int)getpid());
    g_autofree char *own_fd = g_strdup_printf("%d", fd);
    char *holder = NULL;
    const struct dirent *entry;
    struct stat image;
    DIR *directory;

    *ret_ending = false;
    if (fstat(fd, &image) < 0 || (directory = opendir("/proc")) == NULL) {
        return g_strdup("another process");
    }
    while (holder == NULL && (entry = readdir(directory)) != NULL) {
        bool own = strcmp(entry->d_name, own_pid) == 0;

        if (!g_ascii_isdigit(entry->d_name[0]) ||
            !process_has_lock(entry->d_name, &image, byte,
                              own ? own_fd : NULL)) {
            continue;
        }
        *ret_ending =
            process_is_ending((pid_t)g_ascii_strtoll(entry->d_name, NULL, 10));
        holder = own ? g_strdup("another node of this process")
                     : describe_process(entry->d_name);
    }
    (void)closedir(directory);
    return holder;
}

static int set_lock(int fd, int byte, short type)
{
    struct flock lock = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = byte,
        .l_len = 1,
    };

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Has anyone else locked the byte? */
static bool is_byte_taken(int fd, int byte)
{
    struct flock lock = {
        .l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = byte,
        .l_len = 1,
    };

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* The first contrary byte that someone else has locked; -1: none. */
static int find_taken(int fd, const int *contrary)
{
    while (*contrary >= 0 && !is_byte_taken(fd, *contrary)) {
        contrary++;
    }
    return *contrary;
}

static int refuse(int fd, const char *filename, int byte, GError **err)
{
    bool ending;
    g_autofree char *holder = find_holder(fd, byte, &ending);

    return error_set(err, -EBUSY,
                     "the image '%s' is in use by %s, which %s; end that use "
                     "first, or only read the image with read-only=on and "
                     "force-share=on",
                     filename, holder != NULL ? holder : "another process",
                     describe_contrary(byte));
}

static int check_contrary(int fd,
                          const char *filename,
                          const int *contrary,
                          GError **err)
{
    int byte = find_taken(fd, contrary);
    bool ending = false;
    g_autofree char *holder = byte >= 0 ? find_holder(fd, byte, &ending) : NULL;

    if (holder == NULL || ending) {
        for (int i = 0; byte >= 0 && i < PROCESS_ENDING_TRIES; i++) {
            g_usleep(PROCESS_ENDING_PAUSE_US);
            byte = find_taken(fd, contrary);
        }
    }
    return byte >= 0 ? refuse(fd, filename, byte, err) : 0;
}

int file_lock_take(int fd,
                   const char *filename,
                   bool writable,
                   bool required,
                   GError **err)
{
    const int *locks = writable ? write_locks : read_locks;
    const int *contrary = writable ? write_contrary : read_contrary;

    for (; *locks >= 0; locks++) {
        int ret = set_lock(fd, *locks, F_RDLCK);

        if (ret == -EAGAIN || ret == -EACCES) {
            return error_set(err, -EBUSY,
                             "the image '%s' is locked as a whole by another "
                             "process",
                             filename);
        }
        if (ret < 0 && !required) {
            return 0; /* locking=auto, and this file system has no locks */
        }
        if (ret < 0) {
            return error_set_errno(
                err, ret, "cannot lock the image '%s' (locking=on)", filename);
        }
    }
    return check_contrary(fd, filename, contrary, err);
}

void file_lock_release(int fd)
{
    struct flock all = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

    (void)fcntl(fd, F_OFD_SETLK, &all); /* as in file_lock_end_resize() */
}

int file_lock_begin_resize(int fd, const char *filename, GError **err)
{
    g_autofree char *holder = NULL;
    bool ending = false;
    int ret = set_lock(fd, HELD_BYTE(SHARE_RESIZE), F_RDLCK);

    if (ret < 0 && ret != -EAGAIN && ret != -EACCES) {
        return 0; /* no locks here, which opening has allowed */
    }
    if (ret == 0 && !is_byte_taken(fd, UNSHARED_BYTE(SHARE_RESIZE))) {
        return 0;
    }
    file_lock_end_resize(fd);
    holder = find_holder(fd, UNSHARED_BYTE(SHARE_RESIZE), &ending);
    return error_set(err, -EBUSY,
                     "cannot resize the image '%s': it is in use by %s, which "
                     "%s; end that use first",
                     filename, holder != NULL ? holder : "another process",
                     describe_contrary(UNSHARED_BYTE(SHARE_RESIZE)));
}

void file_lock_end_resize(int fd)
{
    /* Cannot fail where locking could be done. */
    (void)set_lock(fd, HELD_BYTE(SHARE_RESIZE), F_UNLCK);
}

int file_lock_begin_unwritten(int fd, const char *filename, GError **err)
{
    static const int contrary[] = { HELD_BYTE(SHARE_WRITE), -1 };
    int ret = set_lock(fd, UNSHARED_BYTE(SHARE_WRITE), F_RDLCK);

    if (ret < 0 && ret != -EAGAIN && ret != -EACCES) {
        return 0; /* no locks here, which opening has allowed */
    }
    ret = check_contrary(fd, filename, contrary, err);
    if (ret < 0) {
        file_lock_end_unwritten(fd);
    }
    return ret;
}

void file_lock_end_unwritten(int fd)
{
    (void)set_lock(fd, UNSHARED_BYTE(SHARE_WRITE), F_UNLCK); /* as above */
}
