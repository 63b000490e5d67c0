/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/qmp_connect.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "repo/fd.h"

static int connect_unix(const char *path, GError **err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path)) {
        return error_set(err, -EINVAL,
                         "socket path '%s' is longer than the %zu bytes that "
                         "Linux allows",
                         path, sizeof(address.sun_path) - 1);
    }
    memcpy(address.sun_path, path, strlen(path));
    if (fd < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        (void)error_set_errno(err, -errno, "cannot reach the daemon at '%s'",
                              path);
        return -ECONNREFUSED;
    }
    return fd_steal(&fd);
}

/* connect() with a time limit; 0 or a negative errno. */
static int connect_within(int fd,
                          const struct addrinfo *to,
                          unsigned timeout_ms)
{
    struct pollfd wait = { .fd = fd, .events = POLLOUT };
    int error = 0;
    socklen_t length = sizeof(error);

    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS) {
        return -errno;
    }
    if (poll(&wait, 1, (int)timeout_ms) <= 0) {
        return -ETIMEDOUT;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        return -errno;
    }
    return -error;
}

static int connect_tcp(const char *host_port, unsigned timeout_ms, GError **err)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *found = NULL;
    const char *colon = strrchr(host_port, ':');
    int ret = -ECONNREFUSED;

    if (colon == NULL || colon == host_port || colon[1] == '\0') {
        return error_set(err, -EINVAL, "'%s' is no HOST:PORT", host_port);
    }
    g_autofree char *host = g_strndup(host_port, (gsize)(colon - host_port));
    size_t bytes = strlen(host);
    if (host[0] == '[' && host[bytes - 1] == ']') {
        host[bytes - 1] = '\0';
        memmove(host, host + 1, bytes - 1);
    }
    int code = getaddrinfo(host, colon + 1, &hints, &found);
    if (code != 0) {
        return error_set(err, -ECONNREFUSED,
                         "cannot look up the daemon's host '%s': %s", host,
                         gai_strerror(code));
    }
    for (struct addrinfo *to = found; to != NULL && ret < 0; to = to->ai_next) {
        auto_fd int fd = socket(to->ai_family,
                                to->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                to->ai_protocol);
        ret = fd < 0 ? -errno : connect_within(fd, to, timeout_ms);
        if (ret == 0) {
            ret = fd_steal(&fd);
        }
    }
    freeaddrinfo(found);
    if (ret < 0) {
        (void)error_set_errno(err, ret, "cannot reach the daemon at '%s'",
                              host_port);
        return -ECONNREFUSED;
    }
    return ret;
}

int qmp_connect(const char *address, unsigned timeout_ms, GError **err)
{
    if (g_str_has_prefix(address, "unix:")) {
        return connect_unix(address + strlen("unix:"), err);
    }
    if (g_str_has_prefix(address, "tcp:")) {
        return connect_tcp(address + strlen("tcp:"), timeout_ms, err);
    }
    if (strchr(address, '/') != NULL || strchr(address, ':') == NULL ||
        access(address, F_OK) == 0) {
        return connect_unix(address, err);
    }
    return connect_tcp(address, timeout_ms, err);
}
