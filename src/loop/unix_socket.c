/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A path that is taken is tried with a connection: refused means that its
 * process is gone, so the path is removed and bound anew. Between bind() and
 * listen() a live socket refuses, too, and two starting processes could remove
 * each other's; so all this is done under a lock (flock) on the directory.
 * Somebody else's lock on it is waited for only so long: then it goes without.
 */
#include "loop/unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"

#define LOCK_TRIES    50
#define LOCK_PAUSE_US 10000

/* The lock on the directory of `path`: a descriptor to close, or -1. */
static int lock_directory(const char *path)
{
    g_autofree char *directory = g_path_get_dirname(path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (int i = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (i == LOCK_TRIES) {
            close(fd);
            return -1;
        }
        g_usleep(LOCK_PAUSE_US);
    }
    return fd;
}

static void unlock_directory(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static int set_path(struct sockaddr_un *address, const char *path, GError **err)
{
    size_t length = strlen(path);

    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (length == 0) {
        return error_set(err, -EINVAL, "The path of a UNIX socket is empty");
    }
    if (length >= sizeof(address->sun_path)) {
        return error_set(err, -ENAMETOOLONG,
                         "UNIX socket path '%s' has %zu bytes; at most %zu "
                         "are possible",
                         path, length, sizeof(address->sun_path) - 1);
    }
    memcpy(address->sun_path, path, length);
    return 0;
}

static int new_socket(GError **err)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    return fd >= 0 ? fd
                   : error_set_errno(err, -errno, "Cannot create a socket");
}

static int bind_and_listen(int fd,
                           const struct sockaddr_un *address,
                           socklen_t bytes)
{
    return bind(fd, (const struct sockaddr *)address, bytes) < 0 ||
                   listen(fd, SOMAXCONN) < 0
               ? -errno
               : 0;
}

/* Is there a socket at the address that its process has left behind? */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat stat;
    bool refused;
    int fd;

    if (lstat(address->sun_path, &stat) < 0 || !S_ISSOCK(stat.st_mode)) {
        return false;
    }
    fd = new_socket(NULL);
    if (fd < 0) {
        return false;
    }
    refused =
        connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
        errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int bind_path(int fd, const struct sockaddr_un *address)
{
    int lock_fd = lock_directory(address->sun_path);
    int ret = bind_and_listen(fd, address, sizeof(*address));

    if (ret == -EADDRINUSE && is_stale(address)) {
        ret = unlink(address->sun_path) < 0
                  ? -errno
                  : bind_and_listen(fd, address, sizeof(*address));
    }
    unlock_directory(lock_fd);
    return ret;
}

static int refuse(int ret, const char *path, GError **err)
{
    struct stat stat;

    if (ret != -EADDRINUSE) {
        return error_set_errno(err, ret, "Cannot listen on UNIX socket '%s'",
                               path);
    }
    if (lstat(path, &stat) == 0 && !S_ISSOCK(stat.st_mode)) {
        return error_set(err, ret,
                         "Cannot listen on UNIX socket '%s': there is a file "
                         "of this name that is not a socket",
                         path);
    }
    return error_set(err, ret,
                     "Cannot listen on UNIX socket '%s': it is in use by a "
                     "running process",
                     path);
}

int unix_socket_listen_path(const char *path, GError **err)
{
    struct sockaddr_un address;
    int ret = set_path(&address, path, err);
    int fd;

    if (ret < 0) {
        return ret;
    }
    fd = new_socket(err);
    if (fd < 0) {
        return fd;
    }
    ret = bind_path(fd, &address);
    if (ret < 0) {
        close(fd);
        return refuse(ret, path, err);
    }
    return fd;
}

int unix_socket_listen_abstract(const char *name, bool tight, GError **err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t length = strlen(name);
    int fd;
    int ret;

    if (length == 0 || length >= sizeof(address.sun_path)) {
        return error_set(err, -EINVAL,
                         "The name of an abstract UNIX socket has 1 to %zu "
                         "bytes; '%s' has %zu",
                         sizeof(address.sun_path) - 1, name, length);
    }
    memcpy(address.sun_path + 1, name, length);
    fd = new_socket(err);
    if (fd < 0) {
        return fd;
    }
    ret = bind_and_listen(
        fd, &address,
        tight ? (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)
              : (socklen_t)sizeof(address));
    if (ret < 0) {
        close(fd);
        return error_set_errno(
            err, ret, "Cannot listen on abstract UNIX socket '%s'", name);
    }
    return fd;
}

void unix_socket_remove_stale(const char *path)
{
    struct sockaddr_un address;
    int lock_fd;

    if (set_path(&address, path, NULL) < 0) {
        return;
    }
    lock_fd = lock_directory(path);
    if (is_stale(&address)) {
        (void)unlink(path); /* nobody to tell, and no harm if it stays */
    }
    unlock_directory(lock_fd);
}
