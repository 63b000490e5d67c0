/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Listening. A TCP address is looked up, its candidates are put in order of
 * preference (socket_address.h), and each port of the range is tried on each
 * candidate until one takes; the error told is that of the last attempt.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/coroutine.h"
#include "loop/socket_address.h"
#include "loop/unix_socket.h"

#define PORT_MAX 65535

struct inet_request {
    const char *host;
    const char *port;
    int family; /* AF_UNSPEC: either */
    bool dual;  /* an IPv6 wildcard takes IPv4, too */
    bool numeric;
    bool keep_alive;
    uint64_t port_last; /* of the range; 0: no range */
    char text[300];     /* for errors */
};

static int read_families(const struct json_value *address,
                         struct inet_request *request,
                         GError **err)
{
    bool names_4 = json_dict_get(address, "ipv4") != NULL;
    bool names_6 = json_dict_get(address, "ipv6") != NULL;
    /* To name only one says what the other is: its opposite. */
    bool use_4 = json_dict_bool(
        address, "ipv4", !(names_6 && json_dict_bool(address, "ipv6", true)));
    bool use_6 = json_dict_bool(
        address, "ipv6", !(names_4 && json_dict_bool(address, "ipv4", true)));

    if (!use_4 && !use_6) {
        return error_set(err, -EINVAL,
                         "Cannot listen on %s: both 'ipv4' and 'ipv6' are off",
                         request->text);
    }
    request->dual = use_4 && use_6;
    request->family = request->dual ? AF_UNSPEC : use_4 ? AF_INET : AF_INET6;
    return 0;
}

static int read_inet(const struct json_value *address,
                     struct inet_request *request,
                     GError **err)
{
    guint64 first;

    request->host = json_dict_string(address, "host", "");
    request->port = json_dict_string(address, "port", "");
    request->numeric = json_dict_bool(address, "numeric", false);
    request->keep_alive = json_dict_bool(address, "keep-alive", false);
    request->port_last = json_dict_uint(address, "to", 0);
    g_snprintf(request->text, sizeof(request->text),
               strchr(request->host, ':') != NULL ? "[%s]:%s" : "%s:%s",
               request->host, request->port);
    if (*request->port == '\0') {
        return error_set(err, -EINVAL, "The port of a TCP address is empty");
    }
    if (g_ascii_isdigit(*request->port) &&
        !g_ascii_string_to_unsigned(request->port, 10, 0, PORT_MAX, &first,
                                    NULL)) {
        return error_set(err, -EINVAL, "Port '%s' is not a number from 0 to %d",
                         request->port, PORT_MAX);
    }
    if (json_dict_get(address, "to") != NULL &&
        (!g_ascii_string_to_unsigned(request->port, 10, 1, PORT_MAX, &first,
                                     NULL) ||
         request->port_last < first || request->port_last > PORT_MAX)) {
        return error_set(err, -EINVAL,
                         "Ports '%s' to %" G_GUINT64_FORMAT
                         " are not a range from 1 to %d",
                         request->port, request->port_last, PORT_MAX);
    }
    return read_families(address, request, err);
}

/* Which family's candidates come first. Only over IPv6 does one socket serve
 * both; a named host is met by more clients over IPv4. */
static int preferred_family(const struct inet_request *request)
{
    return *request->host == '\0' ? AF_INET6 : AF_INET;
}

static void set_port(struct sockaddr *address, uint16_t port)
{
    /* The port is in the same place for both families (RFC 3493, 3.3). */
    struct sockaddr_in *inet = (struct sockaddr_in *)(void *)address;

    inet->sin_port = htons(port);
}

static uint16_t get_port(const struct sockaddr *address)
{
    return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
}

static int try_candidate(const struct inet_request *request,
                         const struct addrinfo *candidate)
{
    const int one = 1;
    const int v6_only = !request->dual;
    int fd = socket(candidate->ai_family,
                    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int ret;

    if (fd < 0) {
        return -errno;
    }
    /* None of these fails on a fresh socket of the right family. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (candidate->ai_family == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only,
                         sizeof(v6_only));
    }
    if (request->keep_alive) { /* inherited by what is accepted */
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    }
    if (bind(fd, candidate->ai_addr, candidate->ai_addrlen) < 0 ||
        listen(fd, SOMAXCONN) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    return fd;
}

/* Each port of the range on each candidate of `family`. */
static int try_family(const struct inet_request *request,
                      const struct addrinfo *candidates,
                      bool preferred,
                      int previous_ret)
{
    int ret = previous_ret;

    for (const struct addrinfo *candidate = candidates; candidate != NULL;
         candidate = candidate->ai_next) {
        uint32_t first = get_port(candidate->ai_addr);
        uint32_t last = MAX(first, (uint32_t)request->port_last);

        if ((candidate->ai_family == preferred_family(request)) != preferred) {
            continue;
        }
        for (uint32_t port = first; port <= last; port++) {
            set_port(candidate->ai_addr, (uint16_t)port);
            ret = try_candidate(request, candidate);
            if (ret >= 0) {
                return ret;
            }
            if (ret != -EADDRINUSE) {
                break;
            }
        }
        set_port(candidate->ai_addr, (uint16_t)first);
    }
    return ret;
}

static int listen_inet(const struct json_value *address, GError **err)
{
    struct inet_request request = { .host = NULL };
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct addrinfo *candidates = NULL;
    int ret = read_inet(address, &request, err);

    if (ret < 0) {
        return ret;
    }
    hints.ai_family = request.family;
    hints.ai_flags = AI_PASSIVE;
    if (request.numeric) {
        hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    }
    ret = getaddrinfo(*request.host != '\0' ? request.host : NULL, request.port,
                      &hints, &candidates);
    if (ret != 0) {
        return error_set(err, -EADDRNOTAVAIL, "Cannot listen on %s: %s",
                         request.text, gai_strerror(ret));
    }
    ret = try_family(&request, candidates, true, -EADDRNOTAVAIL);
    if (ret < 0) {
        ret = try_family(&request, candidates, false, ret);
    }
    freeaddrinfo(candidates);
    if (ret < 0 && request.port_last != 0) {
        return error_set_errno(err, ret,
                               "Cannot listen on %s or any port up to "
                               "%" G_GUINT64_FORMAT,
                               request.text, request.port_last);
    }
    return ret < 0
               ? error_set_errno(err, ret, "Cannot listen on %s", request.text)
               : ret;
}

static int listen_unix(const struct json_value *address, GError **err)
{
    const char *path = json_dict_string(address, "path", "");

    if (json_dict_bool(address, "abstract", false)) {
        return unix_socket_listen_abstract(
            path, json_dict_bool(address, "tight", true), err);
    }
    if (json_dict_get(address, "tight") != NULL) {
        return error_set(err, -EINVAL,
                         "'tight' says something about abstract UNIX sockets; "
                         "'%s' is none",
                         path);
    }
    return unix_socket_listen_path(path, err);
}

static int get_socket_option(int fd, int option)
{
    int value = 0;
    socklen_t bytes = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) < 0 ? -errno
                                                                  : value;
}

static int adopt_fd(const struct json_value *address, GError **err)
{
    const char *text = json_dict_string(address, "str", "");
    guint64 number;
    int type;
    int fd;

    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXINT, &number, NULL)) {
        return error_set(err, -EINVAL,
                         "'%s' is not the number of a file descriptor", text);
    }
    type = get_socket_option((int)number, SO_TYPE);
    if (type < 0) {
        return error_set_errno(err, type, "Cannot listen on descriptor %s",
                               text);
    }
    if (type != SOCK_STREAM ||
        get_socket_option((int)number, SO_ACCEPTCONN) <= 0) {
        return error_set(err, -EINVAL,
                         "Cannot listen on descriptor %s: it is not a "
                         "listening stream socket",
                         text);
    }
    fd = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
    if (fd < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        int ret =
            error_set_errno(err, -errno, "Cannot use descriptor %s", text);

        if (fd >= 0) {
            close(fd);
        }
        return ret;
    }
    return fd;
}

int socket_listen(const struct json_value *address, GError **err)
{
    const char *type = json_dict_string(address, "type", "");
    const struct json_value *data = json_dict_get(address, "data");

    if (data == NULL) {
        data = address;
    }
    if (strcmp(type, "inet") == 0) {
        return listen_inet(data, err);
    }
    if (strcmp(type, "unix") == 0) {
        return listen_unix(data, err);
    }
    if (strcmp(type, "fd") == 0) {
        return adopt_fd(data, err);
    }
    return error_set(err, -EINVAL,
                     "Socket addresses of type '%s' are not served", type);
}

struct listening {
    const struct json_value *address;
    GError *err;
};

static int run_listen(void *opaque)
{
    struct listening *listening = opaque;

    return socket_listen(listening->address, &listening->err);
}

int co_socket_listen(const struct json_value *address, GError **err)
{
    struct listening listening = { .address = address };
    int ret = co_offload(run_listen, &listening);

    if (ret < 0) {
        g_propagate_error(err, listening.err);
    }
    return ret;
}

/* The bound address. Room for a NUL behind a path that fills its array. */
union any_address {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_in6 inet;
    char room[sizeof(struct sockaddr_un) + 1];
};

static bool get_address(int fd, union any_address *address, size_t *ret_bytes)
{
    socklen_t bytes = sizeof(*address) - 1;

    memset(address, 0, sizeof(*address));
    if (getsockname(fd, &address->any, &bytes) < 0) {
        return false;
    }
    *ret_bytes = bytes;
    return true;
}

void socket_close_listener(int fd)
{
    union any_address address;
    size_t bytes;
    bool is_path = get_address(fd, &address, &bytes) &&
                   address.any.sa_family == AF_UNIX &&
                   bytes > offsetof(struct sockaddr_un, sun_path) &&
                   address.local.sun_path[0] != '\0';

    close(fd);
    if (is_path) {
        unix_socket_remove_stale(address.local.sun_path);
    }
}

static int run_close(void *opaque)
{
    socket_close_listener(*(const int *)opaque);
    return 0;
}

void co_socket_close_listener(int fd)
{
    (void)co_offload(run_close, &fd); /* always 0 */
}

static char *describe_unix(const struct sockaddr_un *address, size_t bytes)
{
    const size_t start = offsetof(struct sockaddr_un, sun_path);

    if (bytes <= start) {
        return g_strdup("unix:(unnamed)");
    }
    if (address->sun_path[0] != '\0') {
        return g_strdup_printf("unix:%s", address->sun_path);
    }
    return g_strdup_printf("unix:@%.*s", (int)(bytes - start - 1),
                           address->sun_path + 1);
}

char *socket_describe_listener(int fd)
{
    union any_address address;
    size_t bytes;
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (!get_address(fd, &address, &bytes)) {
        return g_strdup("(no socket)");
    }
    if (address.any.sa_family == AF_UNIX) {
        return describe_unix(&address.local, bytes);
    }
    if (getnameinfo(&address.any, (socklen_t)bytes, host, sizeof(host), port,
                    sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return g_strdup("(unknown)");
    }
    return g_strdup_printf(
        address.any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
