/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A path that is taken is tried with a connection: refused means that its
 * process is gone, so the path is removed and bound anew. Between bind() and
 * listen() a live socket refuses, too, and two starting processes could remove
 * each other's; so all this is done under a lock (flock) on the directory.
 * Somebody else's lock on it is waited for only so long: then it goes without.
 *
 * The socket of a process that was killed just now may still answer. The kernel
 * tells who listens (SO_PEERCRED); is that process ending, we try again for a
 * while. When it still answers after that, someone has inherited the socket.
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
#include "loop/process.h"

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

/* Who is behind a path that is taken. */
enum owner {
    OWNER_ALIVE,  /* someone listens, or it is no socket */
    OWNER_ENDING, /* ... still, but that process is gone or going */
    OWNER_GONE,   /* the socket was left behind */
};

static bool listener_is_ending(int fd)
{
    struct ucred listener;
    socklen_t bytes = sizeof(listener);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &listener, &bytes) == 0 &&
           process_is_ending(listener.pid);
}

static enum owner find_owner(const struct sockaddr_un *address)
{
    enum owner owner = OWNER_ALIVE;
    struct stat stat;
    int fd;

    if (lstat(address->sun_path, &stat) < 0 || !S_ISSOCK(stat.st_mode)) {
        return OWNER_ALIVE;
    }
    fd = new_socket(NULL);
    if (fd < 0) {
        return OWNER_ALIVE;
    }
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
        owner = listener_is_ending(fd) ? OWNER_ENDING : OWNER_ALIVE;
    } else if (errno == ECONNREFUSED) {
        owner = OWNER_GONE;
    }
    close(fd);
    return owner;
}

/* One attempt, which takes over from an owner that is gone. */
static int try_bind_path(int fd,
                         const struct sockaddr_un *address,
                         enum owner *ret_owner)
{
    int lock_fd = lock_directory(address->sun_path);
    int ret = bind_and_listen(fd, address, sizeof(*address));

    *ret_owner = OWNER_ALIVE;
    if (ret == -EADDRINUSE) {
        *ret_owner = find_owner(address);
    }
    if (*ret_owner == OWNER_GONE) {
        ret = unlink(address->sun_path) < 0
                  ? -errno
                  : bind_and_listen(fd, address, sizeof(*address));
    }
    unlock_directory(lock_fd);
    return ret;
}

static int bind_path(int fd, const struct sockaddr_un *address)
{
    for (int i = 0;; i++) {
        enum owner owner;
        int ret = try_bind_path(fd, address, &owner);

        if (owner != OWNER_ENDING || i == PROCESS_ENDING_TRIES) {
            return ret;
        }
        g_usleep(PROCESS_ENDING_PAUSE_US);
    }
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
    if (find_owner(&address) == OWNER_GONE) {
        (void)unlink(path); /* nobody to tell, and no harm if it stays */
    }
    unlock_directory(lock_fd);
}
