/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Character devices: listening sockets that carry monitors (--chardev).
 *
 * Main thread.
 */
#ifndef DAEMON_CHARDEV_H
#define DAEMON_CHARDEV_H

#include "base/list.h"
#include "base/schema.h"
#include "loop/io.h"

struct chardev {
    struct list link;
    char *id;
    char *address;    /* for people */
    int fd;           /* the listening socket */
    bool has_monitor; /* which has taken the socket over */
};

struct chardev_list {
    struct list chardevs;
};

/* What --chardev takes. */
extern const struct schema_type chardev_options_type;

void chardev_list_init(struct chardev_list *list);
/* Closes what no monitor has taken over, and forgets all. */
void chardev_list_release(struct chardev_list *list);

/* Begins to listen. `options` is checked. With wait=on (the default) returns
 * when a client has come, or -ECANCELED. */
int co_chardev_add(struct chardev_list *list,
                   const struct json_value *options,
                   struct io_canceller *canceller,
                   GError **err);
/* NULL with err set: there is none of that id. */
struct chardev *chardev_find(struct chardev_list *list,
                             const char *id,
                             GError **err);

#endif
