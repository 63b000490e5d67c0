/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a block driver is, and what the block layer does for it.
 *
 * A driver is a constant table. Functions with co_ run in coroutines on the
 * node's home thread; several requests may be inside a driver at once. Offsets
 * and sizes are in range and aligned to limits.request_alignment_bytes; the
 * node is writable where a write arrives. NULL entries: see each.
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "base/schema.h"
#include "block/node.h"
#include "block/request.h"

struct block_child_role {
    const char *name; /* option and role, "file"; NULL ends the table */
    bool required;
    /* Only read from, whatever is done to the parent ("backing"). A child
     * opened for it is read-only unless its own options say otherwise; that it
     * is does not make the parent read-only. */
    bool read_only;
    /* Written to by the parent of its own accord, whatever is done to the
     * parent (the target of copy-before-write): nobody else may. */
    bool written;
    /* Who writes to the parent makes it resize this child (a format's "file"). */
    bool grows;
};

/* What a format needs of the node it lies on: an image that others write to
 * would change under it, and one that it writes to it resizes at any time. */
enum block_claim {
    BLOCK_CLAIM_CONTENT, /* nobody else may write to it */
    BLOCK_CLAIM_SIZE,    /* nobody else may rely on its size */
};

struct block_driver {
    const char *name; /* as in BlockdevOptions.driver */
    const char *doc;
    const struct schema_type *options; /* STRUCT: members beyond the common */
    const struct block_child_role *children; /* NULL: has none. Children are
        open before co_open. They are options too: list them there. */
    /* NULL: the options name all children. Else called, as part of opening, when
     * the children that they name are open and the required ones are, before
     * co_open: reads from block_child() what the image says of itself and
     * gives, in a new dict, BlockdevOptions for each optional role that the
     * image names (block/filename.h makes them from a name). What is given for
     * a role that block_child_is_given() is ignored. Keeps no state. On failure
     * opening fails. */
    int (*co_discover)(struct block_node *node,
                       struct json_value **ret_children,
                       GError **err);
    /* Which of enum block_flags co_pwritev deals with itself. BLOCK_FUA not
     * among them: the block layer flushes after the write. */
    unsigned int write_flags;
    /* Opens. `options` is the node's checked dict, common members included.
     * Sets block_set_state(), block_set_size(), block_set_limits(). On failure
     * everything is undone; co_close is not called. */
    int (*co_open)(struct block_node *node,
                   const struct json_value *options,
                   GError **err);
    void (*co_close)(struct block_node *node);
    /* NULL: always -EAGAIN. See block_try_preadv(). */
    int (*try_preadv)(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count);
    int (*try_pwritev)(struct block_node *node,
                       uint64_t offset,
                       uint64_t bytes,
                       const struct iovec *iov,
                       int iov_count);
    int (*co_preadv)(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     const struct iovec *iov,
                     int iov_count);
    int (*co_pwritev)(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes,
                      const struct iovec *iov,
                      int iov_count,
                      unsigned int flags);
    /* See co_block_pwrite_from_file(). NULL: -ENOTSUP. */
    int (*co_pwrite_from_file)(struct block_node *node,
                               uint64_t offset,
                               uint64_t bytes,
                               int fd,
                               uint64_t file_offset);
    /* -ENOTSUP (or NULL): the block layer writes zeroes from a buffer. */
    int (*co_write_zeroes)(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           unsigned int flags);
    int (*co_discard)(struct block_node *node,
                      uint64_t offset,
                      uint64_t bytes);        /* NULL: nothing to do */
    int (*co_flush)(struct block_node *node); /* NULL: nothing to do */
    /* What a write that is over has changed may be known to this process only,
     * until the next flush: who kills it takes the write back. */
    bool writes_late;
    /* See co_block_forget_cache(). NULL: has none. */
    int (*co_forget_cache)(struct block_node *node);
    int (*co_status)(struct block_node *node,
                     uint64_t offset,
                     uint64_t bytes,
                     struct block_extent *ret); /* NULL: all is data */
    int (*co_truncate)(struct block_node *node,
                       uint64_t size_bytes,
                       bool shrink,
                       GError **err); /* NULL: refused */
    /* A format on the node begins (or, `begin` false, which cannot fail, ends)
     * to claim something of it against other processes. Each that was begun is
     * ended once. -EBUSY: somebody is in the way. NULL: nothing to do. */
    int (*co_claim)(struct block_node *node,
                    enum block_claim claim,
                    bool begin,
                    GError **err);
    int (*try_map)(struct block_node *node,
                   uint64_t offset,
                   uint64_t bytes,
                   int *ret_fd,
                   uint64_t *ret_file_offset); /* NULL: never */
    /* Another node has taken a child's place, or a backing node has come. Main
     * thread, no request is under way. NULL: cannot bear that, and it will not
     * happen. */
    void (*children_changed)(struct block_node *node);
    /* Why the node can have no backing node, a constant sentence; NULL: it can.
     * Main thread. Itself NULL: each node can, if there is a role "backing". */
    const char *(*backing_problem)(const struct block_node *node);
    /* The node has come to rest, and may go to another home; and on the home it
     * has then, it goes on. NULL: nothing is tied to the thread (a timer would
     * be). Plain callbacks on the home thread. */
    void (*drained)(struct block_node *node);
    void (*undrained)(struct block_node *node);
    /* Adds to ImageInfo: filename (required), actual-size and the like. */
    void (*co_info)(struct block_node *node, struct json_value *image);
};

/* For drivers: home thread, or from co_open. */
void block_set_state(struct block_node *node, void *state);
void *block_state(const struct block_node *node);
/* co_discover only: do the options settle the role, be it as "none"? */
bool block_child_is_given(const struct block_node *node, const char *role);
/* The file that the node itself opens, copied; see block_filename(). */
void block_set_filename(struct block_node *node, const char *filename);
void block_set_size(struct block_node *node, uint64_t size_bytes);
void block_set_limits(struct block_node *node,
                      const struct block_limits *limits);
/* For a driver that had to fall back to read-only (auto-read-only). */
void block_set_read_only(struct block_node *node);

/* What a driver does behind its requests' back, on the home thread: begun from
 * a request, and as if under way until ended. A drain waits for it, so the node
 * does not move meanwhile; co_close has to wait itself. */
void block_background_begin(struct block_node *node);
void block_background_end(struct block_node *node);

/*
 * What drivers use on their children, and hooks on nodes: requests that are
 * part of one that has passed the gates already. They pass the hooks of `node`,
 * no gate, and do not count as under way by themselves. Otherwise as the
 * functions of the same name in block/request.h.
 */
int block_child_try_preadv(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count);
int block_child_try_pwritev(struct block_node *node,
                            uint64_t offset,
                            uint64_t bytes,
                            const struct iovec *iov,
                            int iov_count);
int co_block_child_preadv(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          const struct iovec *iov,
                          int iov_count);
int co_block_child_pwritev(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes,
                           const struct iovec *iov,
                           int iov_count,
                           unsigned int flags);
int co_block_child_pwrite_from_file(struct block_node *node,
                                    uint64_t offset,
                                    uint64_t bytes,
                                    int fd,
                                    uint64_t file_offset);
int co_block_child_write_zeroes(struct block_node *node,
                                uint64_t offset,
                                uint64_t bytes,
                                unsigned int flags);
int co_block_child_discard(struct block_node *node,
                           uint64_t offset,
                           uint64_t bytes);
int co_block_child_flush(struct block_node *node);
/* Of a node that is one file: what the host's cache shows may never have reached
 * the medium, for a process before this one may have been told so, and the kernel
 * tells it only once. Writes out what can be, and forgets the rest: what is read
 * from now on is what the medium holds. A negative errno: not all could be written
 * out, or (from then on each flush fails, too, if the node has written) it cannot
 * be known. Home thread. */
int co_block_forget_cache(struct block_node *node);

/* For copy-before-write into a node that lies above the source, home thread. Who
 * has been told of reads (counted) waits for those that have begun, before what
 * lies below is changed. Watch before the first of them can matter. */
void block_watch_reads(struct block_node *node);
void block_unwatch_reads(struct block_node *node);
void co_block_wait_for_reads(struct block_node *node);
/* What lies below has been changed all the same: from now on all reads of the
 * node fail so. */
void block_set_read_error(struct block_node *node, int error);
int co_block_child_status(struct block_node *node,
                          uint64_t offset,
                          uint64_t bytes,
                          struct block_extent *ret);
int co_block_child_truncate(struct block_node *node,
                            uint64_t size_bytes,
                            bool shrink,
                            GError **err);
/* See block_driver.co_claim. */
int co_block_child_claim(struct block_node *node,
                         enum block_claim claim,
                         bool begin,
                         GError **err);
/* The child's own addition to ImageInfo. */
void co_block_child_info(struct block_node *node, struct json_value *image);

/* The composed option types (drivers/registry.c): BlockdevDriver is the
 * enumeration of all drivers, BlockdevOptions is the union
 * of all drivers, BlockdevRef a node name or BlockdevOptions. */
extern const struct schema_type blockdev_driver_type;
extern const struct schema_type blockdev_options_type;
extern const struct schema_type blockdev_ref_type;
/* ... or null: none. */
extern const struct schema_type blockdev_ref_or_null_type;

/* The common members of BlockdevOptions, ends with name NULL. */
extern const struct schema_member blockdev_common_members[];

#endif
