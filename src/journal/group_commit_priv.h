/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the coordinator, for the files of this folder. */
#ifndef JOURNAL_GROUP_COMMIT_PRIV_H
#define JOURNAL_GROUP_COMMIT_PRIV_H

#include "base/list.h"
#include "journal/group_commit.h"
#include "loop/co_lock.h"

/* A transaction of this run that someone may still ask for. */
struct known_transaction {
    struct list link; /* coordinator.known, newest first */
    struct commit_transaction *transaction; /* owned */
    enum group_state state;
    bool has_group; /* not ended yet: it stays, also if nobody will ask */
    char *doubt;    /* why it is in doubt; NULL: it is not */
};

struct coordinator {
    struct storage *storage;
    char *path;
    GError *path_error;
    bool is_process;
    coordinator_event_fn event;
    void *opaque;

    struct co_mutex opening;
    struct state_directory *directory; /* NULL: not opened yet */
    struct commit_log *log;            /* NULL likewise */
    struct list known;
    size_t groups;

    GByteArray *acknowledged; /* records to be written */
    bool writes_acknowledged;
    struct co_queue idle; /* woken when that ends, and when a group does */

    bool lets_go;
    struct co_queue doubters; /* woken when that is set */
};

struct group_commit {
    struct coordinator *coordinator;
    struct known_transaction *known;
    GArray *members; /* struct group_participant */
    bool begun;
    struct log_segment segment;
};

/* What is called back for a member. */
struct group_participant {
    const struct group_member_ops *ops;
    void *opaque;
};

/* Takes it off the list if nobody will ask for it again; true: it did. */
bool coordinator_drop_if_over(struct known_transaction *known);

#endif
