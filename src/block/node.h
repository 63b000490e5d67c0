/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Block nodes and the graph they form.
 *
 * A node is an opened image or a layer over other nodes (its children). Nodes
 * that hang together form a piece; a piece has one home thread, whose loop runs
 * every request of its nodes. Graph structure (names, children, users, homes)
 * belongs to the main thread; what requests touch (hooks, gate, driver state)
 * belongs to the home thread. The main thread may touch the latter too while
 * the node is fenced or drained (block/fence.h).
 *
 * Unless said otherwise functions are for coroutines and callbacks of the main
 * thread.
 */
#ifndef BLOCK_NODE_H
#define BLOCK_NODE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "base/list.h"
#include "loop/loop.h"

struct block_driver;
struct block_graph;
struct block_node;

/* The graph of one daemon. `main` is the loop of the main thread; `iothreads`
 * (borrowed, `count` may be 0: then `main` does it all) are where pieces live,
 * in turn. `drivers` is a NULL-terminated table, borrowed. */
struct block_graph *block_graph_new(struct loop *main,
                                    const struct block_driver *const *drivers);
/* One more table, of drivers that build on what is above this room. */
void block_graph_add_drivers(struct block_graph *graph,
                             const struct block_driver *const *drivers);
/* Every node must be gone. */
void block_graph_free(struct block_graph *graph);

/* Who wants to know of nodes that come and go: opened by blockdev-add, or as
 * someone's child. Embedded by its owner; coroutines of the main thread. */
struct block_watcher {
    /* The node is open and has its size, but nobody can find it yet, so it has no
     * requests. A failure closes it again, and is why it cannot be opened. */
    int (*co_opened)(struct block_watcher *watcher,
                     struct block_node *node,
                     GError **err);
    /* The node will be closed, has no users and no requests, and still works. If
     * it `may_stay`, a failure keeps it open, as if nothing had been; else it is
     * closed whatever is returned, and `err` is NULL. */
    int (*co_closing)(struct block_watcher *watcher,
                      struct block_node *node,
                      bool may_stay,
                      GError **err);
};

/* Before the first node; at most one. Borrowed. */
void block_graph_set_watcher(struct block_graph *graph,
                             struct block_watcher *watcher);

/* Offers a loop as a home. Removing is refused (-EBUSY) while it is one. */
void block_graph_add_loop(struct block_graph *graph, struct loop *loop);
int block_graph_remove_loop(struct block_graph *graph,
                            struct loop *loop,
                            GError **err);
struct loop *block_graph_main(const struct block_graph *graph);
/* The loop of that name on offer as a home; NULL with err set (-ENOENT). */
struct loop *block_graph_find_loop(const struct block_graph *graph,
                                   const char *name,
                                   GError **err);

/* The lock that every command holds while it changes nodes, bitmaps, jobs or
 * exports, so that none sees another half done. Queries and job verbs do not
 * take it. Not recursive. */
void co_block_graph_lock(struct block_graph *graph);
void block_graph_unlock(struct block_graph *graph);

/* blockdev-add. `options` is a checked BlockdevOptions dict (borrowed); nested
 * children are opened with it. `needs_name`: refuse a missing node-name, as the
 * QMP command does. On success the graph owns the node until co_block_del();
 * `*ret_node` (may be NULL) is borrowed. On failure nothing is left behind. */
int co_block_add(struct block_graph *graph,
                 const struct json_value *options,
                 bool needs_name,
                 struct block_node **ret_node,
                 GError **err);

/* blockdev-del: refused while anyone uses the node, by the user's name. Nested
 * children that only this node used go with it. */
int co_block_del(struct block_graph *graph, const char *name, GError **err);

/* Deletes every node, parents first; for shut-down, when no user is left. */
void co_block_del_all(struct block_graph *graph);

/* The name of a node that is being closed; NULL: none is. Borrowed until the
 * caller yields. */
const char *block_closing(const struct block_graph *graph);

/* The node of that name; NULL with err set (GenericError). */
struct block_node *block_find(struct block_graph *graph,
                              const char *name,
                              GError **err);
/* Walk all nodes, newest first: pass NULL to begin; NULL at the end. Who yields
 * between two steps collects the names first: the node may be gone. */
struct block_node *block_next(struct block_graph *graph,
                              struct block_node *node);

/* Is `name` a legal node name, export id or job id (a letter, then letters,
 * digits, '-', '.', '_')? Pure. */
bool block_name_is_legal(const char *name);

/* What others may need to know of a node. Any thread may read the first four,
 * which never change while the node lives; size: home thread, or fenced. */
const char *block_name(const struct block_node *node);
const struct block_driver *block_driver_of(const struct block_node *node);
bool block_is_read_only(const struct block_node *node);
struct block_graph *block_graph_of(const struct block_node *node);
uint64_t block_size(const struct block_node *node);
/* The home may change between two requests, see struct block_user. */
struct loop *block_home(const struct block_node *node);
/* Child in a role ("file", "backing"), NULL: none. Main or home thread. */
struct block_node *block_child(const struct block_node *node, const char *role);
/* The name of the file that the node's image is in, as it was opened: the
 * node's own, else that of its first child (its `file`); NULL: it is in none.
 * Fixed while the node lives. */
const char *block_filename(const struct block_node *node);
/* Sets in `options`, of a node that is to take the place of `node`, what that
 * one has for cache, discard and tracking. */
void block_take_over_options(const struct block_node *node,
                             struct json_value *options);
/* Was it added by the user (blockdev-add), or opened as someone's child? */
bool block_is_named_by_user(const struct block_node *node);
/* What its options say of tracking (x-cohort-tracking, as it came); NULL: nothing.
 * Borrowed; for the watcher, the graph itself makes nothing of it. */
const struct json_value *block_tracking_options(const struct block_node *node);
/* Is a flush of it without effect, at least in part: does it have cache.no-flush,
 * or one that writes to it get to? Main thread. */
bool block_ignores_flushes(const struct block_node *node);
/* No other node uses it as a child. */
bool block_is_top(const struct block_node *node);

/* Is `below` the node, or somewhere below it? */
bool block_lies_on(const struct block_node *node,
                   const struct block_node *below);
/* A node that `node` is or lies on, and where writes to `by` get to: they may
 * change what `node` shows. NULL: none. */
const struct block_node *block_find_written(const struct block_node *node,
                                            const struct block_node *by);

/* BlockDeviceInfo of the node (docs/reference/qmp.md), without bitmaps; a new
 * value. `flat` leaves out image.backing-image. Yields, and keeps the node from
 * being deleted until the caller yields again. */
struct json_value *co_block_info(struct block_node *node, bool flat);

/*
 * Users: who holds a node, what it does with it and what it lets others do.
 * Parent nodes, exports and jobs are users. Embedded by the user.
 */
enum block_permission {
    BLOCK_PERM_READ = 1 << 0,
    BLOCK_PERM_WRITE = 1 << 1,
    BLOCK_PERM_RESIZE = 1 << 2,
    BLOCK_PERM_ALL = (1 << 3) - 1,
};

/* What becomes of a user when another node takes the place of its node for
 * those who use it (block/replace.h). */
enum block_user_on_replace {
    BLOCK_USER_IN_THE_WAY, /* forbids it, unless the other shows the same */
    BLOCK_USER_STAYS,      /* has to do with this node itself */
    BLOCK_USER_MOVES,      /* uses the other from then on */
};

struct block_user {
    struct list link;         /* the node's */
    struct block_node *node;  /* NULL while not attached */
    const char *kind;         /* "export", "job", "node": for error sentences */
    const char *id;           /* borrowed from the user */
    unsigned int permissions; /* enum block_permission it uses */
    unsigned int shared;      /* ... and tolerates in others */
    /* Before the node gets another home, on the old one: starts no request any
     * more and waits until none is under way. 0; -ETIMEDOUT when `deadline_ns`
     * (monotonic) passed first. resume() follows in either case. NULL: the user
     * never has requests of its own accord (a parent node). */
    int (*co_quiesce)(struct block_user *user, uint64_t deadline_ns);
    /* Go on: on the new home; or, when the move has failed, on the old one, and
     * requests may still be under way then. NULL with co_quiesce NULL. */
    void (*resume)(struct block_user *user);
    bool pinned; /* cannot move at all (a running job, a fixed export) */
    enum block_user_on_replace on_replace;
    /* It has moved: `node` is another one. Main thread, while the old one is
     * drained. Requests that the home thread makes to the old one all the same,
     * until the drain ends, find their way. NULL: need not be told. */
    void (*moved)(struct block_user *user);
    /* It writes to its node what someone else is about to change below, in the
     * node's backing node, and so does not mind: the target of a backup whose
     * source that is. */
    bool backing_may_change;
    /* The block layer's: it is about to move, and no clash with those who come
     * to this node now. */
    bool leaving;
};

/* Refused (-EBUSY, naming the user in the way) when permissions clash; -EROFS
 * for write permission on a read-only node. */
int block_attach(struct block_node *node,
                 struct block_user *user,
                 GError **err);
void block_detach(struct block_user *user);

/* Makes two pieces share one home, by moving the one with nothing pinned; and
 * moves one piece to a given loop. They stay together only while a user spans
 * them or the one is the other's child. Refused with the name of who is in the
 * way when neither can move. What hangs cannot: after two seconds the move is
 * given up (-ETIMEDOUT, naming the node) and all goes on where it was. */
int co_block_join(struct block_node *a, struct block_node *b, GError **err);
int co_block_move(struct block_node *node, struct loop *home, GError **err);

#endif
