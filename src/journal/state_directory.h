/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state directory: where a daemon keeps what concerns several disks.
 *
 * The commit log is here (docs/reference/commit-log.md, "Files"), and tracking
 * files of what has no directory of its own. Several daemons may share one.
 *
 *     path = state_directory_choose(...);
 *     co_state_directory_open(storage, path, false, &directory, &err)
 *
 * Files come into being whole: written under another name, synced, renamed, the
 * directory synced. A run with durability `process` leaves out the syncs of its own
 * log; what concerns others is always synced.
 *
 * Coroutines of any loop.
 */
#ifndef JOURNAL_STATE_DIRECTORY_H
#define JOURNAL_STATE_DIRECTORY_H

#include "journal/storage.h"

typedef struct state_directory state_directory;
struct state_directory;

/* What decides where it is; each may be NULL. */
struct state_directory_places {
    const char *option;          /* --state-dir */
    const char *state_directory; /* $STATE_DIRECTORY: the first of a list */
    const char *xdg_state_home;  /* $XDG_STATE_HOME */
    const char *home;            /* $HOME */
    bool is_root;
};

/* The first of: the option, $STATE_DIRECTORY, /var/lib/cohort for root,
 * $XDG_STATE_HOME/cohort, $HOME/.local/state/cohort. Owned by the caller; NULL
 * with err set if none is known, or a path is not absolute (the option may be
 * relative). Pure. */
char *state_directory_choose(const struct state_directory_places *places,
                             GError **err);

/* Opens it, and makes it and its missing parents (mode 0700), durably. Refuses
 * a file system that lives in memory unless `is_process` (durability). */
int co_state_directory_open(struct storage *storage,
                            const char *path,
                            bool is_process,
                            struct state_directory **ret_directory,
                            GError **err);
/* NULL is fine. */
void state_directory_free(struct state_directory *directory);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(state_directory, state_directory_free)

struct storage *state_directory_storage(
    const struct state_directory *directory);
const char *state_directory_path(const struct state_directory *directory);
bool state_directory_is_process(const struct state_directory *directory);
const uint8_t *state_directory_boot_id(const struct state_directory *directory);
/* The path of a file in it; owned by the caller. */
char *state_directory_file(const struct state_directory *directory,
                           const char *name);

/* Waits for `commit.lock`, at most STATE_LOCK_WAIT_NS: -EBUSY then, with a
 * sentence. Closing the file gives it back. */
#define STATE_LOCK_WAIT_NS UINT64_C(10000000000)
int co_state_directory_lock(struct state_directory *directory,
                            struct storage_file **ret_lock,
                            GError **err);

enum state_put_flags {
    STATE_PUT_LOCKED = 1 << 0,   /* locked since before it has its name */
    STATE_PUT_UNSYNCED = 1 << 1, /* whole, but not durable */
};

/* Makes file `name`, with this content and durable; replaces one of that name.
 * `ret_file` not NULL: it stays open (and locked). `ret_maybe` (may be NULL) is
 * set on failure: the file may have got its name after all, durably or not. */
int co_state_directory_put(struct state_directory *directory,
                           const char *name,
                           const GByteArray *content,
                           unsigned int flags,
                           struct storage_file **ret_file,
                           bool *ret_maybe,
                           GError **err);
/* The whole file, at most `limit_bytes`; -ENOENT if there is none. */
int co_state_directory_get(struct state_directory *directory,
                           const char *name,
                           uint64_t limit_bytes,
                           GByteArray **ret_content,
                           GError **err);
/* Removes a file; not durable by itself. No error when there is none. */
int co_state_directory_remove(struct state_directory *directory,
                              const char *name,
                              GError **err);
int co_state_directory_sync(struct state_directory *directory, GError **err);

#endif
