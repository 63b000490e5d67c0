/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of src/block share: the node, its gate, the graph.
 *
 * Owner of each field: "main" is the main thread, "home" the node's home
 * thread (or the main thread while the node is fenced or drained), "fixed" is
 * set before the node is found by anyone and never changes again.
 */
#ifndef BLOCK_NODE_PRIV_H
#define BLOCK_NODE_PRIV_H

#include "block/driver.h"
#include "block/hook.h"
#include "block/node.h"
#include "loop/co_lock.h"

/* The common members of BlockdevOptions, decoded. */
enum block_detect_zeroes {
    BLOCK_DETECT_ZEROES_OFF,
    BLOCK_DETECT_ZEROES_ON,
    BLOCK_DETECT_ZEROES_UNMAP,
};

struct block_common {
    bool direct;
    bool no_flush;
    bool read_only;
    bool auto_read_only;
    bool force_share;
    bool discard_unmap;
    enum block_detect_zeroes detect_zeroes;
};

/* Nodes on top of each other; a request nests as deep on its stack. */
#define BLOCK_DEPTH_MAX 64

/* Requests come in two lanes: a fence closes one, a drain both. */
enum block_lane {
    BLOCK_LANE_OTHER, /* reads, flushes, questions */
    BLOCK_LANE_WRITE, /* whatever changes content or size */
    BLOCK_LANES,
};

struct block_gate_lane {
    unsigned int closed;    /* how many keep it closed */
    unsigned int under_way; /* requests that passed and have not ended */
    bool woken;             /* the first of `held` has been woken */
    struct list held;       /* who waits to pass, in order */
};

struct block_gate {
    struct block_gate_lane lanes[BLOCK_LANES];
    struct co_queue idle; /* who waits for under_way to become 0 */
    unsigned int alone;   /* requests that want the write lane for themselves */
    struct co_mutex turn; /* which of them has it */
};

/* Reads under way, for who has to know when those are over that have begun. They
 * are counted by generation; a new one begins when somebody wants to wait. */
struct block_readers {
    unsigned int watchers; /* nothing is counted without */
    unsigned int generation;
    unsigned int under_way[2]; /* by generation & 1 */
    struct co_queue ended;
};

/* A parent's hold on a child. */
struct block_edge {
    struct block_user user; /* on the child's list of users */
    struct list link;       /* on the child's list of parents */
    struct block_node *parent;
    const struct block_child_role *role; /* the driver's */
};

struct block_node {
    /* main */
    struct list link; /* the graph's, newest first */
    struct list users;
    struct list parents; /* struct block_edge */
    bool opening;        /* has its name, but cannot be found yet */
    const struct json_value *options;    /* while opening; borrowed */
    const struct block_node *opened_for; /* while opening: the parent that this
                                            is opened for; NULL: none */
    bool deleting;
    bool moving;           /* to another home */
    unsigned int visitors; /* coroutines of the main thread at its home */
    unsigned int visitors_waiting; /* ... and those that wait to go there */
    struct co_queue visits;

    /* fixed */
    struct block_graph *graph;
    const struct block_driver *driver;
    char *name;
    char *filename; /* owned; NULL: opens none itself */
    struct block_common common;
    bool read_only;
    bool by_user;
    struct json_value *tracking; /* owned; x-cohort-tracking; NULL: not given */
    struct block_limits limits;

    /* Changed by main while drained, or used by nobody, else fixed. */
    struct loop *home;
    struct block_edge *edges; /* owned; the children */
    size_t edge_count;
    unsigned int depth;       /* how many levels are below it */
    struct block_node **path; /* owned; itself and all below it, once each,
                                 parents before children: itself first */
    bool *path_written;       /* owned; can a write to this node get there? */
    size_t path_count;
    struct block_node *retarget; /* where requests shall go that are held when
                                    the drain ends: writes ... */
    bool retarget_all;           /* ... and others; NULL: where they meant to */
    bool backing_unflushed; /* what was written to the backing node before it
                               became that may not be durable */

    /* home */
    void *state; /* the driver's */
    uint64_t size_bytes;
    struct block_gate gate;
    struct list hooks;
    struct range_lock ranges; /* writes under way, if alignment > 1 */
    struct block_readers readers;
    int read_error; /* what all reads fail with; 0: they do not */
};

struct block_graph {
    struct loop *main;
    const struct block_driver *const *drivers;
    const struct block_driver *const *more_drivers; /* NULL: none */
    GPtrArray *loops;                               /* struct loop, borrowed */
    size_t next_loop;                               /* whose turn it is */
    struct list nodes;                              /* newest first */
    unsigned int names_generated;
    struct block_watcher *watcher; /* NULL: nobody */
    struct co_mutex lock;
};

/* graph.c */
struct loop *block_graph_choose_loop(struct block_graph *graph);

/* options.c: reads the common members. */
int block_common_parse(struct block_common *ret_common,
                       const struct json_value *options,
                       GError **err);
/* A copy of the options of a child in `role` with what it inherits filled in. */
struct json_value *block_common_inherit(const struct block_common *parent,
                                        const struct block_child_role *role,
                                        const struct json_value *child_options);

/* child.c: opens or finds the children that node->options names, then those
 * that the image itself names. On failure the edges made so far stay, for
 * block_edges_release(). */
int co_block_edges_open(struct block_node *node, GError **err);
/* Lets go of the children; nested ones that nobody uses are deleted. */
void co_block_edges_release(struct block_node *node);
/* Sets node->path and node->depth from the children's. */
void block_path_build(struct block_node *node);
int block_error_too_deep(GError **err);
/* Attaches the next edge, to `child`; there must be room. */
int block_edge_add(struct block_node *node,
                   struct block_node *child,
                   const struct block_child_role *role,
                   GError **err);
/* Lets go of the last edge; the child it was to. */
struct block_node *block_edge_drop(struct block_node *node);
/* The driver's role of that name; NULL: none. */
const struct block_child_role *block_role_find(
    const struct block_driver *driver,
    const char *name);

/* user.c: brings the holds of the node's edges, and of all below, up to what its
 * users do. */
void block_refresh_below(struct block_node *node);
/* All existing nodes that `options` names at any depth, appended. `level` is
 * how deep `options` is itself; too deep is an error. */
int block_refs_collect(struct block_graph *graph,
                       const struct json_value *options,
                       unsigned int level,
                       GPtrArray *ret_nodes,
                       GError **err);

/* same_file.c: is `filename` the same file as one of `others` (NULL entries are
 * none), by whatever name? False for what cannot be found. */
bool co_block_file_is_among(const char *filename,
                            const char *const *others,
                            size_t count);

/* graph.c: opens one node and, before it, its nested children. `opened_for`:
 * the parent, itself being opened, that this one is for; NULL: added by the
 * user. */
int co_block_open(struct block_graph *graph,
                  const struct json_value *options,
                  struct loop *home,
                  const struct block_node *opened_for,
                  struct block_node **ret_node,
                  GError **err);
void co_block_close(struct block_node *node);
const struct block_driver *block_driver_find(const struct block_graph *graph,
                                             const char *name);

/* fence.c */
void block_gate_init(struct block_gate *gate);
/* Passes the gates of the node and of all below it; may wait. */
/* Returns the node that was entered and that is to be left: another one, if that
 * took the node's place while the request was held. */
struct block_node *co_block_gate_enter(struct block_node *node,
                                       enum block_lane lane);
void block_gate_leave(struct block_node *node, enum block_lane lane);
/* For a request in the write lane: waits until every other there is through, and
 * lets none in until it has gone on. */
void co_block_gate_be_alone(struct block_node *node);
void block_gate_go_on(struct block_node *node);

static inline bool block_lane_is_open(const struct block_gate_lane *lane)
{
    return lane->closed == 0 && list_is_empty(&lane->held);
}

/* In which lane a request of `lane` passes the gate of node->path[i]: a write is
 * but a read where it cannot get to as a write. */
static inline enum block_lane block_path_lane(const struct block_node *node,
                                              size_t i,
                                              enum block_lane lane)
{
    return node->path_written[i] ? lane : BLOCK_LANE_OTHER;
}

/* Would co_block_gate_enter() pass without waiting? */
static inline bool block_gate_is_open(const struct block_node *node,
                                      enum block_lane lane)
{
    if (!block_lane_is_open(&node->gate.lanes[lane])) {
        return false;
    }
    for (size_t i = 1; i < node->path_count; i++) {
        enum block_lane there = block_path_lane(node, i, lane);

        if (!block_lane_is_open(&node->path[i]->gate.lanes[there])) {
            return false;
        }
    }
    return true;
}

/* hook.c */
bool block_hooks_try(struct block_node *node, uint64_t offset, uint64_t bytes);
int co_block_hooks_run(struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes);
void block_hooks_resized(struct block_node *node,
                         uint64_t old_bytes,
                         uint64_t new_bytes);
void block_hooks_moving(struct block_node *node);
void block_hooks_moved(struct block_node *node);
void block_hooks_release(struct block_node *node);

/* align.c: to the driver, aligned and serialised as the driver needs it. */
int co_block_aligned_preadv(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count);
int co_block_aligned_pwritev(struct block_node *node,
                             uint64_t offset,
                             uint64_t bytes,
                             const struct iovec *iov,
                             int iov_count,
                             unsigned int flags);

/* readers.c: around each read of a node. */
static inline unsigned int *block_reader_begin(struct block_node *node)
{
    unsigned int *counter;

    if (node->readers.watchers == 0) {
        return NULL;
    }
    counter = &node->readers.under_way[node->readers.generation & 1];
    (*counter)++;
    return counter;
}

void block_reader_end(struct block_node *node, unsigned int *counter);

/* zeroes.c */
bool block_iov_is_zero(const struct iovec *iov, int iov_count);
int co_block_zero_range(struct block_node *node,
                        uint64_t offset,
                        uint64_t bytes,
                        unsigned int flags);

/* home.c: a coroutine of the main thread goes to a node's home, and back. The
 * node is not deleted and not moved meanwhile. */
void co_block_visit(struct block_node *node);
void co_block_leave(struct block_node *node);

#endif
