/* SPDX-License-Identifier: BSD-3-Clause */
#include "daemon/chardev.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "base/error.h"
#include "block/node.h"
#include "loop/socket_address.h"

static const char *const backend_values[] = { "socket", NULL };
static const struct schema_type backend_type = {
    .kind = SCHEMA_ENUM,
    .name = "ChardevBackendKind",
    .values = backend_values,
};
static const struct schema_member common_members[] = {
    { .name = "backend", .type = &backend_type, .required = true },
    { .name = "id", .type = &schema_string, .required = true },
    { .name = NULL },
};
static const struct schema_member socket_members[] = {
    { .name = "path", .type = &schema_string },
    { .name = "abstract", .type = &schema_bool },
    { .name = "tight", .type = &schema_bool },
    { .name = "host", .type = &schema_string },
    { .name = "port", .type = &schema_string },
    { .name = "to", .type = &schema_uint32 },
    { .name = "ipv4", .type = &schema_bool },
    { .name = "ipv6", .type = &schema_bool },
    { .name = "fd", .type = &schema_string },
    { .name = "server", .type = &schema_bool, .fallback = "off" },
    { .name = "wait", .type = &schema_bool, .fallback = "on" },
    { .name = NULL },
};
static const struct schema_type socket_type = {
    .kind = SCHEMA_STRUCT,
    .name = "ChardevSocket",
    .members = socket_members,
};
static const struct schema_branch backend_branches[] = {
    { .value = "socket", .type = &socket_type },
    { .value = NULL },
};
const struct schema_type chardev_options_type = {
    .kind = SCHEMA_UNION,
    .name = "ChardevOptions",
    .members = common_members,
    .tag = "backend",
    .branches = backend_branches,
};

void chardev_list_init(struct chardev_list *list)
{
    list_init(&list->chardevs);
}

void chardev_list_release(struct chardev_list *list)
{
    for (struct list *link; (link = list_take_first(&list->chardevs));) {
        struct chardev *chardev = LIST_ENTRY(link, struct chardev, link);

        if (!chardev->has_monitor) {
            socket_close_listener(chardev->fd);
        }
        g_free(chardev->address);
        g_free(chardev->id);
        g_free(chardev);
    }
}

struct chardev *chardev_find(struct chardev_list *list,
                             const char *id,
                             GError **err)
{
    LIST_FOREACH(link, &list->chardevs) {
        struct chardev *chardev = LIST_ENTRY(link, struct chardev, link);

        if (g_str_equal(chardev->id, id)) {
            return chardev;
        }
    }
    error_set(err, -ENOENT,
              "there is no character device '%s' (give --chardev before it)",
              id);
    return NULL;
}

static int check_new(struct chardev_list *list,
                     const struct json_value *options,
                     GError **err)
{
    const char *id = json_dict_string(options, "id", NULL);

    if (!block_name_is_legal(id)) {
        return error_set(err, -EINVAL,
                         "'%s' is no id: it takes a letter, then letters, "
                         "digits, '-', '.' and '_'",
                         id);
    }
    if (chardev_find(list, id, NULL) != NULL) {
        return error_set(err, -EEXIST,
                         "there is a character device '%s' already", id);
    }
    if (!json_dict_bool(options, "server", false)) {
        return error_set(err, -ENOTSUP,
                         "character device '%s': give server=on; connecting "
                         "to somebody else's socket is not served",
                         id);
    }
    return 0;
}

static void copy_members(struct json_value *to,
                         const struct json_value *from,
                         const char *const *keys)
{
    for (; *keys != NULL; keys++) {
        const struct json_value *value = json_dict_get(from, *keys);

        if (value != NULL) {
            json_dict_set(to, *keys, json_copy(value));
        }
    }
}

/* The SocketAddress that the options mean; NULL with err set. */
static struct json_value *address_of(const struct json_value *options,
                                     GError **err)
{
    static const char *const unix_keys[] = { "path", "abstract", "tight",
                                             NULL };
    static const char *const inet_keys[] = { "host", "port", "to",
                                             "ipv4", "ipv6", NULL };
    bool is_unix = json_dict_get(options, "path") != NULL;
    bool is_inet = json_dict_get(options, "port") != NULL;
    bool is_fd = json_dict_get(options, "fd") != NULL;
    g_autoptr(json_value) address = json_dict_new();

    if (is_unix + is_inet + is_fd != 1) {
        error_set(err, -EINVAL,
                  "character device '%s': give one of path=PATH, "
                  "host=HOST,port=PORT and fd=NUMBER",
                  json_dict_string(options, "id", NULL));
        return NULL;
    }
    json_dict_set_string(address, "type",
                         is_unix   ? "unix"
                         : is_inet ? "inet"
                                   : "fd");
    if (is_fd) {
        json_dict_set_string(address, "str",
                             json_dict_string(options, "fd", NULL));
    }
    copy_members(address, options, is_unix ? unix_keys : inet_keys);
    if (schema_check(&socket_address_type, address, "chardev", err) < 0) {
        return NULL;
    }
    return g_steal_pointer(&address);
}

static int co_wait_for_client(const struct chardev *chardev,
                              struct io_canceller *canceller,
                              GError **err)
{
    int events;

    fprintf(stderr,
            "cohortd: waiting for a client on %s (wait=off starts at "
            "once)\n",
            chardev->address);
    events = co_poll(chardev->fd, POLLIN, canceller);
    if (events < 0) {
        return error_set_errno(err, events, "waiting for a client on %s",
                               chardev->address);
    }
    return 0;
}

int co_chardev_add(struct chardev_list *list,
                   const struct json_value *options,
                   struct io_canceller *canceller,
                   GError **err)
{
    g_autoptr(json_value) address = NULL;
    struct chardev *chardev;
    int rc = check_new(list, options, err);

    if (rc < 0) {
        return rc;
    }
    address = address_of(options, err);
    if (address == NULL) {
        return -EINVAL;
    }
    rc = co_socket_listen(address, err);
    if (rc < 0) {
        return rc;
    }
    chardev = g_new0(struct chardev, 1);
    chardev->fd = rc;
    chardev->id = g_strdup(json_dict_string(options, "id", NULL));
    chardev->address = socket_describe_listener(chardev->fd);
    list_append(&list->chardevs, &chardev->link);
    if (!json_dict_bool(options, "wait", true)) {
        return 0;
    }
    return co_wait_for_client(chardev, canceller, err);
}
